"""Probes of neighbour leakage: the object in the middle, one neighbour of a class that is independent of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from d3ssl.console import warn
from d3ssl.diagnose.config import DiagnoseConfig
from d3ssl.diagnose.cutouts import GREY, Candidates, Cutout, cut_out, paste
from d3ssl.diagnose.reading import ProbeReader
from d3ssl.diagnose.readouts import FOLDS
from d3ssl.diagnose.sets import DISTANCES, NeighbourProbe, Probe
from d3ssl.seeds import numpy_generator

_INSTANCES = 4
"""Cut-outs of each class in each fold from which a probe set draws its neighbours."""
_LEAST = 4
"""Least objects of a class for it to be a neighbour's: two in each of at least two folds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who can be a neighbour; the same in all probe sets of one data set and seed."""

    classes: Int64[np.ndarray, "K"]
    fold: Int64[np.ndarray, "N"]
    """Of every candidate."""


def choose_cast(candidates: Candidates, config: DiagnoseConfig) -> Cast | None:
    """The classes with the most objects, and a division of all objects into folds, class by class.

    Returns:
        None where fewer than two classes have four objects.
    """
    generator = numpy_generator(config.seed, "neighbours")
    labels, counts = np.unique(candidates.label, return_counts=True)
    order = np.lexsort((generator.permutation(len(labels)), -counts))[: config.neighbour_classes]
    order = order[counts[order] >= _LEAST]
    if len(order) < 2:
        return None
    folds = min(FOLDS, int(counts[order].min()) // 2)
    fold = np.empty(len(candidates), dtype=np.int64)
    for label in labels:
        own = np.flatnonzero(candidates.label == label)
        fold[generator.permutation(own)] = (np.arange(len(own)) + generator.integers(folds)) % folds
    return Cast(classes=np.sort(labels[order]), fold=fold)


def build_neighbours(
    reader: ProbeReader,
    candidates: Candidates,
    rows: Int64[np.ndarray, "O"],
    cutouts: list[Cutout],
    config: DiagnoseConfig,
    size: int,
    channels: int,
    seed: int,
) -> NeighbourProbe | None:
    """Every object with one neighbour of every class at every distance, on grey.

    Where the neighbour stands (which side, which corner) and which cut-out of its class and fold it is, are drawn for
    every image by itself.

    Args:
        rows: the objects' rows among the candidates.
        cutouts: the objects.

    Returns:
        None, with a warning, where the data have too few objects of two classes.
    """
    if config.neighbour_classes == 0:
        return None
    cast = choose_cast(candidates, config)
    generator = numpy_generator(config.seed, "neighbours", seed)
    stock = None if cast is None else _stock(reader, candidates, cast, rows, generator)
    if cast is None or stock is None:
        remedy = f"give at least {_LEAST} objects with usable masks of each of 2 classes."
        warn("neighbour leakage is not measured: too few objects to stand beside others", remedy)
        return None
    conditions = [(distance, label) for distance in range(len(DISTANCES)) for label in cast.classes.tolist()]
    shown = [cutout.resized(round(config.object_side * size)) for cutout in cutouts]
    side = max(2, round((1 - config.object_side) / 3 * size))
    beside = {row: cutout.resized(side) for row, cutout in stock.items()}
    images = np.empty((len(rows), len(conditions), size, size, channels), dtype=np.uint8)
    boxes = np.empty((len(rows), len(conditions), 4), dtype=np.float32)
    for number, row in enumerate(rows.tolist()):
        for condition, (distance, label) in enumerate(conditions):
            able = [r for r in stock if candidates.label[r] == label and cast.fold[r] == cast.fold[row] and r != row]
            other = beside[able[int(generator.integers(len(able)))]]
            canvas = np.full((size, size, channels), GREY, dtype=np.float32)
            boxes[number, condition] = box = paste(canvas, shown[number], (1 / 2, 1 / 2))
            paste(canvas, other, _place(box, other, distance, int(generator.integers(4)), size))
            images[number, condition] = np.rint(canvas)
    return NeighbourProbe(
        shown=Probe(images=images, boxes=boxes, alpha=stack_alpha(shown)),
        label=np.array([label for _, label in conditions], dtype=np.int64),
        distance=np.array([distance for distance, _ in conditions], dtype=np.int64),
        fold=cast.fold[rows],
    )


def _stock(
    reader: ProbeReader,
    candidates: Candidates,
    cast: Cast,
    rows: Int64[np.ndarray, "O"],
    generator: np.random.Generator,
) -> dict[int, Cutout] | None:
    """Cut-outs by row: of every class some in every fold; None where an object would have none but itself."""
    stock: dict[int, Cutout] = {}
    for fold in np.unique(cast.fold[rows]).tolist():
        mine = set(rows[cast.fold[rows] == fold].tolist())
        for label in cast.classes.tolist():
            found: list[int] = []
            for row in generator.permutation(np.flatnonzero((candidates.label == label) & (cast.fold == fold))):
                cutout = cut_out(reader, candidates, int(row))
                if cutout is not None:
                    stock[int(row)] = cutout
                    found.append(int(row))
                if len(found) == _INSTANCES:
                    break
            if not found or (len(found) == 1 and found[0] in mine):
                return None
    return stock


def _place(box: Float32[np.ndarray, "4"], other: Cutout, distance: int, way: int, size: int) -> tuple[float, float]:
    """Centre (y, x), share of the image, of a neighbour that touches the box in the middle of one of its sides, or
    that stands in one of the image's corners."""
    height, width = other.alpha.shape[:2]
    left, top, right, bottom = box.tolist()
    if DISTANCES[distance] == "far":
        return float(way // 2), float(way % 2)  # pasting keeps it inside the image
    y, x = (
        ((top + bottom) / 2, left - width / 2),
        ((top + bottom) / 2, right + width / 2),
        (top - height / 2, (left + right) / 2),
        (bottom + height / 2, (left + right) / 2),
    )[way]
    return y / size, x / size


def stack_alpha(shown: list[Cutout]) -> np.ndarray:
    """Opacities of cut-outs, 0..255, padded with zeros to one square (O, a, a)."""
    side = max(max(cutout.alpha.shape[:2]) for cutout in shown)
    found = np.zeros((len(shown), side, side), dtype=np.uint8)
    for number, cutout in enumerate(shown):
        height, width = cutout.alpha.shape[:2]
        found[number, :height, :width] = np.rint(255 * cutout.alpha[..., 0])
    return found
