"""Random initialisation, the host, each module by itself and D3SSL after the same number of steps, over seeds.

    d3ssl scenes photo --cutouts CUTOUTS --backgrounds PHOTOGRAPHS --images 3000 --size 96 ...
    python benchmarks/host_vs_d3ssl.py photo --out results/ [--recipe scenes-photo] [--seeds 3] [--steps 400]
        [--rows random host d3ssl] [--processes 2]

Every cell (row × seed) is a process of its own on one thread, kept in OUT and not computed twice. Prints, for each
measurement, the mean over the seeds and its 95 % interval (Student's t over seeds: weights, order, views and probes
vary, the scenes do not), and writes OUT/table.json and OUT/table.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

from d3ssl.evaluate.intervals import half_width
from d3ssl.files import read_json, write_json, write_text

SWITCHES = {
    "host": ("false", "false"),
    "host + DC": ("true", "false"),
    "host + DP": ("false", "true"),
    "d3ssl": ("true", "true"),
}
MEASURES = (
    "o_knn", "o_knn_shuffled", "context_gap", "linear", "linear_shuffled",
    "context_sensitivity", "position_sensitivity",
)  # fmt: skip


def run_cell(row: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Train (unless random), evaluate and diagnose; a finished cell is read back."""
    folder = Path(options.out) / f"{row.replace(' ', '')}-{seed}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def call(*words: str) -> None:
        with open(folder.with_suffix(".log"), "a", encoding="utf-8") as log:
            subprocess.run([sys.executable, "-m", "d3ssl", *words], check=True, env=environment, stdout=log, stderr=log)

    Path(options.out).mkdir(parents=True, exist_ok=True)
    spec = str(folder)
    reading = ["--region_path", options.region_path, "--roi_size", str(options.roi_size), "--size", str(options.size)]
    if row == "random":
        spec = f"timm:{options.backbone}:random:{seed}"
    elif not (folder / "backbone.safetensors").exists():
        decouple, deposition = SWITCHES[row]
        words = ["--recipe", options.recipe, "--data", f"{options.scenes}/train", "--out", str(folder)]
        words += ["--regions", f"{options.out}/regions.parquet", "--train.seed", str(seed)]
        words += ["--train.steps", str(options.steps), "--runtime.workers", "0"]
        words += ["--method.decouple", decouple, "--method.deposition", deposition]
        call("pretrain", *words, *(["--resume"] if folder.is_dir() else []))
    measured = Path(options.out) / "measured" / folder.name
    if not (measured / "metrics.json").exists():
        words = ["--backbone", spec, "--data", str(options.scenes), "--out", str(measured), "--seed", str(seed)]
        call("evaluate", "objects", *words, *reading)
    if not (measured / "diagnosis.json").exists():
        words = ["--backbone", spec, "--data", f"{options.scenes}/val", "--out", str(measured), "--seed", str(seed)]
        call("diagnose", *words, *reading)
    found = read_json(measured / "metrics.json") | read_json(measured / "diagnosis.json")
    return {key: found[key] for key in MEASURES}


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval."""
    if len(values) < 2:
        return values[0], float("nan")
    half = half_width(values)
    return mean(values), half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="scenes-photo")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rows", nargs="+", default=["random", "host", "d3ssl"], choices=["random", *SWITCHES])
    parser.add_argument("--backbone", default="test_resnet", help="of the random row: the recipe's")
    parser.add_argument("--region_path", default="c3")
    parser.add_argument("--roi_size", type=int, default=6)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    regions = [
        sys.executable,
        "-m",
        "d3ssl",
        "regions",
        f"{options.scenes}/train",
        "--out",
        f"{options.out}/regions.parquet",
    ]
    subprocess.run([*regions, "--colours", "lab", "--scales", "[100.0]"], check=True)
    cells = [(row, seed) for seed in range(options.seeds) for row in options.rows]
    with ThreadPoolExecutor(options.processes) as pool:
        found = list(pool.map(lambda cell: run_cell(cell[0], cell[1], options), cells))
    table = {
        row: {key: [value[key] for cell, value in zip(cells, found, strict=True) if cell[0] == row] for key in MEASURES}
        for row in options.rows
    }
    write_json(options.out / "table.json", {"steps": options.steps, "seeds": options.seeds, "rows": table})
    lines = ["| | " + " | ".join(key.replace("_", " ") for key in MEASURES) + " |", "|---" * (len(MEASURES) + 1) + "|"]
    for row, values in table.items():
        shown = [interval(values[key]) for key in MEASURES]
        lines.append(f"| {row} | " + " | ".join(f"{value:.3f} ± {half:.3f}" for value, half in shown) + " |")
    write_text(options.out / "table.md", "\n".join(lines) + "\n")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
