"""The tables of the photographs benchmark from cells with known figures, and their record."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.document import get
from benchmarks.photographs import record, table
from benchmarks.photographs.cells import RANDOM, START, draws_of, figures_of, name_of
from benchmarks.photographs.rows import REGIONS, ROWS
from d3ssl.errors import InputError
from d3ssl.evaluate.intervals import save_draws
from d3ssl.files import write_json
from d3ssl.train.recipe import run_config

ROOT = Path(__file__).parents[2]
OF_OBJECTS = {key for key in table.columns() if key.startswith("objects/")}


def cell(row: str, seed: int, o_knn: float, draws: np.ndarray) -> record.Cell:
    figures = dict.fromkeys(OF_OBJECTS, o_knn)
    figures |= {} if row == START else {"strength": 0.5, "minutes": 20.0 + seed}
    return record.Cell(row=row, passes=3200, seed=seed, figures=figures, draws=dict.fromkeys(OF_OBJECTS, draws))


def record_of(*cells: record.Cell) -> record.Record:
    return {name_of(own.row, own.passes, own.seed): own for own in cells}


def test_differences_are_of_pairs() -> None:
    """The row is better by .1 in every draw, so the draws of images add nothing to what the seeds make."""
    noise = np.random.default_rng(0).normal(0.2, 0.05, 1000)
    rows = [cell("host", seed, 0.2 + more, noise + 0.1) for seed, more in enumerate((0.08, 0.10, 0.12))]
    half = 4.303 * 0.02 / np.sqrt(3)  # Student's t of two degrees of freedom
    lines = table.markdown(record_of(cell(START, 0, 0.2, noise), *rows), "posttrain", ["host"], 3200).splitlines()
    assert f"| host (3) | +10.0 ± {100 * half:.1f} |" in lines[-1]
    assert lines[-1].endswith("0.5, 0.5, 0.5 | 21 |")
    assert "| start | 0.200 |" in lines[-2] and "| – | – | 0 | – |" in lines[-2]


def test_images_make_the_interval_of_one_seed() -> None:
    """Percentiles of the paired draws: uniform within ±.05 of the difference, of which 95 % are within ±.0475."""
    drawn, even = np.full(1001, 0.2), np.linspace(-0.05, 0.05, 1001)
    rows = record_of(cell(START, 0, 0.2, drawn), cell("host", 0, 0.3, drawn + 0.1 + even))
    (column,) = (own for own in table.TABLES["posttrain"] if own.key == "objects/o_knn")
    found = table.change([rows[f"{START}-0"]], [rows["host-3200-0"]], column)
    assert found is not None and found.value == pytest.approx(10) and found.half == pytest.approx(4.75)


def test_a_drop_is_a_difference_of_figures() -> None:
    """From (a) to (d): 30 points before, 20 after."""
    (column,) = (own for own in table.TABLES["o_knn"] if own.minus is not None)
    cells = [
        record.Cell(row=row, passes=1, seed=0, figures={column.key: 0.6, str(column.minus): far})
        for row, far in ((START, 0.3), ("host", 0.4))
    ]
    found = table.change(cells[:1], cells[1:], column)
    assert found is not None and found.value == pytest.approx(-10) and str(found) == "-10.0"


def test_other_lengths_and_missing_cells_are_left_out() -> None:
    draws = np.full(100, 0.2)
    cells = record_of(cell(START, 0, 0.2, draws), cell("host", 1, 0.3, draws + 0.1))
    assert "| host (1) | +10.0 ± 0.0 |" in table.markdown(cells, "posttrain", ["host", "DP"], 3200).splitlines()[-1]
    assert "host" not in table.markdown(cells, "posttrain", ["host"], 1600)
    assert table.markdown(cells, "miou", ["host"], 3200) == ""


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).uniform(0, 1, 500)
    cells = record_of(cell(START, 0, 0.2, draws), cell("host", 0, 0.3, draws))
    record.write(tmp_path / "record.zip", cells, table.columns())
    first = (tmp_path / "record.zip").read_bytes()
    found = record.read(tmp_path / "record.zip")
    assert found.keys() == cells.keys()
    for name, own in cells.items():
        assert found[name].figures == own.figures and found[name].row == own.row
        assert own.has(["objects"]) and not own.has(["objects", "natural"])
        for key, value in own.draws.items():
            np.testing.assert_allclose(found[name].draws[key], value, atol=2**-16)
    record.write(tmp_path / "record.zip", found, table.columns())
    assert (tmp_path / "record.zip").read_bytes() == first
    (tmp_path / "record.zip").write_bytes(first[:100])
    with pytest.raises(InputError, match=r"record\.zip.*is not a record of cells"):
        record.read(tmp_path / "record.zip")


def test_a_cell_is_gathered_from_its_folder(tmp_path: Path) -> None:
    kept = tmp_path / "objects" / "cells" / "backbone" / "seed0"
    kept.mkdir(parents=True)
    save_draws(kept, {"o_knn": np.array([0.1, 0.3])})
    write_json(tmp_path / "objects" / "metrics.json", {"o_knn": 0.2, "data": "photos"})
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "metrics.json", {"strength": 0.5})
    write_json(tmp_path / "cost.json", {"minutes": 3.0, "resumed": False})
    assert figures_of(tmp_path) == {"objects/o_knn": 0.2, "strength": 0.5, "minutes": 3.0}
    np.testing.assert_array_equal(draws_of(tmp_path)["objects/o_knn"], [0.1, 0.3])
    write_json(tmp_path / "cost.json", {"minutes": 3.0, "resumed": True})  # what came before is not in it
    assert "minutes" not in figures_of(tmp_path)


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


def test_the_results_are_those_of_the_record() -> None:
    """Every table of the document is what the committed record gives."""
    cells, tables = record.read(ROOT / "docs" / "data" / "photographs.zip"), 0
    for name, passes in itertools.product(table.TABLES, (800, 1600, 3200)):
        shown = get(ROOT / "docs" / "results.md", f"{name}-{passes}", by="benchmarks/photographs")
        if shown is not None:
            assert shown == table.markdown(cells, name, [RANDOM, *ROWS], passes), (name, passes)
            tables += 1
    assert tables
