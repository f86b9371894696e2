"""Semantic maps kept as one PNG an image: Pascal VOC and the ADE20K scene parsing benchmark."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer
from PIL import Image

from d3ssl.data import png
from d3ssl.data.images import MAX_PIXELS
from d3ssl.data.semantic import IGNORED, SemanticSet, look_up
from d3ssl.data.sources import file_bytes
from d3ssl.errors import InputError

# fmt: off
VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
"""Pascal VOC's classes; position = pixel value."""
VOC_PARTS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
"""What a VOC tree with segmentations holds."""
ADE_PARTS = ("images/training", "images/validation", "annotations/training", "annotations/validation")
"""What an ADE20K scene parsing tree holds."""
ADE_CLASSES = 150
"""Of the benchmark, where no ``objectInfo150.txt`` says otherwise."""
_CLASS_MODES = ("P", "L", "1", "I;16", "I;16B", "I")
_DEPTH_AT = 24
"""Byte of a PNG at which bit depth and colour type stand (PNG specification, IHDR)."""
_GREY = 0
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, RuntimeError, MemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMaps:
    """Semantic maps as PNG files of class numbers."""

    paths: tuple[Path, ...]
    known: dict[int, int]
    """Pixel value → label, or ``IGNORED``."""
    meaning: str
    """The permitted values, for people."""

    def read(self, row: int) -> Int64[np.ndarray, "H W"]:
        path = self.paths[row]
        remedy = "write the class numbers of this data set into the map, or its value for ignored pixels."
        return look_up(read_map(path), self.known, path, self.meaning, remedy)

    def content(self, row: int) -> str:
        return f"{self.paths[row].name} {file_bytes(self.paths[row])}"


def read_map(path: Path, modes: Sequence[str] = _CLASS_MODES) -> Integer[np.ndarray, "H W ..."]:
    """The stored values of a PNG: of a palette the indices, not the colours.

    Args:
        modes: the kinds of picture that are permitted (PIL's names).

    Raises:
        InputError: no such file, not a PNG, damaged, or of another kind.
    """
    try:
        with open(path, "rb") as file, Image.open(file, formats=("PNG",)) as image:
            mode = image.mode
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}×{image.height} px are too many")
            if mode in modes:
                place = file.tell()
                png.check_chunks(file)
                file.seek(_DEPTH_AT)
                depth, kind = file.read(2)
                file.seek(place)  # PIL reads on from where its header ended
                values = np.array(image)
                return _unstretched(values, depth) if kind == _GREY else values
    except FileNotFoundError as error:
        raise InputError(
            "no such file", path=path, remedy="add the map of this image, or leave the image out."
        ) from error
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).replace(str(path), "the file").split()) or type(error).__name__
        problem = f"cannot be read as a map of classes ({reason})"
        raise InputError(problem, path=path, remedy="a map is a whole PNG; make it again.") from error
    kind = "a map of class numbers" if "P" in modes else "a map of segment numbers in RGB"
    remedy = "save a palette or grey PNG of class numbers." if "P" in modes else "save an 8-bit RGB PNG."
    raise InputError(f"is a PNG of PIL's mode {mode}, not {kind}", path=path, remedy=remedy)


def _unstretched(values: np.ndarray, depth: int) -> Integer[np.ndarray, "H W"]:
    """PIL stretches grey of 1, 2 and 4 bits to the whole range (1 bit: to False, True)."""
    if values.dtype == bool:
        return values.astype(np.uint8)
    return values // (255 // (2**depth - 1)) if depth < 8 else values


def voc_folder(root: Path) -> Path | None:
    """The VOC tree that DATA is or holds (``VOCdevkit``, or the folder with ``VOCdevkit`` in it); None: there is none.

    Raises:
        InputError: it holds several.
    """
    if _holds(root, VOC_PARTS):
        return root
    found = [folder for below in ("VOC*", "VOCdevkit/VOC*") for folder in sorted(root.glob(below))]
    found = [folder for folder in found if _holds(folder, VOC_PARTS)]
    if len(found) > 1:
        listed = ", ".join(folder.name for folder in found)
        raise InputError(f"holds several data sets: {listed}", path=root, remedy=f"name one, such as {found[-1]}.")
    return found[0] if found else None


