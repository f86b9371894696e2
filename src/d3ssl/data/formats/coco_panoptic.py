"""COCO panoptic: a PNG of segment numbers an image, and a file that names them.

Things are objects; things and stuff are the classes of pixels.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.coco import parse_coco
from d3ssl.data.folders import images_folder, is_below, maps_folder
from d3ssl.data.formats.coco import Coco
from d3ssl.data.number_png import read_map
from d3ssl.data.place import file_bytes
from d3ssl.data.segment_files import SegmentFiles
from d3ssl.data.semantic import IGNORED, SemanticSet, look_up
from d3ssl.errors import InputError
from d3ssl.files import digest, read_json

_REMEDY = "write the file in COCO's panoptic format (images, annotations with segments_info, categories)."
_MARK = b'"segments_info"'
"""What panoptic files have and files of instances have not."""
VOID = 0
"""Segment number of the pixels that are annotated as nothing; ignored."""


@dataclass(frozen=True, kw_only=True)
class CocoPanoptic(Coco):
    """A panoptic file; its maps are in the folder named like it (``panoptic_val2017.json`` → ``panoptic_val2017/``)."""

    what = "a COCO panoptic file"

    @classmethod
    def detect(cls, path: Path) -> CocoPanoptic | None:
        """Looks into the file, which may be large and must not be parsed twice."""
        found = super().detect(path)
        if found is None or not found.file.is_file() or not found.file.stat().st_size:
            return None
        with open(found.file, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return cls(path=path, file=found.file) if content.find(_MARK) >= 0 else None

    def _parse(self, document: Any) -> CocoAnnotations:
        return panoptic_annotations(self.file, document)

    def maps(self) -> SemanticSet:
        return panoptic_maps(self.file)

    def document(self) -> Any:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PanopticMaps:
    """Segment numbers R + 256·G + 65536·B, and what they stand for."""

    paths: tuple[Path, ...]
    segments: tuple[dict[int, int], ...]
    """For every map: segment number → label; ``IGNORED`` for crowds."""

    def read(self, row: int) -> Int64[np.ndarray, "H W"]:
        path = self.paths[row]
        colours = read_map(path, ("RGB",)).astype(np.int64)
        meaning = "segments are named in segments_info, and 0 is ignored"
        remedy = "add these segments to the image's segments_info, or set their pixels to 0."
        return look_up(colours @ np.array([1, 256, 65536]), self.segments[row] | {VOID: IGNORED}, path, meaning, remedy)

    def content(self, row: int) -> str:
        segments = json.dumps(sorted(self.segments[row].items()))
        return digest(self.paths[row].name, str(file_bytes(self.paths[row])), segments)


def panoptic_annotations(file: Path, document: Any) -> CocoAnnotations:
    """Segments of categories with ``isthing`` 1 (or without the entry) as objects; stuff is left out.

    Annotation ids are the places of the segments in the file, from 1. The PNGs lie in the folder named like the file.

    Raises:
        InputError: malformed file, unknown images or categories, missing maps.
    """
    categories = document.get("categories")
    images = document.get("images")
    if not isinstance(categories, list) or not isinstance(images, list):
        raise InputError("has no list 'images' or 'categories'", path=file, remedy=_REMEDY)
    entries = [entry for entry in categories if isinstance(entry, dict)]
    things = [entry for entry in entries if entry.get("isthing", 1)]
    if not things:
        raise InputError("has no categories of things (isthing 1)", path=file, remedy="objects are things, not stuff.")
    stuff = {entry.get("id") for entry in entries if not entry.get("isthing", 1)}
    objects, names, numbers, places = _things(file, document["annotations"], stuff)
    annotations = parse_coco(
        file,
        {"images": images, "annotations": objects, "categories": things},
        name_of=lambda row: f"segment {numbers[row]} of {names[places[row]]}",
    )
    folder = maps_folder(file, names)
    masks = SegmentFiles(
        paths=tuple(folder / name for name in names),
        file_of=np.array(places, dtype=np.int64),
        numbers=np.array(numbers, dtype=np.int64),
        boxes=annotations.boxes,
        stand_in=np.zeros(len(numbers), dtype=bool),
        coloured=True,
    )
    return replace(annotations, segmentations=masks)


def _things(
    file: Path, entries: list[Any], stuff: set[Any]
) -> tuple[list[dict[str, Any]], list[str], list[int], list[int]]:
    """The things as COCO instances, the maps' names, and for every thing its number and the place of its map."""
    objects: list[dict[str, Any]] = []
    names: list[str] = []
    numbers: list[int] = []
    places: list[int] = []
    for entry in entries:
        name = entry.get("file_name") if isinstance(entry, dict) else None
        segments = entry.get("segments_info") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not is_below(name) or not isinstance(segments, list):
            problem = f"an annotation has no valid 'file_name' or 'segments_info': {str(entry)[:80]}"
            raise InputError(problem, path=file, remedy=_REMEDY)
        names.append(name)
        for segment in segments:
            number = segment.get("id") if isinstance(segment, dict) else None
            if type(number) is not int or number <= 0:
                problem = f"{name} has a segment without a number above 0"
                raise InputError(problem, path=file, remedy="give every segment of an image its own number above 0.")
            if segment.get("category_id") in stuff:
                continue
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": entry.get("image_id"),
                    "category_id": segment.get("category_id"),
                    "bbox": segment.get("bbox"),
                    "iscrowd": segment.get("iscrowd", 0),
                }
            )
            numbers.append(number)
            places.append(len(names) - 1)
    return objects, names, numbers, places


