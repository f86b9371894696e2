"""What post-training changes, against the start: rows trained and measured over seeds, every cell kept.

    python -m benchmarks.posttrain.table DATA --backbone timm:efficientnet_lite0:lite0.pth --out DIR
        [--set dev|final] [--rows ROW ...] [--seeds 3] [--passes 3200] [--write docs/results.md]

DATA comes from ``benchmarks/posttrain/data.py``. A cell (row × seed) is trained on DATA/SET/natural/train by
``d3ssl posttrain``, its strength chosen there, and measured by the commands that a user has: objects out of context
(DATA/SET/scenes, remembered from their own photographs), objects and pixels in context (DATA/SET/natural), context and
position sensitivity. Regions and features are read from the plain last map. Run the command again after a stop, and it
goes on. Differences are from the start, in points; their 95 % intervals join what the seeds make (Student's t) and what
the tested images make (bootstrap of pairs) in quadrature.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np

from benchmarks.posttrain.rows import REGIONS, ROWS
from benchmarks.scenes_table.table import put
from d3ssl.evaluate.intervals import DRAWS, half_width
from d3ssl.files import read_json, write_json

START = "start"
READ = ("--region_path", "map")
MEASURED = {
    "objects": ("scenes", ("evaluate", "objects"), ("--size", "160", *READ, "--max_train_objects", "null")),
    "natural": ("natural", ("evaluate", "objects"), ("--size", "240", *READ, "--max_train_objects", "null")),
    "segmentation": (
        "natural",
        ("evaluate", "segmentation"),
        ("--size", "240", "--levels", "1", "--protocols", '["linear"]'),
    ),
    "diagnosis": (
        "natural/val",
        ("diagnose",),
        ("--size", "160", *READ, "--layers", "false", "--gradient_objects", "0", "--neighbour_classes", "0"),
    ),
}
"""Name → data, command, options."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure."""

    title: str
    task: str
    key: str


COLUMNS = (
    Column(title="O-KNN out of context", task="objects", key="o_knn"),
    Column(title="shuffled", task="objects", key="o_knn_shuffled"),
    Column(title="linear out of context", task="objects", key="linear"),
    Column(title="shuffled", task="objects", key="linear_shuffled"),
    Column(title="O-KNN in context", task="natural", key="o_knn"),
    Column(title="linear in context", task="natural", key="linear"),
    Column(title="linear mIoU", task="segmentation", key="linear_miou"),
    Column(title="context sensitivity", task="diagnosis", key="context_sensitivity"),
    Column(title="position sensitivity", task="diagnosis", key="position_sensitivity"),
)


