"""How far a feature moves when only the surroundings, or only the place, of an object change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from d3ssl.diagnose.estimates import Estimate, combine, draw_objects
from d3ssl.errors import InputError
from d3ssl.evaluate.features import check_features

_FLOOR = 1e-6
"""Least mean distance between different objects that is divided by: about float32's rounding. A backbone that cannot
tell objects apart at all gets a very large ratio, not an infinite one."""

Others = Literal["same", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """What the ratio is made of, so that objects can be weighted and drawn again."""

    within: Float64[np.ndarray, "O"]
    """Mean d over pairs of conditions of each object."""
    between: Float64[np.ndarray, "O O"]
    """Mean d between two objects over the pairs of conditions that count; the diagonal is zero."""


def sensitivity(features: Float[Tensor, "O C D"] | Float[np.ndarray, "O C D"], *, others: Others = "same") -> float:
    """Mean d over the same object under two conditions ÷ mean d over two different objects.

    φ is a feature centred with the mean of all of them and L2-normalised, d(u, v) = 1 − u·v (design section 3). 0: the
    condition does not matter; 1: as much as which object it is. As a naive loop::

        same  = [d(φ[o, a], φ[o, b]) for o in objects for a in conditions for b in conditions if a != b]
        other = [d(φ[o, a], φ[p, a]) for o in objects for p in objects if o != p for a in conditions]
        sensitivity = mean(same) / mean(other)

    Computed from sums over objects and conditions, without visiting the pairs.

    Args:
        features: of O objects under C conditions each (contexts, or places).
        others: under which conditions two different objects are compared. ``same``: under the condition of the same
            number. ``any``: under every two conditions. Where the conditions were drawn for every object by itself
            (as contexts are), both estimate the same. Where all objects share them (as they do the places),
            only ``same`` tells objects and conditions apart: with ``any`` the ratio cannot exceed C / (C − 1), however
            little the features know about the object.

    Raises:
        InputError: fewer than two objects or conditions, or another shape.
        D3sslError: features are not finite or all the same.
    """
    if features.ndim != 3:
        problem = f"features of the shape {tuple(features.shape)}, where (objects, conditions, D) is wanted"
        remedy = "give each object under two conditions or more: features.reshape(objects, conditions, -1)."
        raise InputError(problem, remedy=remedy)
    return _ratio(distances(torch.as_tensor(features), others))


def distances(features: Float[Tensor, "O C D"], others: Others) -> Distances:
    """The mean distances within each object and between every two, in closed form.

    With d = ½|u − v|² (which is 1 − u·v for unit vectors, and 0 between two features that equal the mean), and
    s_o = Σ_c φ[o, c] and q_o = mean_c |φ[o, c]|²:

    - within: ½·mean over a ≠ b of |φ[o, a] − φ[o, b]|² = (C·q_o − |s_o|² / C) / (C − 1)
    - between, any: ½(q_o + q_p) − s_o·s_p / C²;  same: ½(q_o + q_p) − Σ_c φ[o, c]·φ[p, c] / C
    """
    count, conditions, _ = features.shape
    if count < 2 or conditions < 2:
        problem = f"{count} object(s) under {conditions} condition(s) give no sensitivity"
        raise InputError(problem, remedy="give at least two of both.")
    check_features(features.flatten(0, 1), "objects")
    phi = features.double()
    phi = phi - phi.mean(dim=(0, 1))
    norm = phi.norm(dim=2, keepdim=True)
    # A feature that equals the mean has no direction; rounding must not give it one.
    phi = torch.where(norm > 1e-6 * norm.max(), phi / norm.clamp(min=torch.finfo(norm.dtype).tiny), 0.0)
    power = phi.square().sum(dim=2).mean(dim=1)
    total = phi.sum(dim=1)
    within = (conditions * power - total.square().sum(dim=1) / conditions) / (conditions - 1)
    flat = phi.flatten(1)
    product = total @ total.T / conditions**2 if others == "any" else flat @ flat.T / conditions
    between = (power[:, None] + power[None, :]) / 2 - product
    return Distances(
        within=within.clamp(min=0).cpu().numpy(), between=between.fill_diagonal_(0).clamp(min=0).cpu().numpy()
    )


def _ratio(parts: Distances) -> float:
    return float(_weighted(parts, np.ones((1, len(parts.within))))[0])


def _weighted(parts: Distances, weights: Float64[np.ndarray, "draws O"]) -> Float64[np.ndarray, "draws"]:
    """The ratio when object o counts ``weights[:, o]`` times; copies of one object are not different objects."""
    total = weights.sum(axis=1)
    same = weights @ parts.within / total
    pairs = total**2 - (weights**2).sum(axis=1)
    other = np.einsum("do,do->d", weights @ parts.between, weights) / pairs
    return same / np.maximum(other, _FLOOR)


def estimate(
    probes: Sequence[Distances], objects: Sequence[Int64[np.ndarray, "_"]], draws: int, generator: np.random.Generator
) -> Estimate:
    """The mean ratio of several probe sets, with an interval: objects are drawn again with replacement, the same
    draw in all sets that an object is in. Features stay centred as they were.

    Args:
        probes: one for each seed.
        objects: for each probe set the identities of its objects.
    """
    values = [_ratio(parts) for parts in probes]
    with np.errstate(invalid="ignore"):  # a draw with a single object in a set has no pairs
        drawn = zip(probes, draw_objects(objects, draws, generator), strict=True)
        samples = [_weighted(parts, times) for parts, times in drawn]
    return combine(values, samples)
