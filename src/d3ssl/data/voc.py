"""Objects of Pascal VOC: one XML file an image, and masks where there are any."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from d3ssl.data.coco import CocoAnnotations, parse_coco
from d3ssl.data.images import IMAGE_SUFFIXES
from d3ssl.data.segment_files import SegmentFiles
from d3ssl.data.trees import VOC_NAMES
from d3ssl.errors import InputError, first_names
from d3ssl.files import open_file, read_text

DEFAULT_LIST = "ImageSets/Main/trainval.txt"
"""The images of a tree that is named as a whole."""
_MAX_SIDE = 2**31
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc_annotations(folder: Path, listing: Path | None = None) -> CocoAnnotations:
    """The objects of a VOC tree (``Annotations/*.xml`` of the development kit).

    Boxes are 1-based with the last pixel included there (xmin = 1, xmax = 1 is the first column); here x = xmin − 1 to
    xmax. Objects marked ``difficult`` are crowds: neither trained on nor missed in an evaluation, as in VOC's own.
    Labels are VOC's twenty classes in their order; where other names occur, all names of the tree, sorted.

    Masks come from ``SegmentationObject/``, value n of the PNG being object n of the XML file; a difficult object that
    has no pixels there is its box. Few images of VOC have one: name ``ImageSets/Segmentation/train.txt``.

    Args:
        folder: with ``Annotations/`` and ``JPEGImages/``.
        listing: file with the name of an image in each line; None: ``ImageSets/Main/trainval.txt`` or, in a tree
            without it, all images that have an XML file.

    Raises:
        InputError: names the file at fault.
    """
    default = folder / DEFAULT_LIST
    listing = default if listing is None and default.is_file() else listing
    place = folder / "Annotations"
    there = {name.removesuffix(".xml") for name in os.listdir(place) if name.endswith(".xml")}
    names = sorted(there) if listing is None else _read_list(listing, there)
    source = place if listing is None else listing
    if not names:
        raise InputError("names no images", path=source, remedy="a VOC tree has an XML file for every image.")
    found = [_read_xml(place / f"{name}.xml") for name in names]
    owners = [(image, number) for image, (_, objects) in enumerate(found) for number in range(len(objects))]
    annotations = parse_coco(
        source,
        _as_coco(found, names, _image_files(folder, source, names), _classes(found, place, there)),
        name_of=lambda row: f"object {owners[row][1] + 1} of {names[owners[row][0]]}.xml",
    )
    return _with_masks(folder / "SegmentationObject", annotations, names, owners)


def _read_list(listing: Path, there: set[str]) -> list[str]:
    """The names of a list, sorted; each must have an XML file."""
    try:
        lines = read_text(listing).splitlines()
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
    missing = [name for name in names if name not in there]
    if missing:
        problem = (
            f"names {len(missing)} of {len(names)} images that have no XML file in Annotations/: {first_names(missing)}"
        )
        raise InputError(problem, path=listing, remedy="for images without objects, name the folder JPEGImages.")
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
