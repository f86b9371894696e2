"""The quickstart's report: one HTML file with everything in it, to be read in a minute or in ten."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from d3ssl.files import write_text


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


@dataclass(frozen=True, slots=True)
class Measure:
    """How a measurement is shown and explained."""

    key: str
    title: str
    higher_is_better: bool
    percent: bool
    meaning: str


MEASURES = (
    Measure("o_knn", "O-KNN, val", True, True,
            "objects of new scenes named by their 20 nearest training objects: how well features tell objects apart"),
    Measure("o_knn_shuffled", "O-KNN, shuffled", True, True,
            "the same where company and places of the objects are shuffled, so that neither helps to guess"),
    Measure("linear", "linear probe, val", True, True, "a linear classifier on the frozen features"),
    Measure("linear_shuffled", "linear probe, shuffled", True, True, "the same on the shuffled split"),
    Measure("context_gap", "context gap", False, True,
            "O-KNN on val minus O-KNN on shuffled: what the features owe to company and place"),
    Measure("context_sensitivity", "context sensitivity", False, False,
            "how much a feature changes with the surroundings, against how much objects differ: 0 is none, 1 as much"),
    Measure("position_sensitivity", "position sensitivity", False, False,
            "the same when only the place of the object changes"),
)  # fmt: skip

COLOURS = ("#8a8f98", "#d9822b", "#2b6cb0", "#2f855a", "#805ad5")


def write_report(path: Path, rows: Sequence[Row], pictures: Sequence[tuple[str, Path]], facts: dict[str, str]) -> None:
    """Write a self-contained ``report.html``.

    Args:
        path: the file.
        rows: the backbones, the baseline first.
        pictures: (caption, PNG file) of views and probes.
        facts: what was run, how long it took, versions: shown as a table at the end.
    """
    style = (resources.files("d3ssl") / "cli" / "report.css").read_text(encoding="utf-8")
    parts = [
        "<h1>d3ssl quickstart</h1>",
        f"<section class=verdict>{''.join(f'<p>{html.escape(line)}</p>' for line in verdict(rows))}</section>",
        "<h2>The measurements</h2>",
        _table(rows),
        _figure(_bars(rows), "Bars: the figures of the table; whiskers: 95 % intervals."),
        "<h2>What they mean</h2>",
        "<dl>" + "".join(f"<dt>{m.title}</dt><dd>{html.escape(m.meaning)}</dd>" for m in MEASURES) + "</dl>",
        "<h2>The training</h2>",
        _figure(
            _curves(rows),
            "Loss (not comparable between methods: D3SSL solves a harder task); spread of the embeddings, "
            "1 when they fill their space and 0 when they collapse; effective rank; images a second.",
        ),
        "<h2>What was trained on, and what was measured on</h2>",
        *(_figure(picture.read_bytes(), caption) for caption, picture in pictures),
        "<h2>How it was run</h2>",
        "<table class=facts>" + "".join(_fact(name, value) for name, value in facts.items()) + "</table>",
    ]
    body = "\n".join(parts)
    write_text(
        path,
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>d3ssl quickstart</title><style>{style}</style></head>\n<body><main>\n{body}\n</main></body></html>\n",
    )


def verdict(rows: Sequence[Row]) -> list[str]:
    """Plain sentences that compare the last row (D3SSL) with the host and with the baseline, as measured."""
    baseline, host, ours = rows[0], rows[1], rows[-1]
    lines = [
        f"{ours.name} names {_show(ours, 'o_knn')} of the objects by their nearest neighbours, "
        f"{host.name} {_show(host, 'o_knn')}, {baseline.name} {_show(baseline, 'o_knn')} "
        f"(chance {_percent(ours.metrics.get('chance'))}). With company and places shuffled: "
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
    head = "".join(f"<th>{html.escape(row.name)}</th>" for row in rows)
    lines = []
    for measure in MEASURES:
        values = [row.metrics.get(measure.key) for row in rows]
        known = [v for v in values if v is not None]
        best = (max if measure.higher_is_better else min)(known) if known else None
        cells = "".join(
            f"<td{' class=best' if value is not None and value == best else ''}>{cell(row, measure)}</td>"
            for row, value in zip(rows, values, strict=True)
        )
        arrow = "higher is better" if measure.higher_is_better else "lower is better"
        unit = ", %" if measure.percent else ""
        lines.append(f"<tr><th>{measure.title}{unit}<small>{arrow}</small></th>{cells}</tr>")
    timed = "".join(f"<td>{'–' if r.seconds is None else f'{r.seconds:.0f}'}</td>" for r in rows)
    lines.append(f"<tr><th>training time, s</th>{timed}</tr>")
    note = "<p class=note>value [95 % interval, bootstrap]; bold: best</p>"
    return f"<div class=wide><table><tr><th></th>{head}</tr>{''.join(lines)}</table></div>{note}"


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
        axis.set_title(f"{measure.title}{' (%)' if measure.percent else ''}", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in panels[len(MEASURES) :]:
        axis.set_axis_off()
    return _png(figure)


def _curves(rows: Sequence[Row]) -> bytes:
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.8), layout="constrained")
    keys = (
        ("loss", "loss"), ("embedding_std", "spread of embeddings"), ("effective_rank", "effective rank"),
        ("images_per_s", "images a second"),
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
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    plt.close(figure)
    return buffer.getvalue()


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    text = html.escape(caption, quote=True)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _fact(name: str, value: str) -> str:
    return f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
