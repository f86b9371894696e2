"""Several backbones measured alike: rows (backbones) × seeds, each cell kept, with intervals and a page to look at."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch

import d3ssl
from d3ssl.console import say, warn
from d3ssl.distributed import barrier, rank
from d3ssl.errors import InputError
from d3ssl.evaluate.cache import weights_digest
from d3ssl.evaluate.report import show_figures, write_report
from d3ssl.evaluate.task import Measured, Task
from d3ssl.files import digest, make_folder, read_json, write_json
from d3ssl.models import Backbone, load_backbone

RANDOM = "random"
"""The baseline of this name: the same network as the first backbone's, read alike, with random weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One backbone of a comparison."""

    name: str
    load: Callable[[int], Backbone]
    """Seed → backbone."""


def make_rows(
    backbone: Backbone | str | Path, baselines: Sequence[str], reading: dict[str, Any], size: int | None = None
) -> list[Row]:
    """The backbone and its baselines.

    Args:
        backbone: itself (then without baselines), or its spec.
        baselines: specs as of ``load_backbone``, or ``random``.
        reading: options of ``load_backbone`` that hold for all rows.
        size: of the images, px, that all rows see; None: each sees its own input size, which is said where they differ.

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

    sizes = {spec: first.input_size} | {name: load(name)(0).input_size for name in baselines}
    if size is None and len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} at {side} px" for name, side in sizes.items())
        remedy = f"give all of them the same, such as --size {max(sizes.values())}, or mind it when you compare."
        warn(f"the backbones see images of different sizes: {shown}", remedy)
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
        write_report(root / "report.html", task, measured, result)
    barrier()
    show_figures(task, measured)
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
    if (known := _kept(path, fingerprint)) is not None:
        say(f"finished already: {folder}")
        return known
    make_folder(folder)
    metrics = task.measure(backbone, seed, folder)
    if rank() == 0:
        write_json(path, {"fingerprint": fingerprint, "seed": seed, "metrics": metrics})
    barrier()
    return metrics


def _kept(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The figures of a cell that was measured before, with the same weights, data and options."""
    if not path.exists():
        return None
    try:
        found = read_json(path)
    except InputError as error:
        warn(f"{path}: a kept result cannot be used ({error.problem}); it is measured again")
        return None
    if not isinstance(found, dict) or found.get("fingerprint") != fingerprint:
        return None
    return found["metrics"] if isinstance(found.get("metrics"), dict) else None


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
