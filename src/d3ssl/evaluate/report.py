"""A comparison for people: a table, sentences, and a page with a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from d3ssl import page
from d3ssl.console import say, show_table
from d3ssl.distributed import rank
from d3ssl.evaluate.task import Measure, Measured, Task

MOST_PANELS = 8
"""Of the plot: the first of them."""


def show(measure: Measure, figures: dict[str, float]) -> str:
    """``value [low, high]`` as text."""
    if measure.key not in figures:
        return "–"
    factor, digits = (100, 1) if measure.percent else (1, 3)
    ends = [figures[end] for end in (f"{measure.key}_low", f"{measure.key}_high") if end in figures]
    shown = f"{factor * figures[measure.key]:.{digits}f}"
    return shown + (f" [{', '.join(f'{factor * end:.{digits}f}' for end in ends)}]" if len(ends) == 2 else "")


def _table(task: Task, measured: Sequence[Measured]) -> tuple[list[str], list[list[str]]]:
    """A line for each measure, a column for each backbone."""
    summaries = [row.summary(task.measures) for row in measured]
    shown = [m for m in task.measures if any(m.key in figures for figures in summaries)]
    lines = [[m.label + (", %" if m.percent else ""), *(show(m, figures) for figures in summaries)] for m in shown]
    return ["", *(_short(row.name) for row in measured)], lines


def show_figures(task: Task, measured: Sequence[Measured]) -> None:
    """Print the table, and a sentence for each loss."""
    if rank() == 0:
        header, lines = _table(task, measured)
        show_table(f"{task.name}: value [95 % interval]", header, lines)
        for line in losses(task, measured):
            say(line)


def verdict(task: Task, measured: Sequence[Measured]) -> list[str]:
    """The first row against each other one by the main figure, in plain sentences."""
    main, first = task.measures[0], measured[0]
    mine = first.summary(task.measures)
    lines = [f"{first.name}: {main.label} {show(main, mine)}{' %' if main.percent else ''}."]
    for other in measured[1:]:
        theirs = other.summary(task.measures)
        better = (mine[main.key] > theirs[main.key]) == main.higher_is_better and mine[main.key] != theirs[main.key]
        word = "better than" if better else "no better than"
        lines.append(f"That is {word} {other.name} ({show(main, theirs)}); {_apart(main.key, mine, theirs)}.")
    return lines


def losses(task: Task, measured: Sequence[Measured]) -> list[str]:
    """What each difference costs the rows: "when the background changes, a loses 21.0 points; b 6.0"."""
    summaries = [(row.name, row.summary(task.measures)) for row in measured]
    lines = []
    for measure in (one for one in task.measures if one.loss_when):
        costs = [(name, show(measure, figures)) for name, figures in summaries if measure.key in figures]
        if costs:
            (name, first), *others = costs
            parts = [f"{name} loses {first} points", *(f"{other} {cost}" for other, cost in others)]
            lines.append(f"{measure.loss_when[0].upper()}{measure.loss_when[1:]}, {'; '.join(parts)}.")
    return lines


def _apart(key: str, one: dict[str, float], other: dict[str, float]) -> str:
    low, high = f"{key}_low", f"{key}_high"
    if low not in one or low not in other:
        return "there are no intervals"
    apart = one[low] > other[high] or one[high] < other[low]
    return "the intervals do not touch" if apart else "the intervals overlap, so this may be chance"


def write_report(path: Path, task: Task, measured: Sequence[Measured], result: dict[str, Any]) -> None:
    header, lines = _table(task, measured)
    pictures = [
        page.figure((row.folders[0] / name).read_bytes(), f"{row.name}: {caption}")
        for name, caption in task.captions.items()
        for row in measured
        if (row.folders[0] / name).exists()
    ]
    parts = [
        page.verdict([*verdict(task, measured), *losses(task, measured)]),
        page.heading("The figures"),
        page.table(header, lines, note=f"value [interval: {result['interval']}]. Every row gets: {result['budget']}"),
        page.figure(_plot(task, measured), "The figures of the table; whiskers: 95 % intervals."),
        page.heading("What they mean"),
        page.definitions((m.label, m.meaning) for m in task.measures),
        *([page.heading("Pictures"), *pictures] if pictures else []),
        page.heading("How it was run"),
        page.facts(
            {"rows": ", ".join(row.name for row in measured), **{k: str(v) for k, v in result["versions"].items()}}
        ),
    ]
    page.write_page(path, f"d3ssl evaluate {task.name}", parts)


def _plot(task: Task, measured: Sequence[Measured]) -> bytes:
    """A panel for each title: over several splits a line for each row, else bars."""
    summaries = [row.summary(task.measures) for row in measured]
    panels: dict[str, list[Measure]] = {}
    for measure in task.measures:
        if any(measure.key in figures for figures in summaries):
            panels.setdefault(measure.title, []).append(measure)
    shown = list(panels.items())[:MOST_PANELS]
    columns = min(4, len(shown))
    lines = math.ceil(len(shown) / columns)
    plot, axes = plt.subplots(lines, columns, figsize=(2.8 * columns, 2.5 * lines), layout="constrained", squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, (title, group) in zip(axes.flat, shown, strict=False):
        for place, (row, figures) in enumerate(zip(measured, summaries, strict=True)):
            colour = page.COLOURS[place % len(page.COLOURS)]
            values, errors = _whiskers(group, figures)
            if len(group) == 1:
                axis.bar(place, values, yerr=errors, capsize=4, width=0.7, color=colour)
            else:
                axis.errorbar(
                    range(len(group)), values, errors, capsize=3, marker="o", color=colour, label=_short(row.name)
                )
        ticks = [one.split for one in group] if len(group) > 1 else [_short(row.name) for row in measured]
        axis.set_xticks(range(len(ticks)), ticks, fontsize=7, rotation=20)
        axis.set_title(title + (" (%)" if group[0].percent else ""), fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    named = next((axis for axis in axes.flat if axis.get_legend_handles_labels()[0]), None)
    if named is not None:
        named.legend(fontsize=7, frameon=False)
    return page.plot_png(plot)


def _whiskers(group: Sequence[Measure], figures: dict[str, float]) -> tuple[list[float], list[list[float]]]:
    """Values, and how far their intervals reach down and up, as shown; NaN where a figure is missing."""
    factor = 100 if group[0].percent else 1
    values = [figures.get(one.key, math.nan) for one in group]
    low = [max(value - figures.get(f"{one.key}_low", value), 0) for one, value in zip(group, values, strict=True)]
    high = [max(figures.get(f"{one.key}_high", value) - value, 0) for one, value in zip(group, values, strict=True)]
    return [factor * value for value in values], [[factor * end for end in ends] for ends in (low, high)]


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"…{name[-23:]}"
