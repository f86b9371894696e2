"""How much an object's class goes with its neighbours' classes and its position: what a network could use instead.

Both are mutual information, adjusted for chance (Vinh, Epps and Bailey, JMLR 2010): 0 where classes are dealt to the
objects at random, 1 where the neighbour (or the position) determines the class. Chance is not taken from a formula but
from ``draws`` random assignments of the same classes to the same objects, which have the same number of objects in each
image, the same frequent classes, and the same preference for the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import csr_array

from d3ssl.seeds import numpy_generator

COARSE = 3
"""Rows and columns of the grid of positions (3×3, as in the position measurements of ``d3ssl diagnose``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """A mutual information against chance."""

    value: float | None
    """(information − chance) / (entropy − chance): 0 no bias, 1 all; None: undefined (one class, no objects)."""
    deviations: float | None
    """(information − chance) in standard deviations of the random assignments."""
    information: float
    """Nats."""
    chance: float
    """Mean over the random assignments, nats."""
    entropy: float
    """The most the information could be, nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooccurrence:
    """Which classes stand beside which."""

    bias: Bias
    share: Float64[np.ndarray, "classes classes"]
    """Share of (object, another object of its image) that are of these classes; every object counts once."""
    expected: Float64[np.ndarray, "classes classes"]
    """The same by chance."""
    spread: Float64[np.ndarray, "classes classes"]
    """Standard deviation of the random assignments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Where the classes stand, in a grid of 3×3."""

    bias: Bias
    counts: Int64[np.ndarray, "classes 9"]
    """Objects by class and cell, row by row."""
    entropy: Float64[np.ndarray, "classes"]
    """Of a class's cells ÷ log 9: 1 anywhere, 0 in one cell; NaN without objects."""
    expected: Float64[np.ndarray, "classes"]
    """The same of as many objects of any class: below 1 as objects prefer the middle, and where there are few."""
    spread: Float64[np.ndarray, "classes"]
    """Standard deviation of the random assignments."""

    @property
    def preference(self) -> Float64[np.ndarray, "classes"]:
        """1 − entropy / expected: 0 a class stands where all objects do, 1 in one cell."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.expected > 0, 1 - self.entropy / self.expected, np.nan)


def cooccurrence_bias(
    image: Int64[np.ndarray, "n"], label: Int64[np.ndarray, "n"], num_classes: int, draws: int = 20
) -> Cooccurrence:
    """How much the class of one object of an image says about the class of another.

    Args:
        image: number of the image of every object.
        label: of every object, 0..num_classes − 1.
        num_classes: number of classes.
        draws: random assignments.
    """
    _, image, size = np.unique(image, return_inverse=True, return_counts=True)
    paired = size[image] > 1
    # In an order that depends neither on that of the images nor on that of the objects, so the chance does not either.
    label, size = label[paired], np.sort(size[size > 1])
    observed = _pair_shares(image[paired], label, num_classes)
    owner = np.repeat(np.arange(len(size)), size)
    rng, ordered = numpy_generator(0, "company"), np.sort(label)
    drawn = _Moments(num_classes, num_classes)
    chance = []
    for _ in range(draws if len(label) else 0):
        shares = _pair_shares(owner, rng.permutation(ordered), num_classes)
        drawn.add(shares)
        chance.append(mutual_information(shares))
    bias = _bias(mutual_information(observed), chance, entropy(observed.sum(axis=1)))
    return Cooccurrence(bias=bias, share=observed, expected=drawn.mean, spread=drawn.deviation)


def position_bias(
    label: Int64[np.ndarray, "n"],
    x: Float64[np.ndarray, "n"],
    y: Float64[np.ndarray, "n"],
    num_classes: int,
    draws: int = 20,
) -> Positions:
    """How much the class of an object says about its position.

    Args:
        label: of every object, 0..num_classes − 1.
        x: centre, share of the image's width.
        y: centre, share of the image's height.
        num_classes: number of classes.
        draws: random assignments.
    """
    cell = grid_cell(x, y, COARSE)
    counts = _table(label, cell, num_classes)
    rng, ordered = numpy_generator(0, "places"), np.sort(cell)
    kept = np.repeat(np.arange(num_classes), counts.sum(axis=1))
    drawn = _Moments(num_classes)
    chance = []
    for _ in range(draws if len(label) else 0):
        table = _table(kept, rng.permutation(ordered), num_classes)
        drawn.add(_row_entropy(table))
        chance.append(mutual_information(table / len(label)))
    total = max(len(label), 1)
    bias = _bias(mutual_information(counts / total), chance, entropy(counts.sum(axis=0) / total))
    return Positions(
        bias=bias, counts=counts, entropy=_row_entropy(counts), expected=drawn.mean, spread=drawn.deviation
    )


def grid_cell(x: Float64[np.ndarray, "n"], y: Float64[np.ndarray, "n"], cells: int) -> Int64[np.ndarray, "n"]:
    """Number of the cell of a grid over the image, row by row."""
    column, row = (np.clip((value * cells).astype(np.int64), 0, cells - 1) for value in (x, y))
    return row * cells + column


def entropy(shares: Float64[np.ndarray, "n"]) -> float:
    """−Σ p log p, nats."""
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def mutual_information(shares: Float64[np.ndarray, "a b"]) -> float:
    """Σ p(a, b) log (p(a, b) / p(a) p(b)), nats."""
    independent = np.outer(shares.sum(axis=1), shares.sum(axis=0))
    there = shares > 0
    return float((shares[there] * np.log(shares[there] / independent[there])).sum())


def _pair_shares(
    image: Int64[np.ndarray, "n"], label: Int64[np.ndarray, "n"], num_classes: int
) -> Float64[np.ndarray, "classes classes"]:
    """Mean over the objects, and for each over the others of its image: an image of n objects of the classes' counts
    c adds (c cᵀ − diag c) / (n − 1)."""
    if not len(label):
        return np.zeros((num_classes, num_classes))
    images = int(image.max()) + 1
    counts = csr_array((np.ones(len(label)), (image, label)), shape=(images, num_classes))
    weight = 1 / np.maximum(np.bincount(image, minlength=images) - 1, 1)
    total = (counts.T @ (counts * weight[:, None])).toarray()
    total[np.diag_indices(num_classes)] -= np.bincount(label, weights=weight[image], minlength=num_classes)
    return np.maximum(total, 0) / len(label)


def _table(label: np.ndarray, cell: np.ndarray, num_classes: int) -> Int64[np.ndarray, "classes 9"]:
    cells = COARSE**2
    return np.bincount(label * cells + cell, minlength=num_classes * cells).reshape(num_classes, cells).astype(np.int64)


def _row_entropy(counts: Int64[np.ndarray, "classes 9"]) -> Float64[np.ndarray, "classes"]:
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = counts / total
        parts = np.where(counts > 0, -shares * np.log(shares), 0).sum(axis=1)
    return np.where(total[:, 0] > 0, parts / np.log(COARSE**2), np.nan)


def _bias(information: float, chance: list[float], most: float) -> Bias:
    mean = float(np.mean(chance)) if chance else 0.0
    deviation = float(np.std(chance, ddof=1)) if len(chance) > 1 else 0.0
    room = most - mean
    return Bias(
        value=(information - mean) / room if room > 1e-9 else None,
        deviations=(information - mean) / deviation if deviation > 1e-12 else None,
        information=information,
        chance=mean,
        entropy=most,
    )


class _Moments:
    """Mean and standard deviation of arrays, without keeping them."""

    def __init__(self, *shape: int) -> None:
        self.count, self.sum, self.squares = 0, np.zeros(shape), np.zeros(shape)

    def add(self, values: np.ndarray) -> None:
        self.count += 1
        self.sum += values
        self.squares += values**2

    @property
    def mean(self) -> np.ndarray:
        return self.sum / max(self.count, 1)

    @property
    def deviation(self) -> np.ndarray:
        spare = self.squares - self.sum**2 / max(self.count, 1)
        return np.sqrt(np.maximum(spare, 0) / max(self.count - 1, 1))
