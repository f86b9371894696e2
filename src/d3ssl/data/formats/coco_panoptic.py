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
_WANTED: dict[str, dict[str, tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": (str,)},
    "categories": {"id": (int,), "name": (str,)},
    "annotations": {"image_id": (int, str), "file_name": (str,), "segments_info": (list,)},
}
_KEPT = ("category_id", "bbox", "iscrowd")
"""Of a segment, as COCO's instances have it."""
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
        """Segments of categories with ``isthing`` 1, or without the entry, as objects; ids are places in the file,
        from 1. Stuff is left out."""
        tables = _tables(self.file, document)
        things = [entry for entry in tables["categories"] if entry.get("isthing", 1)]
        if not things:
            remedy = "objects are things, not stuff."
            raise InputError("has no categories of things (isthing 1)", path=self.file, remedy=remedy)
        stuff = {entry["id"] for entry in tables["categories"]} - {entry["id"] for entry in things}
        maps = tables["annotations"]
        found = [(place, own) for place, entry in enumerate(maps) for own in entry["segments_info"]]
        found = [
            (place, own)
            for place, own in found
            if type(own.get("category_id")) is not int or own["category_id"] not in stuff
        ]
        objects = [
            {"id": number, "image_id": maps[place]["image_id"], **{key: own.get(key) for key in _KEPT}}
            for number, (place, own) in enumerate(found, start=1)
        ]
        annotations = parse_coco(
            self.file,
            {"images": tables["images"], "annotations": objects, "categories": things},
            self.max_bad_share,
            name_of=lambda row: f"segment {found[row][1]['id']} of {maps[found[row][0]]['file_name']}",
        )
        names = [entry["file_name"] for entry in maps]
        folder = maps_folder(self.file, names)
        masks = SegmentFiles(
            paths=tuple(folder / name for name in names),
            file_of=np.array([place for place, _ in found], dtype=np.int64),
            numbers=np.array([own["id"] for _, own in found], dtype=np.int64),
            boxes=annotations.boxes,
            stand_in=np.zeros(len(found), dtype=bool),
            coloured=True,
        )
        return replace(annotations, segmentations=masks)

    def maps(self) -> SemanticSet:
        """Things and stuff alike are classes, and there is no background. Labels are the positions of the categories in
        the order of their ids."""
        file = self.file
        tables = _tables(file, read_json(file))
        categories = sorted(tables["categories"], key=lambda entry: entry["id"])
        label_of = {entry["id"]: label for label, entry in enumerate(categories)}
        name_of = {entry["id"]: entry["file_name"] for entry in tables["images"]}
        for what, known, table in (("category", label_of, "categories"), ("image", name_of, "images")):
            if len(known) < len(tables[table]):
                remedy = f"give every {what} its own."
                raise InputError(f"two entries have the same {what} id", path=file, remedy=remedy)
        found: dict[str, dict[str, Any]] = {}
        for entry in tables["annotations"]:
            name = name_of.get(entry["image_id"])
            if name is None or name in found or not is_below(name):
                why = "is not in the list 'images', has two annotations, or a file name that is no relative path"
                problem = f"an annotation's image_id {entry['image_id']!r} {why}"
                raise InputError(problem, path=file, remedy="keep one annotation for every image of the list.")
            found[name] = entry
        ids = tuple(sorted(found))
        maps = [found[name]["file_name"] for name in ids]
        folder, root = maps_folder(file, maps), images_folder(file, ids)
        return SemanticSet(
            root=root,
            ids=ids,
            paths=tuple(root / name for name in ids),
            names=tuple(entry["name"] for entry in categories),
            maps=PanopticMaps(
                paths=tuple(folder / name for name in maps),
                segments=tuple(_labels(file, found[name], label_of) for name in ids),
            ),
            rows=tuple(range(len(ids))),
        )

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


def _labels(file: Path, entry: dict[str, Any], label_of: dict[int, int]) -> dict[int, int]:
    """Segment number → label."""
    for segment in entry["segments_info"]:
        if segment.get("category_id") not in label_of:
            category = segment.get("category_id")
            problem = f"segment {segment['id']} of {entry['file_name']} has the unknown category_id {category!r}"
            raise InputError(problem, path=file, remedy="add it to the list 'categories', or remove the segment.")
    return {
        own["id"]: IGNORED if own.get("iscrowd", 0) else label_of[own["category_id"]] for own in entry["segments_info"]
    }


def _tables(file: Path, document: Any) -> dict[str, list[dict[str, Any]]]:
    """The lists of the file, each entry with the fields that are needed, each segment with its number."""
    for name, wanted in _WANTED.items():
        table = document.get(name) if isinstance(document, dict) else None
        if not isinstance(table, list) or not table:
            raise InputError(f"has no list '{name}', or an empty one", path=file, remedy=_REMEDY)
        for place, entry in enumerate(table):
            for key, types in wanted.items():
                if not isinstance(entry, dict) or type(entry.get(key)) not in types:
                    raise InputError(f"entry {place + 1} of '{name}' has no valid '{key}'", path=file, remedy=_REMEDY)
    for entry in document["annotations"]:
        name, segments = entry["file_name"], entry["segments_info"]
        if not is_below(name):
            raise InputError(f"no valid 'file_name': {name!r} is no relative path", path=file, remedy=_REMEDY)
        numbers = [VOID, *(own.get("id") if isinstance(own, dict) else None for own in segments)]
        if any(type(number) is not int or number < 0 for number in numbers) or len(set(numbers)) < len(numbers):
            problem = f"{name} has a segment without a number, with number 0, or two of one number"
            raise InputError(problem, path=file, remedy="give every segment of an image its own number above 0.")
    return document
