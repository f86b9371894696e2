"""The table of post-training from cells with known figures."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from benchmarks.posttrain import table
from benchmarks.posttrain.rows import REGIONS, ROWS
from d3ssl.evaluate.intervals import save_draws
from d3ssl.files import write_json
from d3ssl.train.recipe import run_config


def cell(options: argparse.Namespace, row: str, seed: int, o_knn: float, draws: np.ndarray) -> None:
    folder = options.out / "cells" / f"{row}-{seed}"
    kept = folder / "objects" / "cells" / "backbone" / "seed0"
    kept.mkdir(parents=True)
    keys = [column.key for column in table.COLUMNS if column.task == "objects"]
    write_json(folder / "objects" / "metrics.json", dict.fromkeys(keys, o_knn))
    save_draws(kept, dict.fromkeys(keys, draws))
    (folder / "run").mkdir()
    write_json(folder / "run" / "metrics.json", {"strength": 0.5})
    write_json(folder / "cost.json", {"minutes": 20.0 + seed})


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(out=tmp_path, set="dev", passes=3200, rows=["host"], seeds=3)


def test_differences_are_of_pairs(options: argparse.Namespace) -> None:
    """The row is better by .1 in every draw, so the draws of images add nothing to what the seeds make."""
    noise = np.random.default_rng(0).normal(0.2, 0.05, 1000)
    cell(options, table.START, 0, 0.2, noise)
    for seed, more in enumerate((0.08, 0.10, 0.12)):
        cell(options, "host", seed, 0.2 + more, noise + 0.1)
    half = 4.303 * 0.02 / np.sqrt(3)  # Student's t of two degrees of freedom
    lines = table.table(options).splitlines()
    assert f"| host (3) | +10.0 ± {100 * half:.1f} |" in lines[-1]
    assert lines[-1].endswith("0.5, 0.5, 0.5 | 21 |")
    assert "| start | 0.200 |" in lines[-2]


def test_cells_that_are_not_there_are_left_out(options: argparse.Namespace) -> None:
    draws = np.full(100, 0.2)
    cell(options, table.START, 0, 0.2, draws)
    cell(options, "host", 1, 0.3, draws + 0.1)
    assert "| host (1) | +10.0 ± 0.0 |" in table.table(options).splitlines()[-1]


@pytest.mark.parametrize("name", list(ROWS))
def test_every_row_is_a_plan(name: str, tmp_path: Path) -> None:
    own = ROWS[name]
    words = ["--data", str(tmp_path), "--out", str(tmp_path), "--model.weights", "start", *own.options]
    plan = run_config(words if own.naive else ["--recipe", "posttrain", *words]).plan
    assert sum(bool(heads) for heads in _student_views(plan)) == own.passes
    assert own.regions in REGIONS


def _student_views(plan: object) -> list[set[str]]:
    views: dict[str, set[str]] = {}
    for name, objective in plan.objectives.items():  # type: ignore[attr-defined]
        for pair in objective.pairs:
            views.setdefault(pair.student, set()).add(name)
    return list(views.values())
