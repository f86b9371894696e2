"""From features to figures: all measurements of one way of reading regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from d3ssl.diagnose.estimates import Estimate, estimate_ratio
from d3ssl.diagnose.readouts import (
    LEAST_OBJECTS,
    Readout,
    enough,
    neighbour_leakage,
    object_folds,
    read_class,
    read_place,
)
from d3ssl.diagnose.sensitivity import distances, estimate
from d3ssl.diagnose.sets import DISTANCES, ProbeSet
from d3ssl.seeds import numpy_generator

MEASURES = (
    "context_sensitivity",
    "position_sensitivity",
    "neighbour_leakage",
    "receptive_leakage",
    "position_r2",
    "location_accuracy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All measurements of one way of reading; None: not measured."""

    context_sensitivity: Estimate | None = None
    position_sensitivity: Estimate | None = None
    neighbour_leakage: Estimate | None = None
    receptive_leakage: Estimate | None = None
    position_r2: Estimate | None = None
    location_accuracy: Estimate | None = None
    by_distance: dict[str, Estimate] = field(default_factory=dict)
    """Neighbour leakage by the neighbour's distance (``DISTANCES``)."""

    def as_dict(self) -> dict[str, Any]:
        """Of every measurement ``name``, ``name_low``, ``name_high``; None where it was not measured."""
        found: dict[str, Any] = {}
        for name in MEASURES:
            own: Estimate | None = getattr(self, name)
            found |= own.as_dict(name) if own else {name: None, f"{name}_low": None, f"{name}_high": None}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to know about a probe set once its images are gone."""

    identities: Int64[np.ndarray, "O"]
    centres: Float64[np.ndarray, "O P 2"]
    """(x, y) of the objects' boxes at their places, share of the image."""
    cells: Int64[np.ndarray, "O P"]
    """In which of 3 × 3 cells that is."""
    neighbour_label: Int64[np.ndarray, "C"] | None
    neighbour_distance: Int64[np.ndarray, "C"] | None
    neighbour_fold: Int64[np.ndarray, "O"] | None
    digest: str


def know(probes: ProbeSet) -> Facts:
    """The facts of a probe set."""
    boxes, size = probes.position.boxes.astype(np.float64), probes.position.images.shape[2]
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2 / size
    own = probes.neighbour
    return Facts(
        identities=probes.identities,
        centres=centres,
        cells=_cells(centres),
        neighbour_label=None if own is None else own.label,
        neighbour_distance=None if own is None else own.distance,
        neighbour_fold=None if own is None else own.fold,
        digest=probes.digest,
    )


def _cells(centres: Float64[np.ndarray, "O P 2"]) -> Int64[np.ndarray, "O P"]:
    """Row by row; thirds of the range over which centres vary, the same for all objects."""
    middle = centres.mean(axis=0)
    low, high = middle.min(axis=0), middle.max(axis=0)
    thirds = np.floor((middle - low) / np.where(high > low, high - low, 1) * 3).clip(0, 2).astype(np.int64)
    return np.broadcast_to(thirds[:, 1] * 3 + thirds[:, 0], centres.shape[:2]).copy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The features of one probe set by one way of reading; what is None was not read."""

    context: Tensor | None = None
    """(O, C, D)"""
    position: Tensor | None = None
    """(O, P, D)"""
    neighbour: Tensor | None = None
    """(O, C, D)"""
    receptive: Float64[np.ndarray, "n"] | None = None
    """Share outside, of the first n objects."""


def measure(
    features: Sequence[Features], facts: Sequence[Facts], draws: int, seed: int, *, read_out: bool = True
) -> Measured:
    """Everything that the features allow, each the mean over the probe sets with its interval over objects.

    Args:
        features: for each probe set.
        draws: bootstrap samples.
        seed: decides them, and which objects are held out.
        read_out: position R², location accuracy and neighbour leakage too; they take ``LEAST_OBJECTS``.

    Raises:
        D3sslError: features are not finite, or the same for all objects.
    """
    identities = [own.identities for own in facts]
    found: dict[str, Any] = {}
    contexts = [own.context for own in features if own.context is not None]
    positions = [own.position for own in features if own.position is not None]
    if contexts:
        parts = [distances(own, "any") for own in contexts]
        generator = numpy_generator(seed, "bootstrap", "context")
        found["context_sensitivity"] = estimate(parts, identities, draws, generator)
    if positions:
        parts = [distances(own, "same") for own in positions]
        generator = numpy_generator(seed, "bootstrap", "position")
        found["position_sensitivity"] = estimate(parts, identities, draws, generator)
    shares = [own.receptive for own in features if own.receptive is not None]
    if shares:
        ratios = [(own, np.ones(len(own))) for own in shares]
        some = [own[: len(share)] for own, share in zip(identities, shares, strict=True)]
        found["receptive_leakage"] = estimate_ratio(
            ratios, some, draws, numpy_generator(seed, "bootstrap", "receptive")
        )
    if read_out and len(np.unique(np.concatenate(identities))) >= LEAST_OBJECTS:
        if positions:
            found |= _measure_place(positions, facts, draws, seed)
        neighbours = [own.neighbour for own in features if own.neighbour is not None]
        if len(neighbours) == len(facts) and all(own.neighbour_fold is not None for own in facts):
            found |= _measure_neighbours(neighbours, facts, draws, seed)
    return Measured(**found)


def _measure_place(positions: Sequence[Tensor], facts: Sequence[Facts], draws: int, seed: int) -> dict[str, Any]:
    identities = [own.identities for own in facts]
    folds = object_folds(identities, seed)
    sets = [Readout(x=x, identities=i, fold=f) for x, i, f in zip(positions, identities, folds, strict=True)]
    errors = read_place(sets, [own.centres for own in facts], seed)
    right = read_class(sets, [own.cells for own in facts], seed)
    rates = [(own.sum(axis=1).astype(np.float64), np.full(len(own), float(own.shape[1]))) for own in right]
    regression, location = (numpy_generator(seed, "bootstrap", name) for name in ("position r2", "location"))
    return {
        "position_r2": estimate_ratio(errors, identities, draws, regression, scale=-1.0, offset=1.0),
        "location_accuracy": estimate_ratio(rates, identities, draws, location),
    }


def _measure_neighbours(neighbours: Sequence[Tensor], facts: Sequence[Facts], draws: int, seed: int) -> dict[str, Any]:
    """One probe, fitted to scenes of all distances; its accuracy on all of them, and on those of each distance."""
    identities = [own.identities for own in facts]
    sets, labels = [], []
    for x, own in zip(neighbours, facts, strict=True):
        assert own.neighbour_label is not None and own.neighbour_fold is not None
        sets.append(Readout(x=x, identities=own.identities, fold=own.neighbour_fold))
        labels.append(np.tile(own.neighbour_label, (len(own.identities), 1)))
    if not enough(sets):
        return {}
    right = read_class(sets, labels, seed)

    def leakage(name: str, number: int | None) -> Estimate:
        chosen = [own.neighbour_distance == number if number is not None else np.s_[:] for own in facts]
        hits, wanted = ([own[:, which] for own, which in zip(of, chosen, strict=True)] for of in (right, labels))
        return neighbour_leakage(hits, wanted, identities, draws, numpy_generator(seed, "bootstrap", "neighbour", name))

    by_distance = {name: leakage(name, number) for number, name in enumerate(DISTANCES)}
    return {"neighbour_leakage": leakage("all", None), "by_distance": by_distance}
