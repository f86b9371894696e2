"""Pascal VOC: one XML file an image, with masks of objects and maps of classes where there are any."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.coco import parse_coco
from d3ssl.data.formats.folder import Folder
from d3ssl.data.formats.format import Format, Kind
from d3ssl.data.image_set import ImageSet, named_images
from d3ssl.data.images import IMAGE_SUFFIXES
from d3ssl.data.segment_files import SegmentFiles
from d3ssl.data.semantic import IGNORED, SemanticSet, from_files
from d3ssl.errors import InputError, first_names
from d3ssl.files import open_file, read_text

# fmt: off
VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
"""Pascal VOC's classes; position = pixel value."""
OBJECT_PARTS = ("JPEGImages", "Annotations")
"""What a tree with objects holds."""
MAP_PARTS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
"""What a tree with maps of classes holds."""
DEFAULT_LIST = "ImageSets/Main/trainval.txt"
"""The images of a tree that is named as a whole."""
_MAX_SIDE = 2**31
_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, kw_only=True)
class Voc(Format):
    """A tree (``VOCdevkit/VOC2012``, or a folder above), or one of its lists (``ImageSets/Main/train.txt``).

    Boxes are 1-based with the last pixel included there (xmin = 1, xmax = 1 is the first column); here x = xmin − 1 to
    xmax. Objects marked ``difficult`` are crowds: neither trained on nor missed in an evaluation, as in VOC's own.
    Labels are VOC's twenty classes in their order; where other names occur, all names of the tree, sorted.

    Masks come from ``SegmentationObject/``, value n of the PNG being object n of the XML file; a difficult object that
    has no pixels there is its box. Few images of VOC have one: name ``ImageSets/Segmentation/train.txt``.
    """

    what = "a tree of Pascal VOC, or one of its lists"
    tree: Path
    listing: Path | None = None
    """File with the name of an image in each line; None: ``ImageSets/Main/trainval.txt`` or, in a tree without it, all
    images that have an XML file."""

    @classmethod
    def detect(cls, path: Path) -> Voc | None:
        if path.is_dir():
            tree = voc_folder(path, OBJECT_PARTS) or voc_folder(path, MAP_PARTS)
            return cls(path=path, tree=tree) if tree else None
        tree = path.absolute().parent.parent.parent
        is_list = path.suffix == ".txt" and path.is_file() and path.absolute().parent.parent.name == "ImageSets"
        return cls(path=path, tree=tree, listing=path) if is_list and _holds(tree, OBJECT_PARTS) else None

    def images(self) -> ImageSet:
        if not _holds(self.tree, OBJECT_PARTS):
            return Folder(path=self.tree / "JPEGImages").images()
        return named_images(
            self.listing or self.tree, self.tree / "JPEGImages", voc_annotations(self.tree, self.listing)
        )

    def maps(self) -> SemanticSet:
        """Of a list for segmentation. Pixel values are labels: 0 the background, 1..20 the classes; 255 (borders,
        difficult objects) is ignored."""
        if self.listing is None or self.listing.absolute().parent != (self.tree / "ImageSets/Segmentation").absolute():
            return super().maps()
        names = _read_list(self.listing)
        known = {value: value for value in range(len(VOC_NAMES))} | {IGNORED: IGNORED}
        meaning = f"classes are 0 to {len(VOC_NAMES) - 1}, and {IGNORED} is ignored"
        return from_files(
            self.tree, self.listing, names, ("JPEGImages", "SegmentationClass"), VOC_NAMES, known, meaning
        )

    def parts(self, kind: Kind) -> tuple[Format, Format, str] | None:
        has_maps = kind == "maps" and self.listing is None and _holds(self.tree, MAP_PARTS)
        lists = self.tree / "ImageSets" / ("Segmentation" if has_maps else "Main")
        train = self.listing or lists / "train.txt"
        val = train.with_name("val.txt")
        if not has_maps and not (train.name == "train.txt" and train.is_file() and val.is_file()):
            return None
        return replace(self, listing=train), replace(self, listing=val), "Pascal VOC's lists train.txt, val.txt"


def voc_folder(root: Path, parts: Sequence[str]) -> Path | None:
    """The VOC tree that DATA is or holds (``VOCdevkit``, or the folder with ``VOCdevkit`` in it); None: there is none.

    Args:
        parts: the folders by which a tree is recognised.

    Raises:
        InputError: it holds several.
    """
    if _holds(root, parts):
        return root
    found = [folder for below in ("VOC*", "VOCdevkit/VOC*") for folder in sorted(root.glob(below))]
    found = [folder for folder in found if _holds(folder, parts)]
    if len(found) > 1:
        listed = ", ".join(folder.name for folder in found)
        raise InputError(f"holds several data sets: {listed}", path=root, remedy=f"name one, such as {found[-1]}.")
    return found[0] if found else None


def _holds(folder: Path, parts: Sequence[str]) -> bool:
    return all((folder / part).is_dir() for part in parts)


