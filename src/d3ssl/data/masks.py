"""Object masks in COCO's three notations (polygons, run lengths, packed run lengths), kept compactly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from faster_coco_eval.core import mask as rle
from jaxtyping import Bool, Float64, Int64

MAX_OUTLINE = 2_000_000
"""Longest outline of an object's polygons, px, with the ways from the image's corner and back: drawing takes some 100
bytes a pixel of it, so that a corner at 1e8 would take gigabytes."""


@runtime_checkable
class ObjectMasks(Protocol):
    """The masks of many objects, however they are kept. An object is named by its row."""

    @property
    def complete(self) -> bool:
        """Whether every object has a mask."""
        ...

    def has(self, row: int) -> bool:
        """Whether one object has a mask (which may turn out to be damaged)."""
        ...

    def decode(self, row: int, height: int, width: int) -> Bool[np.ndarray, "H W"]:
        """The mask of one object.

        Raises:
            ValueError: it has none, or a damaged one.
            InputError: the file that it is in cannot be read.
        """
        ...

    def content(self, row: int) -> bytes:
        """Identifies one object's mask without decoding it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """The masks of all objects of an annotations file. Polygons, of which there are millions, are one array."""

    points: Float64[np.ndarray, "numbers"]
    """x, y, x, y, … of all polygons, px."""
    polygon_ends: Int64[np.ndarray, "polygons_and_one"]
    """Polygon p is ``points[polygon_ends[p] : polygon_ends[p + 1]]``."""
    object_ends: Int64[np.ndarray, "objects_and_one"]
    """Object o has the polygons ``object_ends[o]`` to ``object_ends[o + 1]``."""
    run_lengths: dict[int, dict[str, Any]]
    """Object → its run lengths as in the file, for the objects that are not polygons."""

    @property
    def complete(self) -> bool:
        """Whether every object has a mask."""
        return int(np.count_nonzero(np.diff(self.object_ends))) + len(self.run_lengths) == len(self.object_ends) - 1

    def has(self, row: int) -> bool:
        """Whether one object has a mask."""
        return row in self.run_lengths or bool(self.object_ends[row] < self.object_ends[row + 1])

    def decode(self, row: int, height: int, width: int) -> Bool[np.ndarray, "H W"]:
        """The mask of one object.

        Raises:
            ValueError: it has none, or a damaged one.
        """
        if row in self.run_lengths:
            coded = _unpack(self.run_lengths[row], height, width)
        else:
            first, last = self.object_ends[row : row + 2].tolist()
            if first == last:
                raise ValueError("it has no segmentation")
            ends = self.polygon_ends[first : last + 1].tolist()
            polygons = [self.points[a:b].tolist() for a, b in pairwise(ends)]
            parts = rle.frPyObjects(polygons, height, width)
            coded = rle.merge(parts if isinstance(parts, list) else [parts])
        return rle.decode(coded).astype(bool)

    def content(self, row: int) -> bytes:
        """Identifies one object's segmentation as the file gives it."""
        if row in self.run_lengths:
            return json.dumps(self.run_lengths[row], sort_keys=True).encode()
        first, last = self.object_ends[row : row + 2].tolist()
        ends = self.polygon_ends[first : last + 1]
        return np.diff(ends).tobytes() + self.points[ends[0] : ends[-1]].tobytes()


