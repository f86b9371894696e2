"""Figures of a split: how many objects, of which classes, together with which, how large and where."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from d3ssl.data.open_images.boxes import DEPICTION, GROUP, counts
from d3ssl.data.open_images.classes import BoxableClasses
from d3ssl.data.open_images.objects import ObjectTable
from d3ssl.data.open_images.select import Pool
from d3ssl.errors import InputError
from d3ssl.files import write_text

PLACES = 32
"""Rows and columns of the map of places."""
COARSE = 3
"""Rows and columns for a class's place entropy: 3×3, as the position measurements of d3ssl."""
_CHUNK = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitStatistics:
    """All of boxes that count, in the chosen images, unless it says otherwise."""

    images: int
    boxes: int
    """All boxes of kept classes, whether they count or not."""
    objects: int
    groups: int
    """Boxes with IsGroupOf 1."""
    depictions: int
    """Boxes with IsDepiction 1."""
    unknown: int
    """Boxes with −1 in one of the two, and 1 in neither."""
    masks: int
    """Boxes with a mask."""
    objects_per_image: Int64[np.ndarray, "images"]
    class_objects: Int64[np.ndarray, "classes"]
    class_images: Int64[np.ndarray, "classes"]
    together: Int64[np.ndarray, "kept kept"]
    """Images that show two kept classes; the diagonal: that show one."""
    sides: Float64[np.ndarray, "objects"]
    """√(width·height), share of the image."""
    places: Int64[np.ndarray, "32 32"]
    """Centres of objects in a grid over the image; rows are y."""
    place_entropy: Float64[np.ndarray, "classes"]
    """Entropy of a class's centres in a 3×3 grid ÷ log 9: 1 anywhere, 0 in one place; NaN without objects."""

    def summary(self) -> dict[str, Any]:
        """As plain data, without what ``classes.csv`` has."""
        histogram = np.bincount(self.objects_per_image) if self.images else np.zeros(0, dtype=np.int64)
        plain = {name: getattr(self, name) for name in ("images", "boxes", "objects", "groups", "depictions")}
        return {
            **plain,
            "unknown": self.unknown,
            "masks": self.masks,
            "effective_classes": effective_number(self.class_objects),
            "objects_per_image_mean": float(self.objects_per_image.mean()) if self.images else 0.0,
            "images_by_number_of_objects": histogram.tolist(),
            "side_quartiles": np.quantile(self.sides, [0.25, 0.5, 0.75]).tolist() if self.objects else [],
            "places": self.places.tolist(),
        }


