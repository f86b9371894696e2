"""Intervals: how far a figure would move if other images had been drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import stdev

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import stats

from d3ssl.errors import InputError

Draws = dict[str, Float64[np.ndarray, "draws"]]
"""Measure → its value in every draw of the bootstrap. Two backbones that are tested on the same images with one seed
get the same draws of images: the differences of their draws are those of pairs."""

DRAWS = "draws.npz"
"""Where a cell keeps them."""


def save_draws(folder: Path, draws: Draws) -> None:
    """Keep them in a cell's folder."""
    np.savez(folder / DRAWS, allow_pickle=False, **draws)  # type: ignore[arg-type]


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean, by Student's t, from two or more independent values (a seed each)."""
    return float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def bootstrap_accuracy(
    correct: Bool[np.ndarray, "M"] | Float64[np.ndarray, "M"],
    image: Int64[np.ndarray, "M"],
    draws: int,
    generator: np.random.Generator,
) -> Float64[np.ndarray, "draws"]:
    """Accuracies over objects when the *images* are resampled with replacement (cluster bootstrap).

    Objects of one image are alike in light, background and neighbours; drawing objects one by one would pretend that
    they are independent and make the interval too narrow.

    Args:
        correct: whether each object is named rightly, or in which share of several draws.
        image: number of the image that the object is in.

    Raises:
        InputError: fewer than two images.
    """
    times, member = _draw_images(image, draws, generator)
    right = np.bincount(member, weights=correct, minlength=times.shape[1])
    count = np.bincount(member, minlength=times.shape[1]).astype(np.float64)
    return (times @ right) / (times @ count)


def class_accuracy(correct: Float64[np.ndarray, "M"], truth: Int64[np.ndarray, "M"]) -> float:
    """Accuracy in each class that occurs, averaged over the classes."""
    _, label = np.unique(truth, return_inverse=True)
    return float(np.mean(np.bincount(label, weights=correct) / np.bincount(label)))


def bootstrap_class_accuracy(
    correct: Float64[np.ndarray, "M"],
    truth: Int64[np.ndarray, "M"],
    image: Int64[np.ndarray, "M"],
    draws: int,
    generator: np.random.Generator,
) -> Float64[np.ndarray, "draws"]:
    """``class_accuracy`` when the images are resampled (see ``bootstrap_accuracy``); a draw averages over the classes
    that are in it."""
    times, member = _draw_images(image, draws, generator)
    classes, label = np.unique(truth, return_inverse=True)
    right = np.zeros((times.shape[1], len(classes)))
    count = np.zeros_like(right)
    np.add.at(right, (member, label), correct)
    np.add.at(count, (member, label), 1.0)
    right, count = times @ right, times @ count
    return (right / count.clip(min=1)).sum(axis=1) / (count > 0).sum(axis=1)


def _draw_images(
    image: Int64[np.ndarray, "M"], draws: int, generator: np.random.Generator
) -> tuple[Float64[np.ndarray, "draws pictures"], Int64[np.ndarray, "M"]]:
    """How often each draw takes each image, and the number of every object's image among them."""
    pictures, member = np.unique(image, return_inverse=True)
    if len(pictures) < 2:
        problem = f"objects of {len(pictures)} image(s) give no interval"
        raise InputError(problem, remedy="evaluate on more images.")
    share = np.full(len(pictures), 1 / len(pictures))
    return generator.multinomial(len(pictures), share, size=draws).astype(np.float64), member


def interval(values: Float64[np.ndarray, "draws"], level: float = 0.95) -> tuple[float, float]:
    """The central ``level`` of bootstrap values (percentile interval)."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
