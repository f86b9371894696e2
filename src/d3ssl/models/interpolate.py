"""Weights between two states of one network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def interpolate(start: Mapping[str, Tensor], end: Mapping[str, Tensor], strength: float) -> dict[str, Tensor]:
    """start + strength · (end − start) for every floating tensor, computed in float64; all others are the start's.

    Strength 0 gives the start's bits and 1 the end's. Source: WiSE-FT, arXiv 2109.01903, section 3.

    Raises:
        ValueError: other keys.
    """
    if start.keys() != end.keys():
        raise ValueError(f"the states differ in {sorted(start.keys() ^ end.keys())[:3]}")
    if strength == 0:
        return dict(start)

    def between(key: str) -> Tensor:
        one, other = start[key], end[key]
        if not one.is_floating_point():
            return one
        return other if strength == 1 else one.double().lerp(other.double(), strength).to(one.dtype)

    return {key: between(key) for key in start}
