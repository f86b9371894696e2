"""Semantic maps kept as one PNG an image: Pascal VOC and the ADE20K scene parsing benchmark."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from d3ssl.data.number_png import read_map
from d3ssl.data.place import file_bytes
from d3ssl.data.semantic import IGNORED, SemanticSet, look_up
from d3ssl.data.trees import VOC_NAMES
from d3ssl.errors import InputError, first_names
from d3ssl.files import read_text

ADE_CLASSES = 150
"""Of the benchmark, where no ``objectInfo150.txt`` says otherwise."""


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


def open_voc(folder: Path, part: str) -> SemanticSet:
    """The images of ``ImageSets/Segmentation/PART.txt`` of a VOC tree.

    Pixel values are labels: 0 the background, 1..20 the classes; 255 (borders, difficult objects) is ignored.

    Raises:
        InputError: no such list, an empty one, or one that names an image or a map that is not there.
    """
    listing = folder / "ImageSets" / "Segmentation" / f"{part}.txt"
    if not listing.is_file():
        raise InputError("no such file", path=listing, remedy="a VOC tree lists the images of each split in one.")
    names = sorted({line.strip() for line in read_text(listing).splitlines()} - {""})
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
    lines = [line.split("\t") for line in read_text(path).splitlines() if line.strip()]
    rows = [[cell.strip() for cell in line] for line in lines if line[0].strip().isdecimal()]
    if not rows or [int(row[0]) for row in rows] != list(range(1, len(rows) + 1)) or any(len(row) < 2 for row in rows):
        remedy = "one row per class, tab-separated: number (from 1), …, name; or remove the file."
        raise InputError("is no list of classes", path=path, remedy=remedy)
    return tuple(row[-1] for row in rows)


def _check_there(source: Path, names: list[str], folder: Path, suffix: str, what: str) -> None:
    """Lists the folder once: asking for every file is slow over networks."""
    there = set(os.listdir(folder))
    missing = [name + suffix for name in names if name + suffix not in there]
    if missing:
        problem = f"{len(missing)} of {len(names)} {what} are not in {folder}: {first_names(missing)}"
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
