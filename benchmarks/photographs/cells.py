"""A cell, row × seed: trained by the command that a user has, and measured by those; everything is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.photographs.rows import REGIONS, ROWS
from d3ssl.evaluate.intervals import DRAWS
from d3ssl.files import read_json, write_json

START = "start"
RANDOM = "random"
PASSES = 3200
"""Views that the student sees, in batches of 16 images: 1600 steps of two views."""
_OBJECTS = ("evaluate", "objects")
_READ = ("--region_path", "map", "--max_train_objects", "null")
_SEGMENT = ("--levels", "1", "--protocols", '["linear"]')


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One command on a cell's backbone."""

    data: str
    """A folder of the set."""
    command: tuple[str, ...]
    options: tuple[str, ...]
    result: str = "metrics.json"


MEASURED = {
    "objects": Measurement(data="scenes", command=_OBJECTS, options=("--size", "160", *_READ)),
    "natural": Measurement(data="natural", command=_OBJECTS, options=("--size", "240", *_READ)),
    "segmentation": Measurement(
        data="natural", command=("evaluate", "segmentation"), options=("--size", "240", *_SEGMENT)
    ),
    "diagnosis": Measurement(
        data="natural/val",
        command=("diagnose",),
        options=("--size", "160", "--region_path", "map", "--layers", "false", "--gradient_objects", "0"),
        result="diagnosis.json",
    ),
    "conditions": Measurement(data="conditions", command=_OBJECTS, options=("--size", "160", *_READ)),
    "pixels": Measurement(
        data="conditions", command=("evaluate", "segmentation"), options=("--size", "160", *_SEGMENT)
    ),
    "detection": Measurement(
        data="conditions",
        command=("evaluate", "detection"),
        options=("--size", "160", "--freeze", "true", "--steps", "2000", "--max_val_images", "null"),
    ),
}
"""The last map of the network is read as it is, by all."""
CHEAP = ("objects", "natural", "segmentation", "diagnosis", "conditions", "pixels")
"""Detection takes longer than all of these, so it is asked for by name."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What all cells share."""

    data: Path
    """From ``benchmarks/photographs/data.py``."""
    set: str
    """``dev`` or ``final``."""
    backbone: str
    """Spec of the start."""
    out: Path
    passes: int = PASSES

    @property
    def train(self) -> str:
        return str(self.data / self.set / "natural" / "train")

    def regions(self, kind: str) -> Path:
        return self.out / f"regions-{kind}.parquet"

    def cell(self, row: str, seed: int) -> Path:
        return self.out / "cells" / name_of(row, self.passes, seed)


def name_of(row: str, passes: int, seed: int) -> str:
    """Of a cell: the start and random weights are not trained."""
    slug = row.replace(", ", "-").replace(" + ", "-").replace(" ", "-")
    return f"{slug}-{seed}" if row in (START, RANDOM) else f"{slug}-{passes}-{seed}"


def claim(work: Work) -> None:
    """Cells of another set or start are never mixed with these."""
    file, own = work.out / "table.json", {"set": work.set, "backbone": work.backbone}
    if file.exists() and read_json(file) != own:
        sys.exit(f"{work.out} holds cells of {read_json(file)}: choose another --out")
    work.out.mkdir(parents=True, exist_ok=True)
    write_json(file, own)


def find_regions(work: Work, kind: str) -> None:
    """Made once."""
    if not work.regions(kind).exists():
        log = work.out / f"regions-{kind}.log"
        _call(log, "regions", work.train, "--out", str(work.regions(kind)), *REGIONS[kind])


def run_cell(work: Work, row: str, seed: int, measured: tuple[str, ...]) -> None:
    """Train unless that is done, and measure what is not measured.

    Raises:
        subprocess.CalledProcessError: a command failed; its log is in the cell.
    """
    cell = work.cell(row, seed)
    cell.mkdir(parents=True, exist_ok=True)
    backbone = work.backbone
    if row == RANDOM:
        backbone = f"{':'.join(work.backbone.split(':')[:2])}:random:{seed}"
    elif row != START:
        backbone = str(_train(work, row, seed, cell))
    for name in measured:
        own = MEASURED[name]
        if not (cell / name / own.result).exists():
            where = ("--data", str(work.data / work.set / own.data), "--out", str(cell / name))
            _call(cell / f"{name}.log", *own.command, backbone, *where, *own.options)


def _train(work: Work, row: str, seed: int, cell: Path) -> Path:
    own, run = ROWS[row], cell / "run"
    if (run / "backbone.safetensors").exists():
        return run
    words = ["--out", str(run), "--train.seed", str(seed), "--train.steps", str(work.passes // own.passes)]
    words += ["--regions", str(work.regions(own.regions)), "--runtime.workers", "0", *own.options]
    words += ["--resume"] if (run / "checkpoint.pt").exists() else []
    command = "pretrain" if own.naive else "posttrain"
    seconds = _call(cell / "train.log", command, work.train, "--model.weights", work.backbone, *words)
    write_json(cell / "cost.json", {"minutes": seconds / 60, "resumed": "--resume" in words})
    return run


def _call(log: Path, *words: str) -> float:
    """CPU seconds of a command of d3ssl, which may use one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "d3ssl", *words]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime + usage.ru_stime


def figures_of(cell: Path) -> dict[str, float]:
    """``task/measure`` → value, of all that was measured, with the strength and the cost."""
    found: dict[str, float] = {}
    for name, own in MEASURED.items():
        if (cell / name / own.result).exists():
            measured: dict[str, Any] = read_json(cell / name / own.result)
            found |= {f"{name}/{key}": float(v) for key, v in measured.items() if isinstance(v, float)}
    if (cell / "run" / "metrics.json").exists():
        trained = read_json(cell / "run" / "metrics.json")
        if "strength" in trained:
            found["strength"] = float(trained["strength"])
    if (cell / "cost.json").exists():
        cost = read_json(cell / "cost.json")
        if not cost["resumed"]:  # else it is of the last part alone
            found["minutes"] = float(cost["minutes"])
    return found


def draws_of(cell: Path) -> dict[str, np.ndarray]:
    """``task/measure`` → its bootstrap draws."""
    found: dict[str, np.ndarray] = {}
    for name in MEASURED:
        for path in (cell / name / "cells").glob(f"*/seed0/{DRAWS}"):
            with np.load(path) as kept:
                found |= {f"{name}/{key}": kept[key] for key in kept.files}
    return found
