"""The result of a diagnosis, and what it needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from d3ssl.diagnose.config import PaddingMode
from d3ssl.diagnose.estimates import Estimate
from d3ssl.diagnose.measure import MEASURES, Measured
from d3ssl.files import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How probe sets are put through a backbone and measured."""

    batch_size: int = 64
    """Images at a time."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    draws: int = 2000
    """Bootstrap samples."""
    seed: int = 0
    """Decides them, and which objects are held out."""
    layers: bool = True
    """Every layer too, by box and by mask."""
    blocks: int = 4
    """Of a ViT, how many of its blocks."""
    gradient_objects: int = 16
    """Objects of each probe set whose gradients are computed."""
    receptive_margin: float = 0.0
    """Border around the box that counts as inside it, share of the image."""
    padding: tuple[PaddingMode, ...] = ()
    """Modes of padding to try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """How much features depend on what they should not. None: not measured."""

    context_sensitivity: Estimate
    position_sensitivity: Estimate
    neighbour_leakage: Estimate | None = None
    receptive_leakage: Estimate | None = None
    position_r2: Estimate | None = None
    location_accuracy: Estimate | None = None
    layers: dict[str, Measured] = field(default_factory=dict)
    """Every layer's map, read by box; the shallowest first."""
    layers_by_mask: dict[str, Measured] = field(default_factory=dict)
    """The same by mask."""
    by_distance: dict[str, Estimate] = field(default_factory=dict)
    """Neighbour leakage by the neighbour's distance."""
    by_size: dict[float, Measured] = field(default_factory=dict)
    """Sensitivities by the objects' longer side, share of the image."""
    by_padding: dict[str, Measured] = field(default_factory=dict)
    """Position sensitivity and read-outs by the mode of padding."""
    neighbour_chance: float | None = None
    """Accuracy of always naming the most frequent class of neighbours."""
    location_chance: float | None = None
    """The same of places."""
    objects: tuple[int, ...]
    """Number of objects in each probe set."""
    probe_digests: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """``name``, ``name_low``, ``name_high``, ``name_by_seed`` of every measurement, the same (without by_seed) by
        layer, size, distance and padding, and the probes' description. None where something was not measured."""
        found: dict[str, Any] = {}
        for name in MEASURES:
            own: Estimate | None = getattr(self, name)
            found |= own.as_dict(name) if own else {name: None, f"{name}_low": None, f"{name}_high": None}
            found[f"{name}_by_seed"] = list(own.by_seed) if own else None
        found |= {"neighbour_chance": self.neighbour_chance, "location_chance": self.location_chance}
        found["layers"] = {layer: own.as_dict() for layer, own in self.layers.items()}
        found["layers_by_mask"] = {layer: own.as_dict() for layer, own in self.layers_by_mask.items()}
        found["by_distance"] = {name: own.as_dict("neighbour_leakage") for name, own in self.by_distance.items()}
        found["by_size"] = {f"{side:g}": _measured(own) for side, own in self.by_size.items()}
        found["by_padding"] = {mode: _measured(own) for mode, own in self.by_padding.items()}
        found["probe_objects"] = list(self.objects)
        found["probe_digest"] = digest(*self.probe_digests)
        return found


def _measured(own: Measured) -> dict[str, Any]:
    return {name: value for name, value in own.as_dict().items() if value is not None}
