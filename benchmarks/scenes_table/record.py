"""A table seed by seed, as a file: for readers, and to go on with where the cells are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.scenes_table.cells import Measured, Work, identify, is_complete, read_cell, read_curves
from benchmarks.scenes_table.rows import ROWS
from d3ssl.errors import InputError
from d3ssl.files import read_json, write_json

Cells = dict[str, dict[int, Measured]]
"""Row → seed → what was measured."""


def write(path: Path, claim: dict[str, Any], work: Work, cells: Cells) -> None:
    """Write the figures of ``cells`` with what they were made by: ``claim`` of the table, the rows' trainings, and each
    cell's commit and machine."""
    rows = {
        row: {
            "training": identify(work, row),
            "seeds": {str(seed): asdict(found) for seed, found in seeds.items()},
        }
        for row, seeds in cells.items()
    }
    write_json(path, {"table": claim, "rows": rows})


def read(path: Path, claim: dict[str, Any], work: Work, rows: Iterable[str]) -> Cells:
    """The complete cells of ``rows`` in a file of ``write``.

    Raises:
        InputError: the file is none of ``write``, is of another budget or of other scenes, or a row was trained
            otherwise.
    """
    found = read_json(path)
    try:
        made, known = found["table"], found["rows"]
        cells = {
            row: {int(seed): Measured(**own) for seed, own in known[row]["seeds"].items()}
            for row in rows
            if row in known
        }
        trainings = {row: known[row]["training"] for row in cells}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        remedy = "give a figures.json of an --out, or what --write put beside a document."
        raise InputError(f"is not a table seed by seed ({error!r})", path=path, remedy=remedy) from error
    if any(made.get(key) != value for key, value in claim.items()):
        problem = "is of another budget or of other scenes"
        raise InputError(problem, path=path, remedy="leave it out, or give the scenes and budget it names.")
    for row, training in trainings.items():
        if training != identify(work, row):
            problem = f"holds {row!r} of another recipe or other options"
            raise InputError(problem, path=path, remedy="leave the file out, or check out the commit it names.")
    complete = {
        row: {seed: own for seed, own in seeds.items() if is_complete(work, own)} for row, seeds in cells.items()
    }
    return {row: seeds for row, seeds in complete.items() if seeds}


def gather(work: Work) -> Cells:
    """What there is in ``work.out``, whichever call made it."""
    endings = {folder.name.rpartition("-")[2] for folder in (work.out / "cells").glob("*-*")}
    seeds = sorted(int(ending) for ending in endings if ending.isdecimal())
    cells: Cells = {}
    for row in ROWS:
        for seed in seeds:
            if (found := read_cell(work, row, seed)) is not None:
                cells.setdefault(row, {})[seed] = found
    return cells


def gather_curves(work: Work, cells: Cells, measures: Iterable[str]) -> dict[str, list[list[dict[str, Any]]]]:
    """Row → the lines of its trainings' logs, of those in ``work.out`` that logged all ``measures``."""
    wanted, found = set(measures), {}
    for row, seeds in cells.items():
        for seed in seeds:
            lines = read_curves(work, row, seed)
            if {name for line in lines for name, value in line.items() if value is not None} >= wanted:
                found.setdefault(row, []).append(lines)
    return found
