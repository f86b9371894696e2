"""Which objects are cut out: those with masks, large enough, of classes that both sides have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from d3ssl import console
from d3ssl.data.scenes.annotated.sides import Side
from d3ssl.data.scenes.config import OutOfContextConfig
from d3ssl.data.scenes.cutouts import MIN_SIDE, draw_classes
from d3ssl.errors import InputError, nearest
from d3ssl.seeds import numpy_generator

FEWEST = 2
"""Objects of a class on a side below which nothing can be made of it."""
FEW = 20
"""Objects of a class on a side below which its figures are shaky."""
MOST_FILLED = 0.5
"""Share of its photograph above which the box of an object leaves too little context to change."""
MASKS = (
    "objects are cut out by their masks: give COCO instances with 'segmentation', Pascal VOC's "
    "ImageSets/Segmentation/train.txt, or let a segmenter (SAM prompted with your boxes) write masks into the file."
)


class Instance(NamedTuple):
    """An object with a mask, and where it is."""

    image: int
    """Place of its photograph in the side's image set."""
    place: int
    """Among the photograph's objects."""
    label: int
    """As in the annotations."""
    annotation: int
    """Its id there."""


def masked_instances(side: Side) -> list[Instance]:
    """All objects with masks (of crowds there are none), photograph by photograph.

    Raises:
        InputError: there are none.
    """
    found, own = [], side.annotations
    for image, rows in enumerate(own.objects_of):
        for place, row in enumerate(rows.tolist()):
            if not own.crowd[row] and own.segmentations.has(row):
                found.append(Instance(image, place, int(own.labels[row]), int(own.ids[row])))
    if not found:
        raise InputError("has no objects with masks", path=own.path, remedy=MASKS)
    return found


def choose_instances(
    sides: tuple[Side, Side], config: OutOfContextConfig
) -> tuple[tuple[str, ...], tuple[tuple[Instance, ...], tuple[Instance, ...]]]:
    """The classes, and for each side the objects that are used, photograph by photograph.

    Raises:
        InputError: no masks, an unknown class, one class only, or a class with fewer than ``FEWEST`` objects on a side.
    """
    names = sides[0].annotations.names
    for name in config.classes:
        if name not in names:
            raise InputError(f"has no class '{name}'", path=sides[0].annotations.path, remedy=nearest(name, names))
    found = [masked_instances(side) for side in sides]
    used = [name for name in names if name in (config.classes or {names[one.label] for own in found for one in own})]
    chosen = [
        _chosen(side, [one for one in own if names[one.label] in used], config)
        for side, own in zip(sides, found, strict=True)
    ]
    counts = [Counter(names[one.label] for one in own) for own in chosen]
    check_counts(used, {side.name: own for side, own in zip(sides, counts, strict=True)}, Path(config.data))
    if config.num_classes is not None:
        if config.num_classes > len(used):
            problem = f"num_classes = {config.num_classes}, but there are {len(used)} classes with masks"
            raise InputError(problem, path=config.data, remedy="lower num_classes.")
        used = draw_classes(used, config.num_classes, config.seed)
    train, val = (tuple(one for one in own if names[one.label] in used) for own in chosen)
    return tuple(used), (train, val)


def check_counts(classes: Iterable[str], counts: Mapping[str, Mapping[str, int]], data: Path) -> None:
    """Raise InputError for fewer than two classes, or a class with too few objects on a side; warn of few.

    Args:
        counts: of each side the objects of each class.
    """
    classes = list(classes)
    if len(classes) < 2:
        problem = f"has masks of one class only: {', '.join(classes)}"
        raise InputError(problem, path=data, remedy="objects are told apart by class: give data with two or more.")
    too_few, few = (
        {
            side: [f"{name} ({own.get(name, 0)})" for name in classes if low <= own.get(name, 0) < high]
            for side, own in counts.items()
        }
        for low, high in ((0, FEWEST), (FEWEST, FEW))
    )
    if any(too_few.values()):
        problem = f"has classes with fewer than {FEWEST} usable objects: {_listed(too_few)}"
        good = [name for name in classes if all(own.get(name, 0) >= FEWEST for own in counts.values())]
        remedy = "lower --min_side and --min_pixels, annotate more, or name the classes to use: --classes "
        raise InputError(problem, path=data, remedy=remedy + f"[{','.join(good[:5])}{',…' if len(good) > 5 else ''}].")
    if any(few.values()):
        problem = f"{data}: classes with fewer than {FEW} usable objects: {_listed(few)}"
        remedy = "expect wide intervals; lower --min_side and --min_pixels, or leave them out by --classes."
        console.warn(problem, remedy)


def _listed(named: Mapping[str, list[str]]) -> str:
    return "; ".join(f"in {side}: {', '.join(names)}" for side, names in named.items() if names)


def _chosen(side: Side, instances: list[Instance], config: OutOfContextConfig) -> list[Instance]:
    """All objects of photographs that are taken as they are; of others those that are large enough (and, with
    ``conditions``, have surroundings), at most ``max_per_class`` of each class."""
    if side.name == "train" and config.keeps_photographs:
        return instances
    own = side.annotations
    by_class: dict[int, list[Instance]] = {}
    for one in instances:
        box = own.boxes[own.objects_of[one.image][one.place]]
        shown = (box[2:] - box[:2]) / own.sizes[one.image][::-1]  # of the photograph's width and height
        fits = not config.conditions or (min(shown) * config.size >= MIN_SIDE and shown[0] * shown[1] <= MOST_FILLED)
        if fits and min(box[2] - box[0], box[3] - box[1]) >= config.min_side:
            by_class.setdefault(one.label, []).append(one)
    chosen: list[Instance] = []
    with console.progress(f"choosing objects of {side.name}", sum(map(len, by_class.values()))) as ticker:
        for label, candidates in sorted(by_class.items()):
            order = numpy_generator(config.seed, "instances", side.name, own.names[label]).permutation(len(candidates))
            chosen += _large(side, (candidates[number] for number in order.tolist()), config)
            ticker.advance(len(candidates))
    return sorted(chosen)


def _large(side: Side, candidates: Iterable[Instance], config: OutOfContextConfig) -> list[Instance]:
    """The first ``max_per_class`` with enough pixels; masks are not decoded beyond these."""
    found: list[Instance] = []
    for one in candidates:
        if np.count_nonzero(side.annotations.masks(one.image, [one.place])) >= config.min_pixels:
            found.append(one)
        if len(found) == config.max_per_class:
            break
    return found
