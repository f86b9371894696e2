"""Figures with their intervals: objects are drawn again with replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from d3ssl.evaluate.intervals import interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    """The figure of each probe set by itself."""

    def as_dict(self, name: str) -> dict[str, float]:
        """``name``, ``name_low``, ``name_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def draw_objects(
    objects: Sequence[Int64[np.ndarray, "_"]], draws: int, generator: np.random.Generator
) -> list[Float64[np.ndarray, "draws _"]]:
    """How often each object of each probe set is in each bootstrap sample: the same in all sets that it is in.

    Args:
        objects: for each probe set the identities of its objects.
    """
    identities, member = np.unique(np.concatenate(objects), return_inverse=True)
    rows = np.split(member, np.cumsum([len(own) for own in objects])[:-1])
    share = np.full(len(identities), 1 / len(identities))
    times = generator.multinomial(len(identities), share, size=draws).astype(np.float64)
    return [times[:, own] for own in rows]


def combine(values: Sequence[float], samples: Sequence[Float64[np.ndarray, "draws"]]) -> Estimate:
    """The mean over the probe sets, with the interval of the samples' means; those that are not finite (a draw
    without objects of a set) do not count."""
    means = np.mean(samples, axis=0)
    low, high = interval(means[np.isfinite(means)])
    return Estimate(value=float(np.mean(values)), low=low, high=high, by_seed=tuple(float(value) for value in values))


def estimate_ratio(
    parts: Sequence[tuple[Float64[np.ndarray, "_"], Float64[np.ndarray, "_"]]],
    objects: Sequence[Int64[np.ndarray, "_"]],
    draws: int,
    generator: np.random.Generator,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Estimate:
    """``offset + scale · Σ numerator / Σ denominator`` over objects, mean over probe sets, with its interval.

    Args:
        parts: for each probe set the numerators and the denominators of its objects.
        objects: for each probe set the identities of its objects.
    """
    values = [offset + scale * float(top.sum() / bottom.sum()) for top, bottom in parts]
    samples = []
    for (top, bottom), times in zip(parts, draw_objects(objects, draws, generator), strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):  # a draw without objects of a set
            samples.append(offset + scale * (times @ top) / (times @ bottom))
    return combine(values, samples)
