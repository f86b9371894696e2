"""What linear read-outs find in features of regions: the neighbour's class, and the region's place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from threadpoolctl import threadpool_limits
from torch import Tensor

from d3ssl.diagnose.estimates import Estimate, estimate_ratio
from d3ssl.errors import InputError
from d3ssl.evaluate.linear import HELD_OUT, linear_probe
from d3ssl.seeds import numpy_generator

FOLDS = 3
"""Parts of the objects, each of which is held out once."""
LEAST_OBJECTS = 10
"""Objects (of all probe sets together) below which nothing is read out."""
STRENGTHS = tuple(10.0**power for power in range(3, -7, -1))
"""Ridge strengths to choose from: mean squared error + strength·|weights|², features standardised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """The features of one probe set, and what is to be read from them."""

    x: Float[Tensor, "O C D"]
    """Of O objects under C conditions, as pooled."""
    identities: Int64[np.ndarray, "O"]
    fold: Int64[np.ndarray, "O"]
    """In which part an object is held out; the same in every probe set."""


def object_folds(identities: Sequence[Int64[np.ndarray, "_"]], seed: int) -> list[Int64[np.ndarray, "_"]]:
    """A part for every object of every probe set; whatever their order, and equal for an object of several sets."""
    known, member = np.unique(np.concatenate(identities), return_inverse=True)
    fold = numpy_generator(seed, "held-out objects").permutation(np.arange(len(known)) % FOLDS)
    return np.split(fold[member].astype(np.int64), np.cumsum([len(own) for own in identities])[:-1])


def enough(sets: Sequence[Readout]) -> bool:
    """Whether there are parts to hold out, and objects enough to fit a read-out to what remains."""
    folds = len(np.unique(np.concatenate([own.fold for own in sets])))
    rests = [np.concatenate([own.identities[own.fold != f] for own in sets]) for f in range(FOLDS)]
    return folds > 1 and all(len(np.unique(rest)) >= 5 for rest in rests)


def read_class(
    sets: Sequence[Readout], labels: Sequence[Int64[np.ndarray, "O C"]], seed: int
) -> list[Bool[np.ndarray, "O C"]]:
    """Whether a linear probe (``d3ssl.evaluate.linear``), fitted to the objects of all other parts, names the label of
    each image rightly.

    Raises:
        InputError: fewer than five objects, or one label only, in a part's training objects.
    """
    right = [np.zeros(own.shape, dtype=bool) for own in labels]
    for held in _held_out(sets):
        train = [~own for own in held]
        x, y, image = _rows(sets, labels, train)
        probe = linear_probe(x, torch.from_numpy(y), torch.from_numpy(image), seed=seed)
        for place, (own, rows) in enumerate(zip(sets, held, strict=True)):
            if rows.any():
                predicted = probe.predict(own.x[torch.from_numpy(rows)].flatten(0, 1)).numpy()
                right[place][rows] = predicted.reshape(-1, own.x.shape[1]) == labels[place][rows]
    return right


def read_place(
    sets: Sequence[Readout], places: Sequence[Float64[np.ndarray, "O C 2"]], seed: int
) -> list[tuple[Float64[np.ndarray, "O"], Float64[np.ndarray, "O"]]]:
    """Ridge regression from features to places, fitted to the objects of all other parts.

    Returns:
        For each set and object the sum of squared errors, and the sum of squared distances from the mean place of the
        objects that were fitted: R² = 1 − Σ errors / Σ distances.
    """
    found = [(np.zeros(len(own.identities)), np.zeros(len(own.identities))) for own in sets]
    for held in _held_out(sets):
        train = [~own for own in held]
        x, y, image = _rows(sets, places, train)
        ridge = fit_ridge(x.numpy().astype(np.float64), y, image, seed)
        for place, (own, rows) in enumerate(zip(sets, held, strict=True)):
            wanted = places[place][rows]
            predicted = ridge.predict(own.x[torch.from_numpy(rows)].flatten(0, 1).numpy().astype(np.float64))
            found[place][0][rows] = np.square(predicted.reshape(wanted.shape) - wanted).sum(axis=(1, 2))
            found[place][1][rows] = np.square(wanted - y.mean(axis=0)).sum(axis=(1, 2))
    return found


def _held_out(sets: Sequence[Readout]) -> Iterator[list[Bool[np.ndarray, "_"]]]:
    for fold in np.unique(np.concatenate([own.fold for own in sets])).tolist():
        yield [own.fold == fold for own in sets]