def _unpack(value: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    """Run lengths in the packed form, checked to cover the image."""
    counts = value["counts"]
    try:
        if isinstance(counts, list):
            packed = rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        else:
            packed = {"size": [height, width], "counts": counts.encode("ascii")}
            counts = rle._mask.toUncompressedRLE([packed])[0]["counts"]
    except (RuntimeError, ValueError, TypeError, UnicodeEncodeError) as error:
        raise ValueError(f"its run lengths are damaged ({error})") from error
    if sum(counts) != height * width:
        raise ValueError(f"its run lengths cover {sum(counts)} of {height * width} pixels")
    assert isinstance(packed, dict)
    return packed


def pack_masks(segmentations: list[Any], sizes: Int64[np.ndarray, "objects 2"]) -> tuple[Masks, dict[int, str]]:
    """Pack the ``segmentation`` fields of objects in images of the given height and width.

    Returns:
        The masks, and for every object with a malformed one what is wrong with it (such an object has no mask).
    """
    bad: dict[int, str] = {}
    polygons: list[list[list[float]]] = []
    run_lengths: dict[int, dict[str, Any]] = {}
    for row, value in enumerate(segmentations):
        polygons.append([])
        if not value:  # absent, None or an empty list: no mask
            continue
        if isinstance(value, list):
            problem = _polygon_problem(value)
            if problem is None:
                polygons[-1] = value
        elif isinstance(value, dict):
            problem = _run_length_problem(value, sizes[row].tolist())
            if problem is None:
                run_lengths[row] = value
        else:
            problem = "its segmentation is neither polygons nor run lengths"
        if problem is not None:
            bad[row] = problem
    flat = list(chain.from_iterable(polygons))
    lengths = np.fromiter(map(len, flat), dtype=np.int64, count=len(flat))
    per_object = np.fromiter(map(len, polygons), dtype=np.int64, count=len(polygons))
    object_ends = np.concatenate([[0], np.cumsum(per_object)])
    polygon_ends = np.concatenate([[0], np.cumsum(lengths)])
    points = np.fromiter(chain.from_iterable(flat), dtype=np.float64, count=int(lengths.sum()))
    masks = Masks(points=points, polygon_ends=polygon_ends, object_ends=object_ends, run_lengths=run_lengths)
    bad.update(_far_outlines(masks))
    for place in np.flatnonzero(~np.isfinite(points)).tolist():
        polygon = int(np.searchsorted(polygon_ends, place, side="right")) - 1
        bad[int(np.searchsorted(object_ends, polygon, side="right")) - 1] = "its polygon has a point that is no number"
    return masks, bad


def _far_outlines(masks: Masks) -> dict[int, str]:
    """Objects whose outline is longer than ``MAX_OUTLINE``; it is measured where it may be, which is rarely."""
    ends = masks.polygon_ends[masks.object_ends]
    rows = np.flatnonzero(np.diff(ends))
    if len(rows) == 0:
        return {}
    starts = ends[rows]
    reach = np.maximum(np.maximum.reduceat(masks.points, starts), -np.minimum.reduceat(masks.points, starts))
    bad = {}
    for row in rows[reach * np.diff(ends)[rows] > MAX_OUTLINE].tolist():
        first, last = masks.object_ends[row : row + 2].tolist()
        outline = sum(_outline(masks.points[a:b]) for a, b in pairwise(masks.polygon_ends[first : last + 1].tolist()))
        if outline > MAX_OUTLINE:
            bad[row] = f"its polygons have an outline of {outline:.3g} px; {MAX_OUTLINE:,} are the most"
    return bad


def _outline(points: Float64[np.ndarray, "numbers"]) -> float:
    """Length of a polygon, px, each side by the longer of x and y, with the ways from the image's corner and back."""
    corners = np.pad(points.reshape(-1, 2), ((1, 1), (0, 0)))
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.abs(np.diff(corners, axis=0)).max(axis=1).sum())


def _polygon_problem(value: list[Any]) -> str | None:
    for polygon in value:
        if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2:
            return "its polygons must be lists of x, y, x, y, … of at least three points"
        if not {int, float}.issuperset(map(type, polygon)):
            return "its polygon has a point that is no number"
    return None


def _run_length_problem(value: dict[str, Any], size: list[int]) -> str | None:
    counts = value.get("counts")
    if value.get("size") != size:
        return f"its run lengths are of size {value.get('size')}, its image of {size} (height, width)"
    if isinstance(counts, str):
        return None  # checked when unpacked, which takes long
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        return "its run lengths have no valid 'counts'"
    if sum(counts) != size[0] * size[1]:
        return f"its run lengths cover {sum(counts)} of {size[0] * size[1]} pixels"
    return None
