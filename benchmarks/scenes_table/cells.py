"""A cell of the table, row × seed: trained, evaluated and diagnosed by the commands that a user has, each kept."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.scenes_table.budgets import Budget
from benchmarks.scenes_table.rows import REGIONS, ROWS
from d3ssl.files import read_json
from d3ssl.train import read_log, training_seconds

DIAGNOSED = ("context_sensitivity", "position_sensitivity", "neighbour_leakage", "position_r2")
EVALUATED = {
    "objects": ("o_knn", "o_knn_shuffled", "context_gap", "linear", "linear_shuffled"),
    "segmentation": ("linear_miou", "linear_miou_shuffled", "retrieval_miou", "retrieval_miou_shuffled"),
    "detection": ("box_ap", "box_ap_shuffled", "mask_ap", "mask_ap_shuffled"),
}
COST = ("images_per_s", "training_s")


class OutOfTime(Exception):
    """The call's time is used up, or it was told to stop; the next one goes on."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What all cells share."""

    scenes: Path
    out: Path
    budget: Budget
    threads: int
    """Of each cell's processes."""
    end: float
    """When to stop, by ``time.monotonic()``."""
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    """The processes of the cells."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self, *_: object) -> None:
        """End all cells, as a signal handler: a training saves a checkpoint, and no process is left behind."""
        self.stopped.set()
        for process in list(self.running):
            process.send_signal(signal.SIGTERM)


def compute_regions(work: Work, kind: str) -> Path:
    """The regions file of a kind, made once."""
    path = work.out / f"regions-{kind}.parquet"
    if not path.exists():
        words = ("regions", f"{work.scenes}/train", "--out", str(path), *REGIONS[kind])
        _call(work, work.out / f"regions-{kind}.log", "d3ssl", *words)
    return path


def run_cell(work: Work, row: str, seed: int) -> dict[str, float]:
    """Train unless that is done, measure what is not measured, and read all figures.

    Raises:
        OutOfTime: before all is there; what is there stays.
    """
    folder = work.out / "cells" / f"{_slug(row)}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, float] = {}
    backbone = f"timm:{work.budget.backbone}:random:{seed}"
    if ROWS[row].trained:
        backbone = str(_train(work, row, seed, folder))
        found |= _cost(Path(backbone))
    reading = ("--region_path", work.budget.region_path, "--roi_size", work.budget.roi_size)
    size, drawn = ("--size", work.budget.size), ("--seed", str(seed))
    for task, options in work.budget.evaluate.items():
        words = ["--backbone", backbone, "--data", str(work.scenes), *size, *options]
        words += [*reading, *drawn] if task == "objects" else drawn if task == "segmentation" else []
        figures = _measured(work, folder / task, "metrics.json", "evaluate", task, *words)
        found |= {key: figures[key] for key in EVALUATED[task]}
    words = ["--backbone", backbone, "--data", f"{work.scenes}/val", "--layers", "false", *size, *work.budget.diagnose]
    figures = _measured(work, folder / "diagnosis", "diagnosis.json", "diagnose", *words, *reading, *drawn)
    return found | {key: figures[key] for key in DIAGNOSED}


def _train(work: Work, row: str, seed: int, folder: Path) -> Path:
    run = folder / "run"
    if (run / "backbone.safetensors").exists():
        return run
    words = ["--recipe", work.budget.recipe, "--data", f"{work.scenes}/train", "--out", str(run)]
    words += ["--regions", str(compute_regions(work, ROWS[row].regions)), "--train.seed", str(seed)]
    words += ["--runtime.workers", "0", *work.budget.options, *ROWS[row].options]
    resume = ["--resume"] if run.is_dir() else []
    _call(work, folder / "train.log", *ROWS[row].trainer, *words, *resume)
    return run


def _cost(run: Path) -> dict[str, float]:
    """Of the training steps alone."""
    batch = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["train"]["batch_size"]
    lines = read_log(run)
    seconds = training_seconds(lines, batch)
    return {"images_per_s": lines[-1]["step"] * batch / seconds, "training_s": seconds}


def _measured(work: Work, out: Path, name: str, *words: str) -> dict[str, Any]:
    if not (out / name).exists():
        _call(work, out.with_suffix(".log"), "d3ssl", *words, "--out", str(out))
    return read_json(out / name)


def _call(work: Work, log: Path, module: str, *words: str) -> None:
    """Run a module as a command; at the end of the time it is told to stop, and a training saves a checkpoint."""
    left = work.end - time.monotonic()
    if left <= 0 or work.stopped.is_set():
        raise OutOfTime
    environment = os.environ | {"OMP_NUM_THREADS": str(work.threads), "MKL_NUM_THREADS": str(work.threads)}
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"\n$ python -m {module} {' '.join(words)}\n")
        file.flush()
        # In a session of its own: Ctrl-C reaches it by ``Work.stop`` only, once.
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words], env=environment, stdout=file, stderr=file, start_new_session=True
        )
        work.running.add(process)
        if work.stopped.is_set():  # told while it was started
            process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(None if math.isinf(left) else left)
        except subprocess.TimeoutExpired as error:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise OutOfTime from error
        finally:
            process.kill()
            work.running.discard(process)
    if status and work.stopped.is_set():
        raise OutOfTime
    if status:
        raise SystemExit(f"{module} {words[0]} ended with {status}: see {log}")


def _slug(row: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in row).strip("-").lower()