def voc_annotations(folder: Path, listing: Path | None = None) -> CocoAnnotations:
    """The objects of a tree, as in ``Voc``.

    Raises:
        InputError: names the file at fault.
    """
    default = folder / DEFAULT_LIST
    listing = default if listing is None and default.is_file() else listing
    place = folder / "Annotations"
    there = {name.removesuffix(".xml") for name in os.listdir(place) if name.endswith(".xml")}
    names = sorted(there) if listing is None else _read_list(listing)
    source = place if listing is None else listing
    if not names:
        raise InputError("holds no XML files", path=source, remedy="a VOC tree has an XML file for every image.")
    if missing := [name for name in names if name not in there]:
        listed = first_names(missing)
        problem = f"names {len(missing)} of {len(names)} images that have no XML file in Annotations/: {listed}"
        raise InputError(problem, path=source, remedy="for images without objects, name the folder JPEGImages.")
    found = [_read_xml(place / f"{name}.xml") for name in names]
    owners = [(image, number) for image, (_, objects) in enumerate(found) for number in range(len(objects))]
    annotations = parse_coco(
        source,
        _as_coco(found, names, _image_files(folder, source, names), _classes(found, place, there)),
        name_of=lambda row: f"object {owners[row][1] + 1} of {names[owners[row][0]]}.xml",
    )
    return _with_masks(folder / "SegmentationObject", annotations, names, owners)


def _read_list(listing: Path) -> list[str]:
    """The names of a list, sorted."""
    try:
        lines = read_text(listing).splitlines()
    except FileNotFoundError as error:
        raise InputError("no such file", path=listing, remedy="a VOC tree lists the images of each split.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", path=listing, remedy="check the file.") from error
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) > 1:
            problem = f"line {number} is {line.strip()!r}: the list of one class, or of another task"
            raise InputError(problem, path=listing, remedy="name train.txt, val.txt or trainval.txt beside it.")
        if words and words[0] in names:
            problem = f"line {number} names {words[0]} again, after line {names[words[0]]}"
            raise InputError(problem, path=listing, remedy="remove one of the lines.")
        if words:
            names[words[0]] = number
    if not names:
        raise InputError("names no images", path=listing, remedy="write the names of the split's images, one a line.")
    return sorted(names)


def _read_xml(path: Path) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Height and width, px, and the objects: name, difficult, and box as in the file."""
    remedy = "fix the file, or leave the image out of the list."
    try:
        with open_file(path) as file:
            root = ElementTree.parse(file).getroot()
        height, width = (int(_text(root, f"size/{side}")) for side in ("height", "width"))
        if max(abs(height), abs(width)) > _MAX_SIDE:
            raise ValueError(f"a side of more than {_MAX_SIDE} px")
        objects = [
            {
                "name": _text(node, "name"),
                "difficult": int(node.findtext("difficult", "0")) != 0,
                "box": [float(_text(node, f"bndbox/{side}")) for side in _SIDES],
            }
            for node in root.findall("object")
        ]
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise InputError(f"is no annotation of Pascal VOC ({error})", path=path, remedy=remedy) from error
    return (height, width), objects


def _text(node: ElementTree.Element, place: str) -> str:
    text = (node.findtext(place) or "").strip()
    if not text:
        raise ValueError(f"<{node.tag}> has no <{place}>")
    return text


def _classes(found: list[tuple[Any, list[dict[str, Any]]]], place: Path, there: set[str]) -> tuple[str, ...]:
    names = {one["name"] for _, objects in found for one in objects}
    if names <= set(VOC_NAMES[1:]):
        return VOC_NAMES[1:]
    # A tree of the user's own: the whole of it decides, so that all of its lists have the same classes.
    every = (one["name"] for name in sorted(there) for one in _read_xml(place / f"{name}.xml")[1])
    return tuple(sorted(set(every)))


def _image_files(folder: Path, source: Path, names: list[str]) -> list[str]:
    files: dict[str, str] = {}
    for file in sorted(os.listdir(folder / "JPEGImages"), reverse=True):  # of a.jpg and a.png the first
        stem, dot, suffix = file.rpartition(".")
        if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES:
            files[stem] = file
    missing = [name for name in names if name not in files]
    if missing:
        problem = f"{len(missing)} of {len(names)} images are not in JPEGImages/: {first_names(missing)}"
        raise InputError(problem, path=source, remedy="add them, or leave them out.")
    return [files[name] for name in names]


def _as_coco(
    found: list[tuple[tuple[int, int], list[dict[str, Any]]]],
    names: list[str],
    files: list[str],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    number_of = {name: number for number, name in enumerate(classes, start=1)}
    images, objects = [], []
    for name, file, ((height, width), own) in zip(names, files, found, strict=True):
        images.append({"id": name, "file_name": file, "height": height, "width": width})
        for one in own:
            left, top, right, bottom = one["box"]
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": name,
                    "category_id": number_of[one["name"]],
                    "bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1],
                    "iscrowd": int(one["difficult"]),
                }
            )
    categories = [{"id": number, "name": name} for name, number in number_of.items()]
    return {"images": images, "annotations": objects, "categories": categories}


def _with_masks(
    folder: Path, annotations: CocoAnnotations, names: list[str], owners: list[tuple[int, int]]
) -> CocoAnnotations:
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    paths = [folder / f"{name}.png" for name in names]
    has = np.array([path.name in there for path in paths], dtype=bool)
    if not has.any():
        return annotations
    image = np.array([image for image, _ in owners], dtype=np.int64)
    masks = SegmentFiles(
        paths=tuple(paths),
        file_of=np.where(has[image], image, -1),
        numbers=np.array([number + 1 for _, number in owners], dtype=np.int64),
        boxes=annotations.boxes,
        stand_in=annotations.crowd,
        coloured=False,
    )
    return replace(annotations, segmentations=masks)
