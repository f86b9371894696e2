"""Figures of cells → means with intervals, goals against the host, Markdown and a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from d3ssl.evaluate.intervals import half_width
from d3ssl.files import write_atomically
from d3ssl.page import COLOURS

Curves = Mapping[str, Sequence[Sequence[Mapping[str, float | None]]]]
"""Row → lines of the log of each seed's training."""

Figures = Mapping[str, Mapping[int, Mapping[str, float | None]]]
"""Row → seed → measure → value; None: not measured."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Mean over seeds with its 95 % interval (Student's t); NaN bounds with one seed."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ± {self.value - self.low:.3f}"


def interval(values: Sequence[float]) -> Interval:
    """Of independent values, a seed each."""
    if len(values) < 2:
        return Interval(values[0], math.nan, math.nan)
    half = half_width(values)
    return Interval(mean(values), mean(values) - half, mean(values) + half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a row is to reach against the host, seed by seed."""

    measure: str
    target: float | None
    """None: a measure whose changes are shown beside, added after the goals were set."""
    relative: bool
    """The change is (row − host) ÷ host; else row − host, points of 1."""
    lower_is_better: bool
    near_zero: bool = False
    """So near 0 in some rows that a share of it says nothing: changes from rows other than the host are in points."""


def _less(measure: str, target: float | None, *, near_zero: bool = False) -> Goal:
    return Goal(measure=measure, target=target, relative=True, lower_is_better=True, near_zero=near_zero)


def _more(measure: str, target: float = 0.0) -> Goal:
    return Goal(measure=measure, target=target, relative=False, lower_is_better=False)


GOALS = (
    _less("context_sensitivity", -0.60),
    _less("position_sensitivity", -0.85),
    _less("position_sensitivity_strides", None, near_zero=True),
    _less("neighbour_leakage", -0.50),
    _more("o_knn", 0.15),
    _more("o_knn_shuffled", 0.15),
    _less("context_gap", -0.50, near_zero=True),
    _more("linear_miou"),
    _more("linear_miou_shuffled"),
    _more("box_ap"),
    _more("box_ap_shuffled"),
)


def seed_changes(figures: Figures, row: str, goal: Goal, host_row: str = "host") -> list[float]:
    """The changes from the host (or another row) to a row, of the seeds in which both were measured. None, where they
    are shares of what is not apart from 0."""
    if goal.relative and not _is_above_zero(_values(figures.get(host_row, {}), goal.measure)):
        return []
    found = []
    for seed in figures[row].keys() & figures.get(host_row, {}).keys():
        own, host = figures[row][seed].get(goal.measure), figures[host_row][seed].get(goal.measure)
        if own is not None and host is not None:
            found.append((own - host) / host if goal.relative else own - host)
    return found


def _is_above_zero(values: Sequence[float]) -> bool:
    """Every value, and their interval, if there is one."""
    return bool(values) and min(values) > 0 and not interval(values).low <= 0


def reached(goal: Goal, change: Interval) -> str:
    """In words: yes, if the whole interval is beyond the target; no, if all of it falls short; or open."""
    assert goal.target is not None
    sign = -1 if goal.lower_is_better else 1
    low, high = sorted((sign * change.low, sign * change.high))
    if math.isnan(change.low):
        return "one seed"
    target = sign * goal.target
    return "yes" if low > target else "no" if high < target else "not outside the interval"


