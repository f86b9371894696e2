"""The quickstart's report: one HTML file with everything in it, to be read in a minute or in ten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from d3ssl import page
from d3ssl.evaluate.objects.measures import measures
from d3ssl.evaluate.task import Measure
from d3ssl.page import COLOURS


@dataclass(frozen=True, kw_only=True)
class Row:
    """One backbone in the comparison."""

    name: str
    metrics: dict[str, Any]
    """Keys of metrics.json and diagnosis.json together, with ``_low`` and ``_high``."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """Lines of log.jsonl; empty for a backbone that was not trained."""
    seconds: float | None = None
    """Wall time of the training."""


MEASURES = (
    *(m for m in measures((), ("val", "shuffled")) if m.key != "o_knn_per_class"),
    Measure(
        key="context_sensitivity",
        title="context sensitivity",
        meaning="how much a feature changes with the surroundings, against how much objects differ: 0 none, 1 as much",
        higher_is_better=False,
        percent=False,
    ),
    Measure(
        key="position_sensitivity",
        title="position sensitivity",
        meaning="the same when only the place of the object changes",
        higher_is_better=False,
        percent=False,
    ),
)


def write_report(path: Path, rows: Sequence[Row], pictures: Sequence[tuple[str, Path]], facts: dict[str, str]) -> None:
    """Write a self-contained ``report.html``.

    Args:
        path: the file.
        rows: the backbones, the baseline first.
        pictures: (caption, PNG file) of views and probes.
        facts: what was run, how long it took, versions: shown as a table at the end.
    """
    curves = (
        "Loss (not comparable between methods: D3SSL solves a harder task); spread of the embeddings, "
        "1 when they fill their space and 0 when they collapse; effective rank; images per second."
    )
    parts = [
        page.verdict(verdict(rows)),
        page.heading("The measurements"),
        _table(rows),
        page.figure(_bars(rows), "Bars: the figures of the table; whiskers: 95 % intervals."),
        page.heading("What they mean"),
        page.definitions((m.label, m.meaning) for m in MEASURES),
        page.heading("The training"),
        page.figure(_curves(rows), curves),
        page.heading("What was trained on, and what was measured on"),
        *(page.figure(picture.read_bytes(), caption) for caption, picture in pictures),
        page.heading("How it was run"),
        page.facts(facts),
    ]
    page.write_page(path, "d3ssl quickstart", parts)


def verdict(rows: Sequence[Row]) -> list[str]:
    """Plain sentences that compare the last row (D3SSL) with the host and with the baseline, as measured."""
    baseline, host, ours = rows[0], rows[1], rows[-1]
    lines = [
        f"{ours.name} names {_show(ours, 'o_knn')} of the objects by their nearest neighbours, "
        f"{host.name} {_show(host, 'o_knn')}, {baseline.name} {_show(baseline, 'o_knn')} "
        f"(chance {_percent(ours.metrics.get('chance'))}). With unfamiliar neighbours and positions: "
        f"{_show(ours, 'o_knn_shuffled')}, {_show(host, 'o_knn_shuffled')} and {_show(baseline, 'o_knn_shuffled')}.",
    ]
    for key, what in (("context_sensitivity", "surroundings"), ("position_sensitivity", "place")):
        mine, theirs = ours.metrics[key], host.metrics[key]
        word = "less" if mine < theirs else "more"
        change = abs(mine / theirs - 1) if theirs else float("inf")
        lines.append(
            f"Its features depend {change:.0%} {word} on the {what} of an object than the host's "
            f"({what} sensitivity {mine:.2f} against {theirs:.2f}; {baseline.name}: {baseline.metrics[key]:.2f})"
            f"{'' if _apart(ours, host, key) else '; the intervals overlap'}."
        )
    lines.append("One seed, minutes of training, tiny network: this shows that the machinery works, not its best.")
    return lines


def _apart(one: Row, other: Row, key: str) -> bool:
    """True if the 95 % intervals do not touch."""
    a, b = one.metrics, other.metrics
    return a[f"{key}_low"] > b[f"{key}_high"] or a[f"{key}_high"] < b[f"{key}_low"]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _show(row: Row, key: str) -> str:
    measure = next(m for m in MEASURES if m.key == key)
    value = row.metrics.get(key)
    return _percent(value) if measure.percent else "–" if value is None else f"{value:.2f}"


def cell(row: Row, measure: Measure) -> str:
    """``value [low, high]`` as text."""
    value, low, high = (row.metrics.get(measure.key + end) for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return "–"
    factor, digits = (100, 1) if measure.percent else (1, 2)
    return f"{factor * value:.{digits}f} [{factor * low:.{digits}f}, {factor * high:.{digits}f}]"


def _table(rows: Sequence[Row]) -> str:
    lines, best = [], []
    for number, measure in enumerate(MEASURES):
        values = [row.metrics.get(measure.key) for row in rows]
        known = [v for v in values if v is not None]
        winner = (max if measure.higher_is_better else min)(known) if known else None
        best += [(number, column) for column, v in enumerate(values, start=1) if v is not None and v == winner]
        arrow = "higher is better" if measure.higher_is_better else "lower is better"
        unit = ", %" if measure.percent else ""
        lines.append([f"{measure.label}{unit}\n{arrow}", *(cell(row, measure) for row in rows)])
    lines.append(["training time, s", *("–" if r.seconds is None else f"{r.seconds:.0f}" for r in rows)])
    note = "value [95 % interval, bootstrap]; bold: best"
    return page.table(["", *(row.name for row in rows)], lines, best=best, note=note)


def _bars(rows: Sequence[Row]) -> bytes:
    figure, axes = plt.subplots(2, 4, figsize=(11, 5), layout="constrained")
    panels = list(axes.flat)
    for axis, measure in zip(panels, MEASURES, strict=False):
        factor = 100 if measure.percent else 1
        for place, row in enumerate(rows):
            value, low, high = (row.metrics.get(measure.key + end) for end in ("", "_low", "_high"))
            if value is None or low is None or high is None:
                continue
            error = [[max(value - low, 0) * factor], [max(high - value, 0) * factor]]
            axis.bar(place, value * factor, yerr=error, color=COLOURS[place % len(COLOURS)], capsize=4, width=0.7)
        axis.set_xticks(range(len(rows)), [row.name for row in rows], fontsize=8)
        axis.set_title(f"{measure.label}{' (%)' if measure.percent else ''}", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in panels[len(MEASURES) :]:
        axis.set_axis_off()
    return page.plot_png(figure)


def _curves(rows: Sequence[Row]) -> bytes:
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.8), layout="constrained")
    keys = (
        ("loss", "loss"), ("embedding_std", "spread of embeddings"), ("effective_rank", "effective rank"),
        ("images_per_s", "images per second"),
    )  # fmt: skip
    for axis, (key, title) in zip(axes, keys, strict=True):
        for place, row in enumerate(rows):
            lines = [line for line in row.log if line.get(key) is not None]  # null: it was not finite
            if lines:
                steps, values = [line["step"] for line in lines], [line[key] for line in lines]
                axis.plot(steps, values, color=COLOURS[place % len(COLOURS)], label=row.name, linewidth=1.5)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_ylim(bottom=0)
    axes[0].legend(fontsize=8, frameon=False)
    return page.plot_png(figure)