def panoptic_maps(file: Path) -> SemanticSet:
    """Images with the semantic maps of a panoptic file; things and stuff alike are classes, and there is no background.

    Labels are the positions of the categories in the order of their ids. The maps lie in the folder named like the
    file (``panoptic_val2017.json`` → ``panoptic_val2017/``), the images in one of the customary folders.

    Raises:
        InputError: malformed file, missing maps or images, unknown images or categories.
    """
    document = read_json(file)
    images = _table(file, document, "images", {"id": (int, str), "file_name": (str,)})
    categories = _table(file, document, "categories", {"id": (int,), "name": (str,)})
    wanted = {"image_id": (int, str), "file_name": (str,), "segments_info": (list,)}
    entries = _table(file, document, "annotations", wanted)
    label_of = {number: label for label, number in enumerate(sorted(entry["id"] for entry in categories))}
    names = {label_of[entry["id"]]: entry["name"] for entry in categories}
    name_of = {entry["id"]: entry["file_name"] for entry in images}
    for what, known, given in (("category", len(label_of), categories), ("image", len(name_of), images)):
        if known < len(given):
            raise InputError(f"two entries have the same {what} id", path=file, remedy=f"give every {what} its own.")
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name = name_of.get(entry["image_id"])
        if name is None or name in found or not is_below(name) or not is_below(entry["file_name"]):
            why = "is not in the list 'images', has two annotations, or a file name that is no relative path"
            problem = f"an annotation's image_id {entry['image_id']!r} {why}"
            raise InputError(problem, path=file, remedy="keep one annotation for every image of the list.")
        found[name] = entry
    order = sorted(found)
    if not order:
        raise InputError("has no annotated images", path=file, remedy=_REMEDY)
    maps = [found[name]["file_name"] for name in order]
    folder = maps_folder(file, maps)
    root = images_folder(file, order)
    return SemanticSet(
        root=root,
        ids=tuple(order),
        paths=tuple(root / name for name in order),
        names=tuple(names[label] for label in range(len(names))),
        maps=PanopticMaps(
            paths=tuple(folder / name for name in maps),
            segments=tuple(_segments(file, found[name], label_of) for name in order),
        ),
        rows=tuple(range(len(order))),
    )


def _segments(file: Path, entry: dict[str, Any], label_of: dict[int, int]) -> dict[int, int]:
    labels: dict[int, int] = {}
    for segment in entry["segments_info"]:
        number = segment.get("id") if isinstance(segment, dict) else None
        if type(number) is not int or number in labels or number == VOID:
            problem = f"{entry['file_name']} has a segment without a number, with number 0, or two of one number"
            raise InputError(problem, path=file, remedy="give every segment of an image its own number above 0.")
        category = segment.get("category_id")
        if category not in label_of:
            problem = f"segment {number} of {entry['file_name']} has the unknown category_id {category!r}"
            raise InputError(problem, path=file, remedy="add it to the list 'categories', or remove the segment.")
        labels[number] = IGNORED if segment.get("iscrowd", 0) else label_of[category]
    return labels


def _table(file: Path, document: Any, name: str, wanted: dict[str, tuple[type, ...]]) -> list[dict[str, Any]]:
    """A list of the file, each entry with the wanted fields."""
    table = document.get(name) if isinstance(document, dict) else None
    if not isinstance(table, list) or not table:
        raise InputError(f"has no list '{name}', or an empty one", path=file, remedy=_REMEDY)
    for number, entry in enumerate(table):
        for key, types in wanted.items():
            if not isinstance(entry, dict) or type(entry.get(key)) not in types:
                raise InputError(f"entry {number + 1} of '{name}' has no valid '{key}'", path=file, remedy=_REMEDY)
    return table
