"""The things of COCO's panoptic format as objects: a PNG of segment numbers per image, and a file that names them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from d3ssl.data.coco import CocoAnnotations, parse_coco
from d3ssl.data.folders import is_below, maps_folder
from d3ssl.data.segment_files import SegmentFiles
from d3ssl.errors import InputError

_REMEDY = "write the file in COCO's panoptic format (images, annotations with segments_info, categories)."


def is_panoptic_document(document: Any) -> bool:
    """Whether what an annotations file holds is of the panoptic format: annotations of whole images, not of objects."""
    entries = document.get("annotations") if isinstance(document, dict) else None
    return (
        isinstance(entries, list) and bool(entries) and isinstance(entries[0], dict) and "segments_info" in entries[0]
    )


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
    stuff = {entry["id"] for entry in entries if not entry.get("isthing", 1) and type(entry.get("id")) is int}
    objects, names, numbers, places = _segments(file, document["annotations"], stuff)
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


def _segments(
    file: Path, entries: list[Any], stuff: set[int]
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
            if type(segment.get("category_id")) is int and segment["category_id"] in stuff:
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
