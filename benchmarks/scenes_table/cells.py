"""A cell of the table, row × seed: trained, evaluated and diagnosed by the commands that a user has, each kept."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.scenes_table.budgets import Budget
from benchmarks.scenes_table.rows import BLURRED, REGIONS, ROWS
from d3ssl.files import read_json, write_json
from d3ssl.options import read_recipe
from d3ssl.train import read_log, training_seconds

DIAGNOSED = ("context_sensitivity", "position_sensitivity", "neighbour_leakage", "position_r2")
EVALUATED = {
    "objects": ("o_knn", "o_knn_shuffled", "context_gap", "linear", "linear_shuffled"),
    "segmentation": ("linear_miou", "linear_miou_shuffled", "retrieval_miou", "retrieval_miou_shuffled"),
    "detection": ("box_ap", "box_ap_shuffled", "mask_ap", "mask_ap_shuffled"),
}
UNSEEN = {"o_knn_unseen": "o_knn", "o_knn_shuffled_unseen": "o_knn_shuffled"}
"""Measures on ``Work.unseen`` → their names in the evaluation."""
STRIDES = {"position_sensitivity_strides": "position_sensitivity"}
"""Measure at places that are whole strides apart → its name in the diagnosis."""
COST = ("images_per_s", "training_s")


class OutOfTime(Exception):
    """The call's time is used up, or it was told to stop; the next one goes on."""


class CellFailed(Exception):
    """A command of a cell failed, or the cell is of another training; the message names the remedy."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What all cells share."""

    scenes: Path
    out: Path
    budget: Budget
    threads: int
    """Of each cell's processes."""
    workers: int = 0
    """That load the images of a training; 0: itself. Changes no result."""
    unseen: Path | None = None
    """Scenes with the same training split, and validation splits on photographs that it does not show."""
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


def run_cell(work: Work, row: str, seed: int) -> None:
    """Train unless that is done, and measure what is not measured.

    Raises:
        OutOfTime: before all is there; what is there stays.
        CellFailed: a command failed, or what is there was trained otherwise.
    """
    folder = _folder(work, row, seed)
    _claim(work, row, folder)
    backbone = (
        str(_train(work, row, seed, folder)) if ROWS[row].trained else f"timm:{_network(work, row)}:random:{seed}"
    )
    for own in _measurements(work, seed):
        if not own.result(folder).exists():
            words = (*own.command, "--backbone", backbone, *own.options, "--out", str(folder / own.name))
            _call(work, folder / f"{own.name}.log", _commands(row), *words)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of a cell."""

    figures: dict[str, float]
    """Measure → value."""
    commit: str
    """By which the cell was begun."""
    machine: str
    """On which."""


def read_cell(work: Work, row: str, seed: int) -> Measured | None:
    """The figures of a cell that are there; None if there is none, or if it was trained otherwise."""
    folder, figures = _folder(work, row, seed), {}
    if not (folder / "cell.json").exists():
        return None
    known = read_json(folder / "cell.json")
    if not _is_of(work, row, known):
        return None
    for own in _measurements(work, seed):
        if own.result(folder).exists():
            found = read_json(own.result(folder))
            figures |= {name: found[source] for name, source in own.figures.items()}
    if not figures:
        return None
    return Measured(
        figures=figures | (_cost(folder / "run") if ROWS[row].trained else {}),
        commit=known["commit"],
        machine=known.get("machine", "machine not recorded"),
    )


def read_curves(work: Work, row: str, seed: int) -> list[dict[str, Any]]:
    """The lines of a training's log; none, where it is not in this folder."""
    run = _folder(work, row, seed) / "run"
    return read_log(run) if (run / "log.jsonl").exists() else []


def is_complete(work: Work, found: Measured | None) -> bool:
    """Whether all is there that is measured of a cell."""
    wanted = {name for own in _measurements(work, 0) for name in own.figures}
    return found is not None and wanted <= found.figures.keys()


@dataclass(frozen=True, kw_only=True)
class _Measurement:
    """One command on a cell's backbone."""

    name: str
    """Of its folder in the cell, and of its log."""
    command: tuple[str, ...]
    options: tuple[str, ...]
    file: str = "metrics.json"
    figures: dict[str, str]
    """Measures → their names in the file."""

    def result(self, folder: Path) -> Path:
        """The file, written last."""
        return folder / self.name / self.file


_PLACE_ONLY = ("--gradient_objects", "0", "--neighbour_classes", "0", "--other_sides", "[]", "--contexts", "2")
"""Options of ``d3ssl diagnose`` with which little more than the place is probed."""


