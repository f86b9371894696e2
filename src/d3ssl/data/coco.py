"""Objects in the form of COCO's instances files, checked strictly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from d3ssl.console import warn
from d3ssl.data.annotations import CocoAnnotations
from d3ssl.data.images import MAX_PIXELS
from d3ssl.data.masks import pack_masks
from d3ssl.errors import InputError
from d3ssl.files import read_json
from d3ssl.memory import without_collector

MAX_BAD_SHARE = 1e-4
"""Share of bad objects up to which they are left out with a warning (COCO train2017: 2 of 860,001 have no height)."""
TOLERANCE_PX = 1.0
"""How far a box may reach beyond its image before it counts as outside; it is clipped. Rounding makes a pixel of it."""
_FORMAT_REMEDY = "write the file in the COCO instances format (images, annotations, categories)."


def read_coco(path: str | Path, *, max_bad_share: float = MAX_BAD_SHARE) -> CocoAnnotations:
    """Read and check a COCO instances file.

    Objects with degenerate boxes, boxes outside their image or malformed masks are left out with a warning when they
    are at most ``max_bad_share`` of all, and an error otherwise. All else that is wrong is an error at once.

    Raises:
        InputError: with the file and the id of the first image or annotation at fault.
    """
    path = Path(path)
    with without_collector():
        return parse_coco(path, read_json(path), max_bad_share)


def image_names(path: Path, document: Any) -> tuple[str, ...] | None:
    """File names of a file that lists images and annotates nothing (COCO's ``image_info_….json``: it has no entry
    ``annotations`` at all); None: another kind of file.

    Raises:
        InputError: entries without a file name, or of one name.
    """
    if not isinstance(document, dict) or "annotations" in document or "images" not in document:
        return None
    names = _column(path, _section(path, document, "images"), "image", "file_name", (str,))
    _unique(path, "image", "file_name", names)
    return tuple(names)


def parse_coco(
    path: Path, document: Any, max_bad_share: float = MAX_BAD_SHARE, name_of: Callable[[int], str] | None = None
) -> CocoAnnotations:
    """Check what a COCO instances file holds, as ``read_coco``.

    Args:
        path: where it comes from, for messages.
        document: as JSON gives it.
        max_bad_share: as in ``read_coco``.
        name_of: how messages name the object at a position of ``annotations``; None: by its id.

    Raises:
        InputError: as ``read_coco``.
    """
    try:
        return _parse(path, document, max_bad_share, name_of)
    except OverflowError as error:
        raise InputError(f"has a number that is too large ({error})", path=path, remedy=_FORMAT_REMEDY) from error


def _parse(path: Path, document: Any, max_bad_share: float, name_of: Callable[[int], str] | None) -> CocoAnnotations:
    images = _section(path, document, "images")
    objects = _section(path, document, "annotations")
    categories = _categories(path, _section(path, document, "categories"))
    image_ids = _column(path, images, "image", "id", (int, str))
    _unique(path, "image", "id", image_ids)
    file_names = _column(path, images, "image", "file_name", (str,))
    _unique(path, "image", "file_name", file_names)
    sizes = np.array([_column(path, images, "image", key, (int,)) for key in ("height", "width")], dtype=np.int64).T
    sizes = sizes.reshape(-1, 2)
    for row in np.flatnonzero((sizes <= 0).any(axis=1) | (sizes.astype(float).prod(axis=1) > MAX_PIXELS))[:1]:
        problem = f"image {image_ids[row]} has height {sizes[row, 0]} and width {sizes[row, 1]}"
        raise InputError(problem, path=path, remedy="write the image's true size.")

    ids = np.array(_column(path, objects, "annotation", "id", (int,)), dtype=np.int64)
    _unique(path, "annotation", "id", ids.tolist())
    of_image = _look_up(path, objects, "image_id", {key: row for row, key in enumerate(image_ids)})
    labels = _look_up(path, objects, "category_id", {key: label for label, key in enumerate(categories)})
    boxes = _boxes(path, objects)
    crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in objects], dtype=bool)
    of_size = sizes[of_image]
    masks, bad = pack_masks([entry.get("segmentation") for entry in objects], of_size)
    bad.update(_bad_boxes(boxes, of_size))
    good = _leave_out(path, name_of or (lambda row: f"annotation {ids[row]}"), bad, len(ids), max_bad_share)
    limit = of_size[:, [1, 0, 1, 0]]
    return CocoAnnotations(
        path=path,
        categories=categories,
        file_names=tuple(file_names),
        sizes=sizes,
        entries=tuple(images),
        objects_of=_group(of_image, good, len(images)),
        boxes=np.clip(boxes, 0, limit).astype(np.float32),
        labels=labels,
        crowd=crowd,
        ids=ids,
        segmentations=masks,
    )


def _section(path: Path, document: Any, name: str) -> list[dict[str, Any]]:
    section = document.get(name) if isinstance(document, dict) else None
    if not isinstance(section, list) or not all(isinstance(entry, dict) for entry in section):
        raise InputError(f"has no list '{name}'", path=path, remedy=_FORMAT_REMEDY)
    if not section and name != "annotations":
        raise InputError(f"its list '{name}' is empty", path=path, remedy=_FORMAT_REMEDY)
    return section


def _column(path: Path, entries: list[dict[str, Any]], kind: str, key: str, types: tuple[type, ...]) -> list[Any]:
    """One field of all entries; each must be there and of one of the types."""
    values = [entry.get(key) for entry in entries]
    if not set(map(type, values)) <= set(types):
        row = next(row for row, value in enumerate(values) if type(value) not in types)
        wanted = " or ".join({int: "an integer", str: "a text"}[each] for each in types)
        named = f"{kind} {entries[row]['id']}" if "id" in entries[row] else f"{kind} number {row + 1}"
        found = f"{key} {values[row]!r}" if key in entries[row] else f"no '{key}'"
        raise InputError(f"{named} has {found}; it must be {wanted}", path=path, remedy=_FORMAT_REMEDY)
    return values


def _unique(path: Path, kind: str, key: str, values: list[Any]) -> None:
    if len(set(values)) == len(values):
        return
    seen: set[Any] = set()
    double = next(value for value in values if value in seen or seen.add(value))
    problem = f"the {key} {double!r} stands for more than one {kind}"
    raise InputError(problem, path=path, remedy=f"give every {kind} its own {key}.")


def _categories(path: Path, entries: list[dict[str, Any]]) -> dict[int, str]:
    ids = _column(path, entries, "category", "id", (int,))
    _unique(path, "category", "id", ids)
    return dict(sorted(zip(ids, _column(path, entries, "category", "name", (str,)), strict=True)))


def _look_up(
    path: Path, objects: list[dict[str, Any]], key: str, known: dict[Any, int]
) -> Int64[np.ndarray, "objects"]:
    values = _column(path, objects, "annotation", key, (int, str))
    rows = [known.get(value, -1) for value in values]
    if -1 in rows:
        row = rows.index(-1)
        problem = f"annotation {objects[row]['id']} has the unknown {key} {values[row]!r}"
        remedy = f"add it to the list '{'images' if key == 'image_id' else 'categories'}', or remove the annotation."
        raise InputError(problem, path=path, remedy=remedy)
    return np.array(rows, dtype=np.int64)


def _boxes(path: Path, objects: list[dict[str, Any]]) -> np.ndarray:
    """(objects, 4) float64 xyxy, as in the file."""
    values = [entry.get("bbox") for entry in objects]
    lists = all(type(value) is list and len(value) == 4 for value in values)
    if not lists or not {int, float}.issuperset(map(type, chain.from_iterable(values))):  # type: ignore[arg-type]
        row = next(row for row, value in enumerate(values) if not _is_box(value))
        problem = f"annotation {objects[row]['id']} has the bbox {values[row]!r}"
        raise InputError(problem, path=path, remedy="a bbox is four numbers: x, y, width, height.")
    boxes = np.array(values, dtype=np.float64).reshape(len(objects), 4)
    with np.errstate(invalid="ignore"):  # what is not finite is found later
        boxes[:, 2:] += boxes[:, :2]
    return boxes


def _is_box(value: Any) -> bool:
    return type(value) is list and len(value) == 4 and all(type(number) in (int, float) for number in value)


def _bad_boxes(boxes: np.ndarray, sizes: np.ndarray) -> dict[int, str]:
    """Row → what is wrong with its box."""
    start, stop, limit = boxes[:, :2], boxes[:, 2:], sizes[:, ::-1]
    finite = np.isfinite(boxes).all(axis=1)
    inside = (start >= -TOLERANCE_PX).all(axis=1) & (stop <= limit + TOLERANCE_PX).all(axis=1)
    clipped = np.minimum(stop, limit) - np.maximum(start, 0)
    solid: np.ndarray = np.all(stop.astype(np.float32) > start.astype(np.float32), axis=1)  # as they will be kept
    bad = {}
    for row in np.flatnonzero(~(finite & solid & inside & (clipped > 0).all(axis=1))).tolist():
        x, y, right, bottom = boxes[row].tolist()
        shown = f"its bbox [{x:g}, {y:g}, {right - x:g}, {bottom - y:g}]"
        if not solid[row]:
            bad[row] = f"{shown} is degenerate: width and height must be above 0"
        else:
            bad[row] = f"{shown} lies outside its image of {sizes[row, 1]}×{sizes[row, 0]} px (width × height)"
    return bad


def _leave_out(
    path: Path, name_of: Callable[[int], str], bad: dict[int, str], count: int, max_bad_share: float
) -> Bool[np.ndarray, "objects"]:
    good = np.ones(count, dtype=bool)
    if not bad:
        return good
    first = min(bad)
    others = f" (and {len(bad) - 1} more like it)" if len(bad) > 1 else ""
    problem = f"{name_of(first)}: {bad[first]}{others}"
    named = (name_of(row).removeprefix("annotation ") for row in sorted(bad)[:20])
    remedy = "repair or remove these annotations: " + ", ".join(named)
    if len(bad) > max_bad_share * count:
        raise InputError(problem, path=path, remedy=remedy + ".")
    warn(f"{path}: {len(bad)} of {count} objects are left out. {problem}", remedy + ".")
    good[list(bad)] = False
    return good


def _group(of_image: np.ndarray, good: np.ndarray, images: int) -> tuple[Int64[np.ndarray, "_"], ...]:
    rows = np.flatnonzero(good).astype(np.int64)
    rows = rows[np.argsort(of_image[rows], kind="stable")]
    starts = np.searchsorted(of_image[rows], np.arange(1, images))
    return tuple(np.split(rows, starts))
