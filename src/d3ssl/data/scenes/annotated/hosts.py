"""Which photographs and neighbours an object is pasted beside: those that go with its class, and those that do not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from scipy.ndimage import binary_dilation

from d3ssl import console
from d3ssl.data.images import image_size, read_canvas
from d3ssl.data.place import Place
from d3ssl.data.scenes.annotated.backgrounds import no_background, too_small
from d3ssl.data.scenes.annotated.instances import Instance
from d3ssl.data.scenes.annotated.paste import paint_over, shrunk_mask
from d3ssl.data.scenes.annotated.sides import Side
from d3ssl.data.scenes.config import OutOfContextConfig
from d3ssl.errors import InputError

MARGIN = 0.02
"""Objects are painted over with a margin of this share of the canvas: masks are seldom exact."""


class Host(NamedTuple):
    """A photograph to paste an object into."""

    image: UInt8[np.ndarray, "S S 3"]
    number: int
    """Its place in the side's image set; photographs of a folder come after these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The photographs that objects are pasted into, stretched to square canvases as every evaluation stretches them."""

    side: Side
    size: int
    shows: Bool[np.ndarray, "images classes"]
    """Which classes each photograph shows, crowds and objects without masks included."""
    order: tuple[int, ...]
    """The photographs, those that objects cover least first: these lose least when objects are painted over."""
    folder: tuple[Place, ...]
    """Backgrounds that are given; empty: the side's own photographs."""
    strangers: tuple[tuple[int, ...], ...]
    """For each class the others that share the fewest photographs with it, of training and validation."""

    def own(self, image: int) -> UInt8[np.ndarray, "S S 3"]:
        """A photograph as it is."""
        return read_canvas(self.side.images.paths[image], self.size)[0]

    def mask(self, one: Instance) -> Bool[np.ndarray, "S S"]:
        """An object's mask on the canvas."""
        return shrunk_mask(self.side.annotations.masks(one.image, [one.place])[0], self.size, 0.5)

    def congruent(self, label: int, image: int, rng: np.random.Generator) -> Host:
        """Another photograph than ``image`` that shows a class, its objects painted over."""
        return self._painted([other for other in self.order if self.shows[other, label] and other != image], rng)

    def elsewhere(self, label: int, rng: np.random.Generator) -> Host:
        """A photograph of the folder; without a folder, one that does not show a class, its objects painted over."""
        if self.folder:
            number = int(rng.integers(len(self.folder)))
            canvas, _ = read_canvas(self.folder[number], self.size)
            return Host(canvas, len(self.side.images) + number)
        return self._painted([other for other in self.order if not self.shows[other, label]], rng)

    def _painted(self, candidates: list[int], rng: np.random.Generator) -> Host:
        """One of the half that is covered least."""
        number = candidates[int(rng.integers(math.ceil(len(candidates) / 2)))]
        return Host(paint_over(self.own(number), self._covered(number)), number)

    def _covered(self, index: int) -> Bool[np.ndarray, "S S"]:
        """Where the annotated objects of a photograph are, and a little around them."""
        own = self.side.annotations
        covered = np.zeros(own.sizes[index], dtype=bool)
        for place, row in enumerate(own.objects_of[index].tolist()):
            if own.segmentations.has(row):
                covered |= own.masks(index, [place])[0]
            else:
                left, top, right, bottom = own.boxes[row].round().astype(int)
                covered[top:bottom, left:right] = True
        margin = math.ceil(MARGIN * self.size)
        return np.asarray(binary_dilation(shrunk_mask(covered, self.size, 0.0), iterations=margin))


def find_hosts(sides: tuple[Side, Side], classes: tuple[str, ...], size: int, folder: tuple[Place, ...]) -> Hosts:
    """Look at what the photographs show; those of validation may become hosts.

    Raises:
        InputError: a class is shown by one validation photograph only or, without a folder, by all.
    """
    trained, shown = (side.shows(classes) for side in sides)
    val = sides[1]
    for name, count in zip(classes, shown.sum(axis=0).tolist(), strict=True):
        if count < 2:
            problem = (
                f"only one photograph of val that is no smaller than a scene shows {name}: there is no other to use"
            )
            remedy = "annotate more, lower --size, or leave the class out by --classes."
            raise InputError(problem, path=val.annotations.path, remedy=remedy)
        if count == len(shown) and not folder:
            raise no_background(val, name)
    order = np.argsort(_cover(val), kind="stable").tolist()
    shared = sum(own.T.astype(np.int64) @ own.astype(np.int64) for own in (trained, shown))
    return Hosts(
        side=val, size=size, shows=shown, order=tuple(order), folder=folder, strangers=_strangers(np.asarray(shared))
    )


def usable_photographs(side: Side, config: OutOfContextConfig) -> Side:
    """The side without the photographs that are smaller than a scene, cannot be opened, or are of another size than
    annotated; a warning tells of the latter two.

    Raises:
        InputError: fewer than two are left.
    """
    kept, bad = [], []
    sizes = side.annotations.sizes.tolist()
    with console.progress(f"looking at photographs of {side.name}", len(sizes)) as ticker:
        for index, size in enumerate(sizes):
            ticker.advance()
            if min(size) < config.size:
                continue
            try:
                side.check_size(index, image_size(side.images.paths[index]))
                kept.append(index)
            except InputError as error:
                bad.append(str(error))
    if bad:
        problem = f"{len(bad)} photographs of {side.name} are left out; the first: {bad[0]}"
        console.warn(problem, "fix or remove them.")
    if len(kept) < 2:
        raise too_small(len(kept), len(sizes), config, side.annotations.path, f"photographs of {side.name}")
    photographs = tuple(side.photographs[index] for index in kept)
    return replace(side, images=side.images.subset(kept), photographs=photographs)


def _cover(side: Side) -> Float[np.ndarray, "images"]:
    """The areas of the objects' boxes together, shares of their photograph; overlaps count twice."""
    own = side.annotations
    areas = np.prod(own.boxes[:, 2:] - own.boxes[:, :2], axis=1)
    return np.array([areas[rows].sum() for rows in own.objects_of]) / np.prod(own.sizes, axis=1)


def _strangers(shared: Int64[np.ndarray, "classes classes"]) -> tuple[tuple[int, ...], ...]:
    """For each class the others that share the fewest photographs with it."""
    found = []
    for label, counts in enumerate(shared):
        others = np.delete(np.arange(len(counts)), label)
        found.append(tuple(others[counts[others] == counts[others].min()].tolist()))
    return tuple(found)
