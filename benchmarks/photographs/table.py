"""Cells → Markdown: the start's figures, and what each row changes, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TypeVar

import numpy as np

from benchmarks.photographs.cells import START, name_of
from benchmarks.photographs.record import Cell, Record
from d3ssl.evaluate.intervals import half_width

T = TypeVar("T", float, np.ndarray)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure."""

    title: str
    key: str
    """``task/measure``."""
    minus: str | None = None
    """Another figure that is taken from it."""
    relative: bool = False
    """Changes are per cent of the start's, not points."""

    @property
    def keys(self) -> list[str]:
        """Of the figures that it is made of."""
        return [self.key] if self.minus is None else [self.key, self.minus]

    def of(self, known: Mapping[str, T]) -> T | None:
        """From a cell's figures or draws; None: it was not measured."""
        if any(key not in known for key in self.keys):
            return None
        return known[self.key] if self.minus is None else known[self.key] - known[self.minus]


_SENSITIVITIES = tuple(
    Column(title=f"{name} sensitivity", key=f"diagnosis/{name}_sensitivity", relative=True)
    for name in ("context", "position")
)
_CONDITIONS = {"(a)": "", "(b)": "_replaced", "(b′)": "_congruent", "(c)": "_elsewhere", "(d)": "_anywhere"}


def _conditions(task: str, measure: str) -> tuple[Column, ...]:
    own = [Column(title=title, key=f"{task}/{measure}{end}") for title, end in _CONDITIONS.items()]
    drop = Column(title="(a) − (d)", key=f"{task}/{measure}", minus=f"{task}/{measure}_anywhere")
    return (*own, drop)


TABLES: dict[str, tuple[Column, ...]] = {
    "posttrain": (
        Column(title="O-KNN out of context", key="objects/o_knn"),
        Column(title="shuffled", key="objects/o_knn_shuffled"),
        Column(title="linear out of context", key="objects/linear"),
        Column(title="shuffled", key="objects/linear_shuffled"),
        Column(title="O-KNN in context", key="natural/o_knn"),
        Column(title="linear in context", key="natural/linear"),
        Column(title="linear mIoU", key="segmentation/linear_miou"),
        *_SENSITIVITIES,
    ),
    "o_knn": _conditions("conditions", "o_knn"),
    "linear": _conditions("conditions", "linear"),
    "ten_shot": _conditions("conditions", "few_shot_10"),
    "miou": _conditions("pixels", "linear_miou"),
    "box_ap": _conditions("detection", "box_ap"),
    "sensitivities": (
        *_SENSITIVITIES,
        Column(title="neighbour leakage", key="diagnosis/neighbour_leakage", relative=True),
    ),
}
"""What is shown side by side. Conditions: (a) the object in its own photograph, (b) pasted back, (b′) in another of its
class, (c) elsewhere, (d) anywhere."""


def columns() -> set[str]:
    """The figures that any table shows."""
    return {key for table in TABLES.values() for column in table for key in column.keys}


@dataclass(frozen=True, slots=True)
class Change:
    """A mean difference, in points or per cent, with half of its 95 % interval (NaN: unknown)."""

    value: float
    half: float

    def __str__(self) -> str:
        return f"{self.value:+.1f}" + ("" if math.isnan(self.half) else f" ± {self.half:.1f}")


def change(start: Sequence[Cell], cells: Sequence[Cell], column: Column) -> Change | None:
    """From ``start`` to ``cells``. What the seeds make (Student's t) and what the tested images make (the bootstrap's
    draws, of the same images for both: pairs) are joined in quadrature. With as many starts as cells, seed by seed."""
    known, found = ([v for cell in own if (v := column.of(cell.figures)) is not None] for own in (start, cells))
    if not known or not found or len(known) < len(start) or len(found) < len(cells):
        return None
    known = known if len(known) == len(found) else [mean(known)] * len(found)
    scale = 100 / mean(known) if column.relative else 100
    changes = [b - a for a, b in zip(known, found, strict=True)]
    parts = [half_width(changes)] if len(changes) > 1 else []
    other, drawn = ([d for cell in own if (d := column.of(cell.draws)) is not None] for own in (start, cells))
    if len(other) == len(start) and len(drawn) == len(cells):
        differences = np.mean(drawn, axis=0) - np.mean(other, axis=0)
        low, high = np.percentile(differences, [2.5, 97.5])
        parts.append(float(high - low) / 2)
    return Change(scale * mean(changes), scale * math.hypot(*parts) if parts else math.nan)


def of_row(record: Record, row: str, passes: int) -> list[Cell]:
    """A row's cells by seed."""
    own = [cell for name, cell in record.items() if cell.row == row and name == name_of(row, passes, cell.seed)]
    return sorted(own, key=lambda cell: cell.seed)


def markdown(record: Record, name: str, rows: Sequence[str], passes: int) -> str:
    """A table of ``TABLES``: the start's figures, then what each row changes; empty, if nothing of it was measured.

    A row of which nothing was measured is left out; a figure of fewer seeds than the row says so.
    """
    shown, start = TABLES[name], of_row(record, START, passes)
    if not start or all(column.of(start[0].figures) is None for column in shown):
        return ""
    lines = [f"| | {' | '.join(column.title for column in shown)} | strength | core-minutes |"]
    lines.append("|---" * (len(shown) + 3) + "|")
    known = [column.of(start[0].figures) for column in shown]
    lines.append(f"| start | {' | '.join('–' if v is None else f'{v:.3f}' for v in known)} | 0 | – |")
    for row in rows:
        cells = of_row(record, row, passes)
        texts = []
        for column in shown:
            own = [cell for cell in cells if column.of(cell.figures) is not None]
            found = change(start, own, column)
            fewer = f" ({len(own)})" if 0 < len(own) < len(cells) else ""
            texts.append("–" if found is None else f"{found}{' %' if column.relative else ''}{fewer}")
        if any(text != "–" for text in texts):
            strengths = ", ".join(f"{cell.figures['strength']:g}" for cell in cells if "strength" in cell.figures)
            minutes = [cell.figures["minutes"] for cell in cells if "minutes" in cell.figures]
            cost = f"{mean(minutes):.0f}" if minutes else "–"
            lines.append(f"| {row} ({len(cells)}) | {' | '.join(texts)} | {strengths or '–'} | {cost} |")
    return "\n".join(lines)
