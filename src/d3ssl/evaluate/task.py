"""What is measured: figures, tasks, and what a backbone got at one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Protocol, runtime_checkable

from d3ssl.evaluate.intervals import half_width
from d3ssl.models import Backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How a figure is shown and explained."""

    key: str
    title: str
    meaning: str
    higher_is_better: bool = True
    percent: bool = True
    """Shares 0..1, shown as per cent."""
    split: str = ""
    """Which images it is of; measures of one title, each on its split, are drawn as one line."""
    loss_when: str = ""
    """Of a difference: what takes these points, so that "``loss_when`` B loses 3 points" is a sentence."""

    @property
    def label(self) -> str:
        """Title and split, for tables."""
        return f"{self.title}, {self.split}" if self.split else self.title


@runtime_checkable
class Task(Protocol):
    """Something that backbones can be measured at."""

    name: str
    measures: tuple[Measure, ...]
    """What is compared, the main figure first."""
    captions: dict[str, str]
    """File name of a picture in a cell's folder → its caption on the page."""

    def fingerprint(self) -> str:
        """Changes with the data and with every option that the figures depend on, but not with backbone and seed."""
        ...

    def budget(self) -> str:
        """What every row gets, in a sentence: objects, images, steps."""
        ...

    def measure(self, backbone: Backbone, seed: int, folder: Path) -> dict[str, Any]:
        """Measure one backbone (left as it was) with one seed.

        Args:
            seed: decides what is drawn: training objects, order, initial heads.
            folder: for pictures (see ``captions``), results and checkpoints of this cell.

        Returns:
            JSON: figures by the keys of ``measures``, each with ``_low`` and ``_high`` where images give an interval.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Measured:
    """A row with its cells."""

    name: str
    folders: list[Path] = field(default_factory=list)
    cells: list[dict[str, Any]] = field(default_factory=list)
    """What ``Task.measure`` gave, a seed each."""

    def summary(self, measures: Sequence[Measure]) -> dict[str, float]:
        """Mean over the seeds, with its 95 % interval.

        What the seeds make (Student's t) and what the tested images make (the cells' bootstrap, averaged) is added in
        quadrature: seeds that test on the same images would else pretend that these are all there are.
        """
        found: dict[str, float] = {}
        for key in [m.key for m in measures if all(m.key in cell for cell in self.cells)]:
            values = [float(cell[key]) for cell in self.cells]
            found[key] = mean(values)
            half = 0.0
            if len(values) > 1:
                half = half_width(values)
            for end, sign in ((f"{key}_low", -1), (f"{key}_high", 1)):
                has_bootstrap = all(end in cell for cell in self.cells)
                if has_bootstrap or len(values) > 1:
                    images = mean(abs(cell[end] - cell[key]) for cell in self.cells) if has_bootstrap else 0.0
                    found[end] = found[key] + sign * math.hypot(half, images)
        return found