def main() -> None:
    options = _parse()
    options.out.mkdir(parents=True, exist_ok=True)
    _claim(options)
    for kind in sorted({ROWS[row].regions for row in options.rows}):
        regions = _regions(options, kind)
        if not regions.exists():
            _call(
                options,
                options.out / f"regions-{kind}.log",
                "regions",
                _train(options),
                "--out",
                str(regions),
                *REGIONS[kind],
            )
    cells = [(START, 0), *((row, seed) for seed in range(options.seeds) for row in options.rows)]
    with ThreadPoolExecutor(options.processes) as pool:
        failed = [error for error in pool.map(lambda cell: _run(options, *cell), cells) if error]
    text = table(options)
    sys.stdout.write(text + "\n")
    if options.write is not None:
        put(options.write, options.name, text)
    if failed:
        sys.exit("\n".join(["failed:", *failed]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.posttrain.table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", choices=("dev", "final"), default="dev", help="options are chosen on dev alone")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=["DC"], metavar="ROW")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=3200, help="views that the student sees, in batches of 16 images")
    parser.add_argument("--measure", nargs="+", choices=list(MEASURED), default=list(MEASURED))
    parser.add_argument("--processes", type=int, default=2, help="cells at a time, each with one thread")
    parser.add_argument("--write", type=Path, help="document to put the table into")
    parser.add_argument("--name", default="posttrain", help="of the table in the document")
    return parser.parse_args()


def _claim(options: argparse.Namespace) -> None:
    """Cells of another set, start or length are never mixed with these."""
    file, own = options.out / "table.json", {"set": options.set, "backbone": options.backbone, "passes": options.passes}
    if file.exists() and read_json(file) != own:
        sys.exit(f"{options.out} holds a table of {read_json(file)}: choose another --out")
    write_json(file, own)


def _run(options: argparse.Namespace, row: str, seed: int) -> str | None:
    """Train unless that is done, and measure what is not measured; what failed, if anything did."""
    cell = _cell(options, row, seed)
    cell.mkdir(parents=True, exist_ok=True)
    try:
        backbone = options.backbone
        if row != START:
            backbone = str(cell / "run")
            _train_cell(options, row, seed, cell)
        for name in options.measure:
            data, command, more = MEASURED[name]
            if not _result(cell, name).exists():
                where = ("--data", str(options.data / options.set / data), "--out", str(cell / name))
                _call(options, cell / f"{name}.log", *command, backbone, *where, *more)
    except subprocess.CalledProcessError as error:
        return f"{row}, seed {seed}: {' '.join(map(str, error.cmd))}: see the logs in {cell}"
    sys.stderr.write(f"done: {row}, seed {seed}\n")
    return None


def _train_cell(options: argparse.Namespace, row: str, seed: int, cell: Path) -> None:
    own, run = ROWS[row], cell / "run"
    if (run / "backbone.safetensors").exists():
        return
    words = ["--out", str(run), "--train.seed", str(seed), "--train.steps", str(options.passes // own.passes)]
    words += ["--regions", str(_regions(options, own.regions)), "--runtime.workers", "0", *own.options]
    words += ["--resume"] if (run / "checkpoint.pt").exists() else []
    started = time.monotonic()
    command = "pretrain" if own.naive else "posttrain"
    _call(options, cell / "train.log", command, _train(options), "--model.weights", options.backbone, *words)
    write_json(cell / "cost.json", {"minutes": (time.monotonic() - started) / 60})


def _call(options: argparse.Namespace, log: Path, *words: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "d3ssl", *words]
        subprocess.run(command, check=True, stdout=stream, stderr=subprocess.STDOUT, env=environment)


def _train(options: argparse.Namespace) -> str:
    return str(options.data / options.set / "natural" / "train")


def _regions(options: argparse.Namespace, kind: str) -> Path:
    return options.out / f"regions-{kind}.parquet"


def _cell(options: argparse.Namespace, row: str, seed: int) -> Path:
    return options.out / "cells" / f"{row.replace(', ', '-').replace(' + ', '-').replace(' ', '-')}-{seed}"


def _result(cell: Path, name: str) -> Path:
    return cell / name / ("diagnosis.json" if name == "diagnosis" else "metrics.json")


def table(options: argparse.Namespace) -> str:
    """Markdown: the start's figures, then every row's differences from them."""
    start = _cell(options, START, 0)
    shown = [column for column in COLUMNS if _result(start, column.task).exists()]
    lines = [f"| | {' | '.join(column.title for column in shown)} | strength | minutes |"]
    lines.append("|---" * (len(shown) + 3) + "|")
    values = [f"{read_json(_result(start, column.task))[column.key]:.3f}" for column in shown]
    lines.append(f"| start | {' | '.join(values)} | – | – |")
    for row in options.rows:
        every = (_cell(options, row, seed) for seed in range(options.seeds))
        cells = [cell for cell in every if all(_result(cell, column.task).exists() for column in shown)]
        if cells:
            differences = [_difference(start, cells, column) for column in shown]
            strengths = [read_json(cell / "run" / "metrics.json")["strength"] for cell in cells if row != "naive"]
            minutes = [read_json(cell / "cost.json")["minutes"] for cell in cells if (cell / "cost.json").exists()]
            own = f"{', '.join(f'{s:g}' for s in strengths) or '–'} | {mean(minutes):.0f}" if minutes else "– | –"
            lines.append(f"| {row} ({len(cells)}) | {' | '.join(differences)} | {own} |")
    head = f"Set `{options.set}`, {options.passes} passes of 16 images. Differences from the start; in brackets: seeds."
    return "\n".join([head, "", *lines])


def _difference(start: Path, cells: list[Path], column: Column) -> str:
    """Points, or per cent of the start's for a sensitivity."""
    before = read_json(_result(start, column.task))[column.key]
    changes = [read_json(_result(cell, column.task))[column.key] - before for cell in cells]
    scale = 100 / before if column.task == "diagnosis" else 100
    parts = [half_width(changes)] if len(changes) > 1 else []
    if column.task != "diagnosis":
        draws = [_draws(cell, column) - _draws(start, column) for cell in cells]
        low, high = np.percentile(np.mean(draws, axis=0), [2.5, 97.5])
        parts.append(float(high - low) / 2)
    half = f" ± {scale * math.hypot(*parts):.1f}" if parts else ""
    return f"{scale * mean(changes):+.1f}{' %' if column.task == 'diagnosis' else ''}{half}"


def _draws(cell: Path, column: Column) -> np.ndarray:
    (path,) = (cell / column.task / "cells").glob(f"*/seed0/{DRAWS}")
    return np.load(path)[column.key]


if __name__ == "__main__":
    main()