def markdown(figures: Figures, measures: Sequence[str]) -> str:
    """Rows down, measures across."""
    lines = ["| | seeds | " + " | ".join(name.replace("_", " ") for name in measures) + " |"]
    lines.append("|---" * (len(measures) + 2) + "|")
    for row, seeds in figures.items():
        cells = [f"{row} | {len(seeds)}"]
        for name in measures:
            values = _values(seeds, name)
            cells.append(f"{interval(values)}{_fewer(len(values), len(seeds))}" if values else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(figures: Figures, row: str, host_row: str = "host") -> str:
    """The goals of a row, one a line."""
    lines = [f"| {row} against {host_row}, seed by seed | goal | change | reached |", "|---|---|---|---|"]
    shared = len(figures[row].keys() & figures[host_row].keys())
    for goal in (goal for goal in GOALS if goal.target is not None):
        name, unit = goal.measure.replace("_", " "), "%" if goal.relative else " points"
        target = f"{100 * goal.target:+.0f}{unit}" if goal.target else "better"
        found = seed_changes(figures, row, goal, host_row)
        if not found:
            measured = shared and all(_values(figures[own], goal.measure) for own in (row, host_row))
            why = f"no share of {host_row}'s, which is not apart from 0" if measured else "not measured"
            lines.append(f"| {name} | {target} | – | {why} |")
            continue
        change = interval(found)
        shown = f"{_hundredths(change)}{unit}{_fewer(len(found), shared)}"
        lines.append(f"| {name} | {target} | {shown} | {reached(goal, change)} |")
    return "\n".join(lines)


def changes(figures: Figures, rows: Sequence[str], reference: str) -> str:
    """What every goal's measure changes from a row to others, one a line; marked where the interval leaves out 0. Of
    the measures that were taken of the reference."""
    measured = [goal for goal in GOALS if _values(figures[reference], goal.measure)]
    shown = [replace(goal, relative=goal.relative and (reference == "host" or not goal.near_zero)) for goal in measured]
    names = [f"{goal.measure.replace('_', ' ')}, {'%' if goal.relative else 'points'}" for goal in shown]
    lines = [f"| against {reference}, seed by seed | seeds | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        shared = len(figures[row].keys() & figures[reference].keys())
        cells = [f"{row} | {shared}"]
        for goal in shown:
            found = seed_changes(figures, row, goal, reference)
            marked = _marked(interval(found), lower_is_better=goal.lower_is_better) if found else "–"
            cells.append(f"{marked}{_fewer(len(found), shared)}" if found else marked)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _marked(change: Interval, *, lower_is_better: bool) -> str:
    """Bold where the whole interval is better, in italics where it is worse."""
    shown = _hundredths(change)
    if math.isnan(change.low) or change.low <= 0 <= change.high:
        return shown
    mark = "**" if (change.value < 0) == lower_is_better else "*"
    return f"{mark}{shown}{mark}"


def _hundredths(change: Interval) -> str:
    half = "" if math.isnan(change.low) else f" ± {100 * (change.value - change.low):.1f}"
    return f"{100 * change.value:+.1f}{half}"


def _fewer(count: int, seeds: int) -> str:
    """How many seeds a figure is of, where not of all."""
    return f" ({count})" if count < seeds else ""


def _values(seeds: Mapping[int, Mapping[str, float | None]], measure: str) -> list[float]:
    """Of the seeds with which it was measured."""
    return [value for own in seeds.values() if (value := own.get(measure)) is not None]


_OTHER = COLOURS[0]
_COLOURS = {"host": COLOURS[1], "D3SSL": COLOURS[2]}
"""Of rows that have their own, as in the reports."""


def plot(figures: Figures, path: Path, measures: Sequence[str]) -> None:
    """Bars with intervals, a panel for each measure."""
    figure = Figure(figsize=(3.2 * len(measures), 0.4 * len(figures) + 1.2), layout="constrained")
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, measures, strict=True):
        for place, (row, seeds) in enumerate(figures.items()):
            values = _values(seeds, name)
            if not values:
                continue
            found = interval(values)
            colour = _COLOURS.get(row, _OTHER)
            half = 0.0 if math.isnan(found.low) else found.value - found.low
            axis.barh(place, found.value, xerr=half, color=colour, error_kw={"lw": 1})
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_yticks(range(len(figures)), list(figures), fontsize=8)
    axes[0].invert_yaxis()
    _save(figure, path)


def plot_curves(curves: Curves, path: Path, measures: Sequence[str]) -> None:
    """What trainings logged, by their steps: a panel for each measure, a line for each seed."""
    figure = Figure(figsize=(3.4 * len(measures), 3.0), layout="constrained")
    axes = figure.subplots(1, len(measures), squeeze=False)[0]
    styles = ["--", "-.", ":"]  # tell rows apart that share a colour
    others = [row for row in curves if row not in _COLOURS]
    for axis, name in zip(axes, measures, strict=True):
        for row, seeds in curves.items():
            style = styles[others.index(row) % len(styles)] if row in others else "-"
            for number, lines in enumerate(seeds):
                points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
                label = row if number == 0 else None
                axis.plot(*zip(*points, strict=True), style, color=_COLOURS.get(row, _OTHER), lw=1, label=label)
        axis.set_title(name.replace("diagnosis_", "").replace("_", " "), fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