def _measurements(work: Work, seed: int) -> list[_Measurement]:
    """All that is measured of a cell, in the order of the commands."""
    budget = work.budget
    size, drawn = ("--size", budget.size), ("--seed", str(seed))
    reading = ("--region_path", budget.region_path, "--roi_size", budget.roi_size)
    read = {"objects": (*reading, *drawn), "segmentation": drawn, "detection": ()}

    def evaluation(name: str, task: str, data: Path, figures: dict[str, str]) -> _Measurement:
        options = ("--data", str(data), *size, *budget.evaluate[task], *read[task])
        return _Measurement(name=name, command=("evaluate", task), options=options, figures=figures)

    def diagnosis(name: str, figures: dict[str, str], *more: str) -> _Measurement:
        data = ("--data", f"{work.scenes}/val", "--layers", "false")
        options = (*data, *size, *budget.diagnose, *reading, *drawn, *more)
        return _Measurement(name=name, command=("diagnose",), options=options, file="diagnosis.json", figures=figures)

    found = [evaluation(task, task, work.scenes, {name: name for name in EVALUATED[task]}) for task in budget.evaluate]
    if work.unseen is not None:
        found.append(evaluation("unseen", "objects", work.unseen, UNSEEN))
    found.append(diagnosis("diagnosis", {name: name for name in DIAGNOSED}))
    found.append(diagnosis("strides", STRIDES, "--place_step", budget.place_step, *_PLACE_ONLY))
    return found


def _folder(work: Work, row: str, seed: int) -> Path:
    return work.out / "cells" / f"{_slug(row)}-{seed}"


def _claim(work: Work, row: str, folder: Path) -> None:
    """A cell that another recipe, other options or regions made is never read as this one."""
    known = folder / "cell.json"
    if not known.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(known, identify(work, row) | {"commit": _commit(), "machine": _machine()})
    elif not _is_of(work, row, read_json(known)):
        raise CellFailed(f"{folder} was made by another recipe or another row: delete it, or choose another --out")


def _is_of(work: Work, row: str, known: dict[str, Any]) -> bool:
    return {key: value for key, value in known.items() if key not in ("commit", "machine")} == identify(work, row)


def identify(work: Work, row: str) -> dict[str, Any]:
    """What a row's training depends on, beside the scenes and the seed."""
    own, budget = ROWS[row], work.budget
    if not own.trained:
        return {"row": row, "backbone": _network(work, row)}
    recipe = [line for line in read_recipe(budget.recipe).splitlines() if not line.startswith("#")]
    options = [*budget.options, *_options(work, row)]
    trained = {
        "trainer": ["d3ssl", "pretrain"],
        "recipe": recipe,
        "options": options,
        "steps": _steps(work, row),
    }
    return {"row": row, "regions": list(REGIONS[own.regions])} | trained


def _network(work: Work, row: str) -> str:
    """timm's name of a row's network."""
    return (BLURRED if ROWS[row].blurred else "") + work.budget.backbone


def _options(work: Work, row: str) -> list[str]:
    """Of a row's training, over the budget's."""
    named = ["--model.backbone", _network(work, row)] if ROWS[row].blurred else []
    return [*named, *ROWS[row].options]


def _commands(row: str) -> str:
    """The module whose commands know a row's network."""
    return "benchmarks.scenes_table.blurred" if ROWS[row].blurred else "d3ssl"


def _commit() -> str:
    """Of the code that runs, with a mark if it was changed since."""
    unknown = "unknown (not in a clone)"
    if shutil.which("git") is None:
        return unknown
    words = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    found = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() or unknown


def _machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{device}, torch {torch.__version__}"


def _steps(work: Work, row: str) -> int:
    return max(1, round(work.budget.steps * ROWS[row].longer))


def _train(work: Work, row: str, seed: int, folder: Path) -> Path:
    run = folder / "run"
    if (run / "manifest.json").exists():  # written last
        return run
    words = ["--recipe", work.budget.recipe, "--data", f"{work.scenes}/train", "--out", str(run)]
    words += ["--regions", str(compute_regions(work, ROWS[row].regions)), "--train.seed", str(seed)]
    words += ["--train.steps", str(_steps(work, row)), "--runtime.workers", str(work.workers)]
    words += [*work.budget.options, *_options(work, row)]
    resume = ["--resume"] if run.is_dir() else []
    _call(work, folder / "train.log", _commands(row), "pretrain", *words, *resume)
    return run


def _cost(run: Path) -> dict[str, float]:
    """Of the training steps alone."""
    batch = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["train"]["batch_size"]
    lines = read_log(run)
    seconds = training_seconds(lines, batch)
    return {"images_per_s": lines[-1]["step"] * batch / seconds, "training_s": seconds}


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
        raise CellFailed(f"{module} {words[0]} ended with {status}: see {log}")


def _slug(row: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in row).strip("-").lower()