def open_voc(folder: Path, part: str) -> SemanticSet:
    """The images of ``ImageSets/Segmentation/PART.txt`` of a VOC tree.

    Pixel values are labels: 0 the background, 1..20 the classes; 255 (borders, difficult objects) is ignored.

    Raises:
        InputError: no such list, an empty one, or one that names an image or a map that is not there.
    """
    listing = folder / "ImageSets" / "Segmentation" / f"{part}.txt"
    if not listing.is_file():
        raise InputError("no such file", path=listing, remedy="a VOC tree lists the images of each split in one.")
    names = sorted({line.strip() for line in listing.read_text(encoding="utf-8").splitlines()} - {""})
    if not names:
        raise InputError("names no images", path=listing, remedy="write the names of the split's images, one a line.")
    _check_there(listing, names, folder / "JPEGImages", ".jpg", "images")
    _check_there(listing, names, folder / "SegmentationClass", ".png", "maps")
    classes = len(VOC_NAMES)
    maps = FileMaps(
        paths=tuple(folder / "SegmentationClass" / f"{name}.png" for name in names),
        known={value: value for value in range(classes)} | {IGNORED: IGNORED},
        meaning=f"classes are 0 to {classes - 1}, and {IGNORED} is ignored",
    )
    return _with_maps(folder, "JPEGImages", names, VOC_NAMES, maps)


def ade_folder(root: Path) -> Path | None:
    """The ADE20K scene parsing tree that DATA is or holds (``ADEChallengeData2016``); None: there is none."""
    candidates = (root, root / "ADEChallengeData2016")
    return next((folder for folder in candidates if _holds(folder, ADE_PARTS)), None)


def open_ade(folder: Path, part: str) -> SemanticSet:
    """The images of ``images/PART`` (training, validation) of an ADE20K scene parsing tree.

    Pixel value v > 0 is label v − 1; 0 ("other") is ignored. Names come from ``objectInfo150.txt`` if it is there.

    Raises:
        InputError: no images, images without maps, or a malformed list of names.
    """
    place = folder / "images" / part
    names = sorted(path.stem for path in place.glob("*.jpg") if not path.name.startswith("."))
    if not names:
        raise InputError("holds no images (*.jpg)", path=place, remedy="put the split's images there.")
    _check_there(place, names, folder / "annotations" / part, ".png", "maps")
    classes = _ade_names(folder / "objectInfo150.txt")
    maps = FileMaps(
        paths=tuple(folder / "annotations" / part / f"{name}.png" for name in names),
        known={0: IGNORED} | {label + 1: label for label in range(len(classes))},
        meaning=f"classes are 1 to {len(classes)}, and 0 is ignored",
    )
    return _with_maps(folder, f"images/{part}", names, classes, maps)


def _ade_names(path: Path) -> tuple[str, ...]:
    """The last column of the benchmark's table, in the order of its first (1, 2, …)."""
    if not path.is_file():
        return tuple(f"class {number}" for number in range(1, ADE_CLASSES + 1))
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = [[cell.strip() for cell in line] for line in lines if line[0].strip().isdecimal()]
    if not rows or [int(row[0]) for row in rows] != list(range(1, len(rows) + 1)) or any(len(row) < 2 for row in rows):
        remedy = "a row a class: its number from 1 on, …, its name, with tabs between; or take the file away."
        raise InputError("is no list of classes", path=path, remedy=remedy)
    return tuple(row[-1] for row in rows)


def _holds(folder: Path, parts: Sequence[str]) -> bool:
    return all((folder / part).is_dir() for part in parts)


def _check_there(source: Path, names: list[str], folder: Path, suffix: str, what: str) -> None:
    """Lists the folder once: asking for every file is slow over networks."""
    there = set(os.listdir(folder))
    missing = [name for name in names if name + suffix not in there]
    if missing:
        listed = ", ".join(name + suffix for name in missing[:5]) + (", …" if len(missing) > 5 else "")
        problem = f"{len(missing)} of {len(names)} {what} are not in {folder}: {listed}"
        raise InputError(problem, path=source, remedy="add them, or leave these images out.")


def _with_maps(folder: Path, place: str, names: list[str], classes: tuple[str, ...], maps: FileMaps) -> SemanticSet:
    return SemanticSet(
        root=folder,
        ids=tuple(f"{place}/{name}.jpg" for name in names),
        paths=tuple(folder / place / f"{name}.jpg" for name in names),
        names=classes,
        maps=maps,
        rows=tuple(range(len(names))),
    )
