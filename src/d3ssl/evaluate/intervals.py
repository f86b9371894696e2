"""Intervals: how far a figure would move if other images had been drawn."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from d3ssl.errors import InputError


def bootstrap_accuracy(
    correct: Bool[np.ndarray, "M"], image: Int64[np.ndarray, "M"], draws: int, generator: np.random.Generator
) -> Float64[np.ndarray, "draws"]:
    """Accuracies over objects when the *images* are drawn anew with replacement (cluster bootstrap).

    Objects of one image are alike in light, background and company; drawing objects one by one would pretend that
    they are independent and make the interval too narrow.

    Args:
        correct: whether each object is named rightly.
        image: number of the image that the object is in.

    Raises:
        InputError: fewer than two images.
    """
    pictures, member = np.unique(image, return_inverse=True)
    if len(pictures) < 2:
        problem = f"objects of {len(pictures)} image(s) give no interval"
        raise InputError(problem, remedy="evaluate on more images.")
    right = np.bincount(member, weights=correct, minlength=len(pictures))
    count = np.bincount(member, minlength=len(pictures)).astype(np.float64)
    share = np.full(len(pictures), 1 / len(pictures))
    accuracies = np.empty(draws)
    for start in range(0, draws, 256):  # chunks: draws × images may be large
        part = slice(start, min(start + 256, draws))
        times = generator.multinomial(len(pictures), share, size=part.stop - part.start).astype(np.float64)
        accuracies[part] = (times @ right) / (times @ count)
    return accuracies


def interval(values: Float64[np.ndarray, "draws"], level: float = 0.95) -> tuple[float, float]:
    """The central ``level`` of bootstrap values (percentile interval)."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