def _rows(
    sets: Sequence[Readout], targets: Sequence[np.ndarray], chosen: Sequence[Bool[np.ndarray, "_"]]
) -> tuple[Tensor, np.ndarray, Int64[np.ndarray, "N"]]:
    """Features, targets and object of every image of the chosen objects, sorted by object, so that their order does
    not matter."""
    x = torch.cat([own.x[torch.from_numpy(rows)].flatten(0, 1) for own, rows in zip(sets, chosen, strict=True)])
    parts = [own[rows] for own, rows in zip(targets, chosen, strict=True)]
    y = np.concatenate([own.reshape(-1, *own.shape[2:]) for own in parts])
    pairs = zip(sets, chosen, strict=True)
    image = np.concatenate([np.repeat(own.identities[rows], own.x.shape[1]) for own, rows in pairs])
    order = np.argsort(image, kind="stable")
    return x[torch.from_numpy(order)], y[order], image[order]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ridge:
    """A linear regression on standardised features, limited to the range of what it was fitted to: a unit that is
    nearly silent in the objects fitted and not in one held out would else throw the prediction out of the image."""

    mean: Float64[np.ndarray, "D"]
    std: Float64[np.ndarray, "D"]
    weights: Float64[np.ndarray, "D T"]
    offset: Float64[np.ndarray, "T"]
    least: Float64[np.ndarray, "T"]
    most: Float64[np.ndarray, "T"]
    strength: float
    """The chosen strength."""

    def predict(self, x: Float64[np.ndarray, "M D"]) -> Float64[np.ndarray, "M T"]:
        return ((x - self.mean) / self.std @ self.weights + self.offset).clip(self.least, self.most)


def fit_ridge(
    x: Float64[np.ndarray, "N D"], y: Float64[np.ndarray, "N T"], image: Int64[np.ndarray, "N"], seed: int
) -> Ridge:
    """Ridge regression; its strength is the one that does best on a fifth of the objects (of equals the strongest),
    and the final fit is on all of them.

    Args:
        image: the object of each row: no object is on both sides.
    """
    mean, std = x.mean(axis=0), x.std(axis=0)
    std[std <= 1e-6 * np.abs(x).max(axis=0)] = np.inf  # constant up to float32's rounding
    values, offset = (x - mean) / std, y.mean(axis=0)
    pictures = np.unique(image)
    held = numpy_generator(seed, "ridge").permutation(pictures)[: max(1, round(HELD_OUT * len(pictures)))]
    outside = np.isin(image, held)
    with threadpool_limits(1 if values.size <= 5_000_000 else None):
        path = _solve(values[~outside], y[~outside] - offset, STRENGTHS)
        guesses = [(values[outside] @ weights + offset).clip(y.min(axis=0), y.max(axis=0)) for weights in path]
        errors = [float(np.square(guess - y[outside]).mean()) for guess in guesses]
        strength = STRENGTHS[int(np.argmin(errors))]
        weights = _solve(values, y - offset, (strength,))[0]
    ends = {"least": y.min(axis=0), "most": y.max(axis=0)}
    return Ridge(mean=mean, std=std, weights=weights, offset=offset, strength=strength, **ends)


def _solve(
    x: Float64[np.ndarray, "N D"], y: Float64[np.ndarray, "N T"], strengths: Sequence[float]
) -> list[Float64[np.ndarray, "D T"]]:
    """Weights for every strength from one decomposition of the smaller Gram matrix."""
    count, size = x.shape
    if size <= count:
        values, vectors = np.linalg.eigh(x.T @ x / count)
        target = vectors.T @ (x.T @ y / count)
        return [vectors @ (target / (values.clip(0)[:, None] + strength)) for strength in strengths]
    values, vectors = np.linalg.eigh(x @ x.T / count)
    target = vectors.T @ y / count
    return [x.T @ (vectors @ (target / (values.clip(0)[:, None] + strength))) for strength in strengths]


def neighbour_leakage(
    right: Sequence[Bool[np.ndarray, "O C"]],
    labels: Sequence[Int64[np.ndarray, "O C"]],
    objects: Sequence[Int64[np.ndarray, "_"]],
    draws: int,
    generator: np.random.Generator,
) -> Estimate:
    """(accuracy − chance) / (1 − chance), chance being the most frequent label's share.

    Raises:
        InputError: there is one label only.
    """
    chance = most_frequent(labels)
    if chance >= 1:
        raise InputError("neighbours of one class give no leakage", remedy="give neighbours of at least 2 classes.")
    parts = [(own.sum(axis=1).astype(np.float64), np.full(len(own), float(own.shape[1]))) for own in right]
    return estimate_ratio(parts, objects, draws, generator, scale=1 / (1 - chance), offset=-chance / (1 - chance))


def most_frequent(labels: Sequence[Int64[np.ndarray, "O C"]]) -> float:
    """Accuracy of always naming the most frequent label."""
    _, counts = np.unique(np.concatenate([own.reshape(-1) for own in labels]), return_counts=True)
    return float(counts.max() / counts.sum())
