"""Pairwise losses of regions. A new one is a file here and a line in ``OBJECTIVES``."""

from __future__ import annotations

from collections.abc import Callable

from d3ssl.errors import InputError, nearest
from d3ssl.losses.info_nce import InfoNce
from d3ssl.losses.objective import RegionObjective
from d3ssl.losses.regression import Regression

__all__ = ["OBJECTIVES", "InfoNce", "RegionObjective", "Regression", "make_objective"]

OBJECTIVES: dict[str, Callable[[float], RegionObjective]] = {
    "regression": lambda temperature: Regression(),
    "info_nce": lambda temperature: InfoNce(temperature=temperature),
}
"""Name → maker of the objective from the temperature (which regression does not use)."""


def make_objective(name: str, temperature: float = 0.2) -> RegionObjective:
    """The objective named ``regression`` or ``info_nce``.

    Raises:
        InputError: an unknown name, or a temperature that is not above 0.
    """
    if name not in OBJECTIVES:
        raise InputError(f"there is no objective '{name}'", remedy=nearest(name, OBJECTIVES))
    if not temperature > 0:
        raise InputError(f"the temperature is {temperature}", remedy="set --method.temperature above 0, such as 0.2.")
    return OBJECTIVES[name](temperature)
