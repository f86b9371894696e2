"""Several backbones measured alike: rows (backbones) × seeds, each cell kept, with intervals and a page to look at."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Protocol, runtime_checkable

import timm
import torch
from matplotlib import pyplot as plt

import d3ssl
from d3ssl import page
from d3ssl.console import say, show_table
from d3ssl.distributed import barrier, rank
from d3ssl.errors import InputError
from d3ssl.evaluate.cache import weights_digest
from d3ssl.evaluate.intervals import half_width
from d3ssl.files import digest, make_folder, read_json, write_json
from d3ssl.models import Backbone, load_backbone

RANDOM = "random"
"""The baseline of this name: the same network as the first backbone's, read alike, with random weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How a figure is shown and explained."""

    key: str
    title: str
    meaning: str
    higher_is_better: bool = True
    percent: bool = True
    """Shares 0..1, shown as per cent."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One backbone of a comparison."""

    name: str
    load: Callable[[int], Backbone]
    """Seed → backbone."""


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


def make_rows(backbone: Backbone | str | Path, baselines: Sequence[str], reading: dict[str, Any]) -> list[Row]:
    """The backbone and its baselines.

    Args:
        backbone: itself (then without baselines), or its spec.
        baselines: specs as of ``load_backbone``, or ``random``.
        reading: options of ``load_backbone`` that hold for all rows.

    Raises:
        InputError: a spec that cannot be loaded (all are tried before anything is measured), or is named twice.
    """
    if isinstance(backbone, Backbone):
        if baselines:
            raise InputError("baselines need the backbone's spec", remedy="give a run's folder, a file or timm:NAME.")
        return [Row(name=backbone.timm_name, load=lambda seed: backbone)]
    spec = str(backbone)
    names = [spec, *baselines]
    if len(set(names)) < len(names):
        raise InputError("a backbone is named twice in one comparison", remedy="give every --baseline once.")
    first = load_backbone(spec, **reading)
    alike = {"in_channels": first.in_channels, "region_path": first.region_path, "roi_size": first.roi_size}

    def random(seed: int) -> Backbone:
        backbone = load_backbone(f"{first.architecture}:random:{seed}", **alike)
        backbone.mean, backbone.std, backbone.input_size = first.mean, first.std, first.input_size
        return backbone

    def load(name: str) -> Callable[[int], Backbone]:
        return random if name == RANDOM else lambda seed: load_backbone(name, **reading)

    for name in baselines:
        load(name)(0)
    return [Row(name=name, load=load(name)) for name in names]


def compare(task: Task, rows: Sequence[Row], seeds: int, out: str | Path | None) -> dict[str, Any]:
    """Measure every row with every seed, and write ``OUT/metrics.json`` and ``OUT/report.html``.

    A cell that is there with the same weights, data and options is not measured again, so that a comparison that was
    stopped goes on.

    Returns:
        The figures of the first row at the top (key, ``_low``, ``_high``), all rows under ``rows``, their cells under
        ``cells``, the ``budget`` and ``versions``.
    """
    if seeds < 1:
        raise InputError(f"{seeds} seeds", remedy="give --seeds 1 or more.")
    root = None if out is None else make_folder(out)
    measured = []
    for number, row in enumerate(rows):
        found = Measured(name=row.name)
        for seed in range(seeds):
            if len(rows) * seeds > 1:
                say(f"[{number * seeds + seed + 1} of {len(rows) * seeds}] {task.name}: {row.name}, seed {seed}")
            folder = None if root is None else root / "cells" / _slug(row.name) / f"seed{seed}"
            found.cells.append(_cell(task, row.load(seed), seed, folder))
            found.folders += [folder] if folder is not None else []
        measured.append(found)
    result = _result(task, measured, seeds)
    if root is not None and rank() == 0:
        write_json(root / "metrics.json", result)
        _write_report(root / "report.html", task, measured, result)
    barrier()
    _show(task, measured)
    return result


