"""Probe images: the same objects in several contexts, and at several places."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import numpy as np
from jaxtyping import Int64, UInt8

from d3ssl.console import progress, warn
from d3ssl.data.image_set import ImageSet
from d3ssl.diagnose.config import DiagnoseConfig
from d3ssl.diagnose.cutouts import (
    GREY,
    Candidates,
    Cutout,
    crop_background,
    cut_out,
    draw_balanced,
    find_candidates,
    paste,
)
from d3ssl.diagnose.neighbours import build_neighbours, stack_alpha
from d3ssl.diagnose.reading import ProbeReader
from d3ssl.diagnose.sets import Probe, ProbeSet, SizedProbe, arrays, identify
from d3ssl.errors import InputError
from d3ssl.seeds import numpy_generator

_POOL = 48
"""Images that the backgrounds of one probe set are cropped from."""


def build_probes(images: ImageSet, config: DiagnoseConfig, seed: int, *, channels: int = 3) -> ProbeSet:
    """Cut objects out of their images and paste them under controlled conditions.

    The object has the same pixels in all its images. Contexts: random crops of other images, and single colours
    (the last ``uniform_contexts``); beside the object ``neighbours`` others of other classes, each in one of the eight
    cells around the middle, none of which overlaps it. Places: a grid on uniform grey. One neighbour: see
    ``build_neighbours``. Other sizes: contexts and places once more, with the same contexts and neighbours.

    Args:
        images: with masks.
        config: needs ``size``.
        seed: number of the probe set; with ``config.seed`` it decides everything that is random.
        channels: of the probe images.

    Raises:
        InputError: no masks, too few objects or classes, too few places that ``config.place_step`` leaves, or more
            unusable images than ``config.max_bad_share`` of those tried.
    """
    config.check()
    if config.size is None:
        raise InputError("the size of probe images is not given", remedy="set DiagnoseConfig.size.")
    sized = [config, *(replace(config, object_side=side) for side in config.other_sides)]
    places = [_places(own, config.size) for own in sized]  # refused before objects are cut out
    candidates = find_candidates(images, config.min_side)
    generator = numpy_generator(config.seed, "probes", seed)
    reader = ProbeReader(images, channels, config.max_bad_share)
    rows, cutouts = _draw_cutouts(reader, candidates, config.objects, generator)
    labels, sources = candidates.label[rows], candidates.image[rows]
    pool = generator.permutation(len(images))[:_POOL]
    read = {int(index): reader.read(int(index)) for index in pool}
    backgrounds = {index: image for index, image in read.items() if image is not None}
    neighbour = build_neighbours(reader, candidates, rows, cutouts, config, config.size, channels, seed)
    reader.finish()
    probes = [
        (
            _context_probe(cutouts, labels, sources, backgrounds, config.size, channels, own, deepcopy(generator)),
            _position_probe(cutouts, config.size, channels, own, at),
        )
        for own, at in zip(sized, places, strict=True)
    ]
    sizes = zip(config.other_sides, probes[1:], strict=True)
    found = ProbeSet(
        context=probes[0][0],
        position=probes[0][1],
        identities=candidates.identity[rows],
        labels=labels,
        digest="",
        neighbour=neighbour,
        sizes=tuple(SizedProbe(side=side, context=one, position=two) for side, (one, two) in sizes),
    )
    return replace(found, digest=identify(arrays(found)))


def _draw_cutouts(
    reader: ProbeReader, candidates: Candidates, count: int, generator: np.random.Generator
) -> tuple[Int64[np.ndarray, "n"], list[Cutout]]:
    """Objects drawn evenly from the classes, without those whose mask shows nothing or whose image is bad."""
    rows: list[int] = []
    cutouts: list[Cutout] = []
    with progress("cutting out objects", min(count, len(candidates))) as ticker:
        for row in draw_balanced(candidates, len(candidates), generator):
            cutout = cut_out(reader, candidates, int(row))
            if cutout is None:
                continue
            rows.append(int(row))
            cutouts.append(cutout)
            ticker.advance()
            if len(rows) == count:
                break
    if len(rows) < 4 or len(set(candidates.label[rows].tolist())) < 2:
        problem = f"only {len(rows)} objects have masks that show something, or they are of one class"
        raise InputError(problem, path=reader.images.annotated.path, remedy="check the segmentations.")
    if len(rows) < count:
        warn(f"{len(rows)} objects to probe, fewer than {count}", "give more annotated images for a narrower interval.")
    return np.array(rows, dtype=np.int64), cutouts


def _context_probe(
    cutouts: list[Cutout],
    labels: Int64[np.ndarray, "O"],
    sources: Int64[np.ndarray, "O"],
    backgrounds: dict[int, UInt8[np.ndarray, "_ _ ch"]],
    size: int,
    channels: int,
    config: DiagnoseConfig,
    generator: np.random.Generator,
) -> Probe:
    """Every object in the middle of contexts of its own."""
    shown = [cutout.resized(round(config.object_side * size)) for cutout in cutouts]
    beside = [cutout.resized(round(config.neighbour_side * size)) for cutout in cutouts]
    ring = [(y, x) for y in (1 / 6, 1 / 2, 5 / 6) for x in (1 / 6, 1 / 2, 5 / 6) if (y, x) != (1 / 2, 1 / 2)]
    images = np.empty((len(shown), config.contexts, size, size, channels), dtype=np.uint8)
    boxes = np.empty((len(shown), config.contexts, 4), dtype=np.float32)
    crops = config.contexts - config.uniform_contexts
    for number, cutout in enumerate(shown):
        others = np.flatnonzero(labels != labels[number])
        foreign = [index for index in backgrounds if index != sources[number]]
        if not foreign:
            raise InputError("one image gives no other contexts", remedy="give more images.")
        for condition in range(config.contexts):
            if condition < crops:
                canvas = crop_background(backgrounds[foreign[generator.integers(len(foreign))]], size, generator)
            else:
                canvas = np.broadcast_to(generator.uniform(0, 255, channels), (size, size, channels))
                canvas = canvas.astype(np.float32)
            cells = generator.permutation(len(ring))[: config.neighbours]
            for cell, other in zip(cells, generator.choice(others, config.neighbours), strict=True):
                paste(canvas, beside[other], ring[cell])
            boxes[number, condition] = paste(canvas, cutout, (1 / 2, 1 / 2))
            images[number, condition] = np.rint(canvas)
    return Probe(images=images, boxes=boxes, alpha=stack_alpha(shown))


def _position_probe(
    cutouts: list[Cutout], size: int, channels: int, config: DiagnoseConfig, places: list[tuple[float, float]]
) -> Probe:
    """Every object at the same places on grey."""
    shown = [cutout.resized(round(config.object_side * size)) for cutout in cutouts]
    images = np.empty((len(shown), len(places), size, size, channels), dtype=np.uint8)
    boxes = np.empty((len(shown), len(places), 4), dtype=np.float32)
    for number, cutout in enumerate(shown):
        for condition, place in enumerate(places):
            canvas = np.full((size, size, channels), GREY, dtype=np.float32)
            boxes[number, condition] = paste(canvas, cutout, place)
            images[number, condition] = np.rint(canvas)
    return Probe(images=images, boxes=boxes, alpha=stack_alpha(shown))


def _places(config: DiagnoseConfig, size: int) -> list[tuple[float, float]]:
    """Centres (y, x), shares of the image.

    Raises:
        InputError: see ``_step``.
    """
    places = list(_grid(config.grid, config.object_side))
    return places if config.place_step is None else _step(places, size, config.place_step)


def _grid(side: int, object_side: float) -> Iterator[tuple[float, float]]:
    """Centres (y, x), shares of the image, from one border that the object touches to the other, row by row."""
    steps = np.linspace(object_side / 2, 1 - object_side / 2, side)
    yield from ((float(y), float(x)) for y in steps for x in steps)


def _step(places: list[tuple[float, float]], size: int, step: int) -> list[tuple[float, float]]:
    """Centres moved towards the middle until they are multiples of ``step`` px from it.

    Raises:
        InputError: two places become one.
    """
    offsets = (np.array(places) - 0.5) * size / step
    # Where rounding left a bound a little short, it counts as reached. A quarter of a pixel more, the same everywhere,
    # so that objects of odd sides are pasted at whole pixels that are as far apart.
    moved = (np.trunc(offsets + np.sign(offsets) * 1e-6) * step + 0.25) / size + 0.5
    if len(np.unique(moved, axis=0)) < len(places):
        problem = f"places that are multiples of {step} px from the middle of {size} px are too few for --grid"
        raise InputError(problem, remedy="give a smaller --place_step, a smaller --grid or a larger --size.")
    return [(float(y), float(x)) for y, x in moved]