def effective_number(amounts: Int64[np.ndarray, "classes"]) -> float:
    """exp of the entropy: how many equally frequent classes would be as diverse. 0 where there is nothing."""
    total = int(amounts.sum())
    if total == 0:
        return 0.0
    shares = amounts[amounts > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def describe(
    table: ObjectTable, num_images: int, kept: Bool[np.ndarray, "classes"], unknown_counts: bool
) -> SplitStatistics:
    """Figures of the objects of ``num_images`` images."""
    good = counts(table.flags, unknown_counts)
    image, label, sides = table.image[good], table.label[good], table.sides[good]
    x, y = sides[:, :2].mean(axis=1), sides[:, 2:].mean(axis=1)
    marked = table.flags[:, [GROUP, DEPICTION]]
    pairs = np.unique(image * len(kept) + label)
    return SplitStatistics(
        images=num_images,
        boxes=len(table),
        objects=len(image),
        groups=int((marked[:, 0] == 1).sum()),
        depictions=int((marked[:, 1] == 1).sum()),
        unknown=int(((marked == -1).any(axis=1) & ~(marked == 1).any(axis=1)).sum()),
        masks=sum(mask is not None for mask in table.masks),
        objects_per_image=np.bincount(image, minlength=num_images).astype(np.int64),
        class_objects=np.bincount(label, minlength=len(kept)).astype(np.int64),
        class_images=np.bincount(pairs % len(kept), minlength=len(kept)).astype(np.int64),
        together=_together(pairs // len(kept), pairs % len(kept), num_images, kept),
        sides=np.sqrt((sides[:, 1] - sides[:, 0]) * (sides[:, 3] - sides[:, 2])),
        places=np.bincount(_cell(x, y, PLACES), minlength=PLACES**2).reshape(PLACES, PLACES).astype(np.int64),
        place_entropy=_place_entropy(label, _cell(x, y, COARSE), len(kept)),
    )


def _cell(x: np.ndarray, y: np.ndarray, cells: int) -> np.ndarray:
    """Number of the cell of a grid that a place in 0..1 is in, row by row."""
    column, row = (np.minimum((value * cells).astype(np.int64), cells - 1) for value in (x, y))
    return row * cells + column


def _place_entropy(label: np.ndarray, cell: np.ndarray, num_classes: int) -> np.ndarray:
    found = np.bincount(label * COARSE**2 + cell, minlength=num_classes * COARSE**2).reshape(num_classes, -1)
    entropies = [np.log(effective_number(row)) if row.any() else np.nan for row in found]
    return np.array(entropies) / np.log(COARSE**2)


def _together(image: np.ndarray, label: np.ndarray, num_images: int, kept: np.ndarray) -> np.ndarray:
    column = np.cumsum(kept) - 1
    total = np.zeros((int(kept.sum()),) * 2)
    for first in range(0, num_images, _CHUNK):  # a chunk of images at a time: images × classes is large
        rows = slice(*np.searchsorted(image, [first, first + _CHUNK]).tolist())
        shows = np.zeros((_CHUNK, len(total)), dtype=np.float32)
        shows[image[rows] - first, column[label[rows]]] = 1
        total += shows.T @ shows
    return np.rint(total).astype(np.int64)


def closest_pairs(statistics: SplitStatistics, least: int, top: int) -> list[tuple[int, int, float, int]]:
    """Pairs of classes that appear together: (first, second, lift, images with both), by lift.

    Lift = P(both) / (P(first)·P(second)); only pairs with at least ``least`` common images. Classes are positions
    among the kept ones.
    """
    alone = np.diag(statistics.together).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = statistics.together * statistics.images / (alone[:, None] * alone[None, :])
    lift = np.where(np.triu(statistics.together >= least, k=1), lift, 0.0)
    order = np.argsort(-lift, axis=None, kind="stable")[:top].tolist()
    places = [divmod(place, len(alone)) for place in order]
    return [(a, b, float(lift[a, b]), int(statistics.together[a, b])) for a, b in places if lift[a, b] > 0]


def write_class_table(
    path: Path,
    classes: BoxableClasses,
    kept: Bool[np.ndarray, "classes"],
    pools: Mapping[str, Pool],
    statistics: Mapping[str, SplitStatistics],
) -> None:
    """Write ``classes.csv``: all boxable classes, which are kept, and how many images and objects they have in the
    pool (all images that satisfy the rule) and among the chosen images of every split."""
    header = ["category_id", "label", "name", "kept"]
    for split in statistics:
        header += [f"{split}_{what}" for what in ("pool_images", "pool_objects", "images", "objects", "place_entropy")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for number, (label, name) in enumerate(zip(classes.labels, classes.names, strict=True)):
        row: list[Any] = [number + 1, label, name, int(kept[number])]
        for split, found in statistics.items():
            entropy = found.place_entropy[number]
            row += [pools[split].class_images[number], pools[split].class_objects[number]]
            row += [found.class_images[number], found.class_objects[number]]
            row.append("" if np.isnan(entropy) else f"{entropy:.4f}")
        writer.writerow(row)
    write_text(path, text.getvalue())


def read_class_table(path: Path) -> tuple[BoxableClasses, Bool[np.ndarray, "classes"]]:
    """The classes, and which are kept, from ``classes.csv``.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        classes = BoxableClasses(labels=tuple(r["label"] for r in rows), names=tuple(r["name"] for r in rows))
        return classes, np.array([int(row["kept"]) for row in rows], dtype=bool)
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError, csv.Error) as error:
        problem = f"cannot be read as a table of classes ({error})"
        raise InputError(problem, path=path, remedy="build the benchmark again.") from error
