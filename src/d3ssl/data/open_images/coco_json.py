"""Objects of Open Images as a COCO instances file, written line by line: a million dictionaries need a gigabyte."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from faster_coco_eval.core import mask as rle
from jaxtyping import Bool, Int64

from d3ssl.data.open_images.boxes import GROUP
from d3ssl.data.open_images.classes import BoxableClasses
from d3ssl.data.open_images.masks import run_lengths
from d3ssl.data.open_images.objects import FLAG_NAMES, ObjectTable
from d3ssl.data.open_images.sizes import NOMINAL
from d3ssl.files import write_atomically

LICENCES = (
    {
        "id": 1,
        "name": "CC BY 2.0 as listed by Open Images (not verified: check each image)",
        "url": "https://creativecommons.org/licenses/by/2.0/",
    },
)
"""Of the images. The annotations are licensed by Google LLC under CC BY 4.0."""
_PIECE = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitData:
    """What a COCO file of one split is made from."""

    ids: tuple[str, ...]
    """Image ids in the order of the list; the COCO id of an image is its position, from 1."""
    objects: ObjectTable
    classes: BoxableClasses
    kept: Bool[np.ndarray, "classes"]
    """The classes that are categories; the COCO id of a category is its position among all classes, from 1."""
    sizes: Int64[np.ndarray, "images 2"] | None = None
    """Height and width, px; 0 where not known. None: none is known."""
    mask_files: dict[str, Path] | None = None
    """File name → path of the masks to write as run lengths; None: only their names are written."""


def write_coco(path: Path, data: SplitData, info: dict[str, Any], present: Bool[np.ndarray, "images"]) -> None:
    """Write a COCO instances file.

    An annotation has besides COCO's fields the five flags of Open Images (1, 0 or −1) and, where there is one,
    ``mask_file``. Groups are crowds (``iscrowd`` 1); a box whose IsGroupOf is unknown is none. An image whose size is
    not known is given the nominal one, with ``"size_known": false``: its boxes are then shares of the sides × 1024.

    Args:
        info: what the field ``info`` says.
        present: the images to write; the others are left out with their objects.
    """
    categories = [
        {"id": number + 1, "name": data.classes.names[number], "open_images_label": data.classes.labels[number]}
        for number in np.flatnonzero(data.kept).tolist()
    ]
    head = {"info": info, "licenses": LICENCES, "categories": categories}
    sizes, known = _sizes(data)
    with write_atomically(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1])
        _write_list(file, "images", _images(data, sizes, known, present))
        _write_list(file, "annotations", _annotations(data, sizes, present))
        file.write("}\n")


def _sizes(data: SplitData) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.zeros((len(data.ids), 2), dtype=np.int64) if data.sizes is None else data.sizes
    known = np.all(sizes > 0, axis=1)
    return np.where(known[:, None], sizes, NOMINAL), known


def _write_list(file: TextIO, name: str, entries: Iterable[dict[str, Any]]) -> None:
    file.write(f', "{name}": [')
    for number, entry in enumerate(entries):
        file.write((",\n" if number else "\n") + json.dumps(entry))
    file.write("\n]")


def _images(data: SplitData, sizes: np.ndarray, known: np.ndarray, present: np.ndarray) -> Iterator[dict[str, Any]]:
    for row in np.flatnonzero(present).tolist():
        height, width = sizes[row].tolist()
        name = f"{data.ids[row]}.jpg"
        entry = {"id": row + 1, "file_name": name, "width": width, "height": height, "license": 1}
        yield {**entry, "size_known": bool(known[row])}


def _annotations(data: SplitData, sizes: np.ndarray, present: np.ndarray) -> Iterator[dict[str, Any]]:
    rows = np.flatnonzero(present[data.objects.image])
    for first in range(0, len(rows), _PIECE):
        yield from _some_annotations(data, sizes, rows[first : first + _PIECE])


def _some_annotations(data: SplitData, sizes: np.ndarray, rows: np.ndarray) -> Iterator[dict[str, Any]]:
    objects = data.objects
    image = objects.image[rows]
    height, width = sizes[image].astype(np.float64).T
    left, right, top, bottom = objects.sides[rows].T
    boxes = np.stack([left * width, top * height, (right - left) * width, (bottom - top) * height], axis=1)
    columns = (image, objects.label[rows], boxes, boxes[:, 2] * boxes[:, 3], objects.flags[rows], sizes[image])
    lists = (column.tolist() for column in columns)
    for row, number, label, box, area, flags, size in zip(rows.tolist(), *lists, strict=True):
        entry = {
            "id": row + 1,
            "image_id": number + 1,
            "category_id": label + 1,
            "bbox": [round(value, 4) for value in box],
            "area": round(area, 4),
            "iscrowd": int(flags[GROUP] == 1),
            **dict(zip(FLAG_NAMES, flags, strict=True)),
        }
        mask = objects.masks[row]
        if mask is not None:
            entry["mask_file"] = mask
            if data.mask_files is not None:
                entry["segmentation"] = run_lengths(data.mask_files[mask], *size)
                entry["area"] = float(rle.area({**entry["segmentation"], "counts": _bytes(entry)}))
        yield entry


def _bytes(entry: dict[str, Any]) -> bytes:
    return entry["segmentation"]["counts"].encode("ascii")