def _slug(name: str) -> str:
    """A folder's name: readable, and different for different names."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')[-40:]}-{digest(name)[:6]}"


def _cell(task: Task, backbone: Backbone, seed: int, folder: Path | None) -> dict[str, Any]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="d3ssl-") as temporary:
            return task.measure(backbone, seed, make_folder(Path(temporary) / "cell"))
    fingerprint = digest(task.fingerprint(), weights_digest(backbone), str(seed), d3ssl.__version__)
    path = folder / "cell.json"
    known = read_json(path) if path.exists() else None
    if isinstance(known, dict) and known.get("fingerprint") == fingerprint:
        say(f"finished already: {folder}")
        return known["metrics"]
    make_folder(folder)
    metrics = task.measure(backbone, seed, folder)
    if rank() == 0:
        write_json(path, {"fingerprint": fingerprint, "seed": seed, "metrics": metrics})
    barrier()
    return metrics


def _result(task: Task, measured: Sequence[Measured], seeds: int) -> dict[str, Any]:
    summaries = {row.name: row.summary(task.measures) for row in measured}
    interval = (
        f"95 %, Student's t over {seeds} seeds and bootstrap over images"
        if seeds > 1
        else "95 %, bootstrap over images, one seed"
    )
    first = measured[0]
    rest = {key: value for key, value in first.cells[0].items() if key not in summaries[first.name]}
    return {
        **summaries[first.name],
        **(rest if seeds == 1 else {}),
        "task": task.name,
        "backbone": first.name,
        "rows": summaries,
        "cells": {row.name: row.cells for row in measured},
        "budget": task.budget(),
        "interval": interval,
        "versions": {"d3ssl": d3ssl.__version__, "torch": torch.__version__, "timm": timm.__version__},
    }


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
    lines = [[m.title + (", %" if m.percent else ""), *(show(m, figures) for figures in summaries)] for m in shown]
    return ["", *(_short(row.name) for row in measured)], lines


def _show(task: Task, measured: Sequence[Measured]) -> None:
    if rank() == 0:
        header, lines = _table(task, measured)
        show_table(f"{task.name}: value [95 % interval]", header, lines)


def verdict(task: Task, measured: Sequence[Measured]) -> list[str]:
    """The first row against each other one by the main figure, in plain sentences."""
    main, first = task.measures[0], measured[0]
    mine = first.summary(task.measures)
    lines = [f"{first.name}: {main.title} {show(main, mine)}{' %' if main.percent else ''}."]
    for other in measured[1:]:
        theirs = other.summary(task.measures)
        better = (mine[main.key] > theirs[main.key]) == main.higher_is_better and mine[main.key] != theirs[main.key]
        word = "better than" if better else "no better than"
        lines.append(f"That is {word} {other.name} ({show(main, theirs)}); {_apart(main.key, mine, theirs)}.")
    return lines


def _apart(key: str, one: dict[str, float], other: dict[str, float]) -> str:
    low, high = f"{key}_low", f"{key}_high"
    if low not in one or low not in other:
        return "there are no intervals"
    apart = one[low] > other[high] or one[high] < other[low]
    return "the intervals do not touch" if apart else "the intervals overlap, so this may be chance"


def _write_report(path: Path, task: Task, measured: Sequence[Measured], result: dict[str, Any]) -> None:
    header, lines = _table(task, measured)
    pictures = [
        page.figure((row.folders[0] / name).read_bytes(), f"{row.name}: {caption}")
        for name, caption in task.captions.items()
        for row in measured
        if (row.folders[0] / name).exists()
    ]
    parts = [
        page.verdict(verdict(task, measured)),
        page.heading("The figures"),
        page.table(header, lines, note=f"value [interval: {result['interval']}]. Every row gets: {result['budget']}"),
        page.figure(_bars(task, measured), "The figures of the table; whiskers: 95 % intervals."),
        page.heading("What they mean"),
        page.definitions((m.title, m.meaning) for m in task.measures),
        *([page.heading("Pictures"), *pictures] if pictures else []),
        page.heading("How it was run"),
        page.facts(
            {"rows": ", ".join(row.name for row in measured), **{k: str(v) for k, v in result["versions"].items()}}
        ),
    ]
    page.write_page(path, f"d3ssl evaluate {task.name}", parts)


def _bars(task: Task, measured: Sequence[Measured]) -> bytes:
    summaries = [row.summary(task.measures) for row in measured]
    shown = [m for m in task.measures if any(m.key in figures for figures in summaries)][:8]
    columns = min(4, len(shown))
    lines = math.ceil(len(shown) / columns)
    plot, axes = plt.subplots(lines, columns, figsize=(2.8 * columns, 2.5 * lines), layout="constrained", squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, measure in zip(axes.flat, shown, strict=False):
        factor = 100 if measure.percent else 1
        for place, figures in enumerate(summaries):
            if measure.key not in figures:
                continue
            value = figures[measure.key]
            ends = (figures.get(f"{measure.key}_low", value), figures.get(f"{measure.key}_high", value))
            error = [[factor * max(value - ends[0], 0)], [factor * max(ends[1] - value, 0)]]
            axis.bar(
                place, factor * value, yerr=error, capsize=4, width=0.7, color=page.COLOURS[place % len(page.COLOURS)]
            )
        axis.set_xticks(range(len(measured)), [_short(row.name) for row in measured], fontsize=7, rotation=20)
        axis.set_title(measure.title + (" (%)" if measure.percent else ""), fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    return page.plot_png(plot)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"…{name[-23:]}"
