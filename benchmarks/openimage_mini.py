"""How long building OpenImage-MINI takes, and how much memory. Goal: 2 million boxes in 60 s on 2 cores, under 1.5 GB.

    python benchmarks/openimage_mini.py [--rows 2000000] [--images 30000] [--threads 2] [--out FILE.json]

Writes metadata in Open Images' V6 layout to a temporary folder (2 million rows: 0.4 GB): 600 classes whose shares fall
as 1/rank, images with 1 to 16 boxes, a mask for every eighth box. Two processes are measured, one after the other:

- ``read``: pyarrow reads the box file alone, all columns, chunk by chunk, and keeps nothing;
- ``build``: the whole command with its two passes, masks, COCO file, figures and data card.

Their ratio holds on a busy machine too. Peak memory is that of the process (maximum resident set size), with all
libraries. Expected: about a minute, most of it to write the metadata.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as pacsv

GOAL_S, GOAL_GB = 60.0, 1.5
CLASSES = 600
_PIECE = 250_000
_SIDES = ("XMin", "XMax", "YMin", "YMax")
_FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")


def write_metadata(folder: Path, rows: int) -> Path:
    """Write classes, boxes and masks of a training split. Returns the box file."""
    generator = np.random.default_rng(0)
    labels = np.array([f"/m/0{number:04x}" for number in range(CLASSES)])
    lines = "".join(f"{label},Class {number}\n" for number, label in enumerate(labels))
    (folder / "class-descriptions-boxable.csv").write_text("LabelName,DisplayName\n" + lines)
    share = 1 / np.arange(1, CLASSES + 1)
    path = folder / "oidv6-train-annotations-bbox.csv"
    masks = folder / "train-annotations-object-segmentation.csv"
    with open(path, "wb") as boxes_file, open(masks, "wb") as masks_file:
        for first in range(0, rows, _PIECE):
            boxes = _boxes(generator, min(_PIECE, rows - first), labels, share / share.sum())
            header = pacsv.WriteOptions(include_header=first == 0)
            pacsv.write_csv(boxes, boxes_file, header)
            pacsv.write_csv(_masks(boxes.slice(0, len(boxes) // 8), first), masks_file, header)
    return path


def _boxes(generator: np.random.Generator, rows: int, labels: np.ndarray, share: np.ndarray) -> pa.Table:
    counts = generator.integers(1, 17, size=rows)
    images = np.repeat(generator.integers(2**63, size=rows), counts)[:rows]
    sides = np.sort(generator.random((rows, 2, 2)).round(6) * 0.9, axis=2)
    sides[:, :, 1] += 0.05
    columns: dict[str, Any] = {
        "ImageID": [f"{image:016x}" for image in images.tolist()],
        "Source": np.full(rows, "xclick"),
        "LabelName": labels[generator.choice(len(labels), p=share, size=rows)],
        "Confidence": np.ones(rows, dtype=np.int8),
        **{name: side.round(6) for name, side in zip(_SIDES, sides.reshape(-1, 4).T, strict=True)},
        **{name: generator.choice([0, 1, -1], p=[0.9, 0.06, 0.04], size=rows).astype(np.int8) for name in _FLAGS},
    }
    clicks = {f"XClick{point}{axis}": sides[:, 0, 0].round(6) for axis in "XY" for point in range(1, 5)}
    return pa.table({**columns, **clicks})


def _masks(boxes: pa.Table, first: int) -> pa.Table:
    columns = {
        "MaskPath": [f"{image}_{first + row:08x}.png" for row, image in enumerate(boxes["ImageID"].to_pylist())],
        "ImageID": boxes["ImageID"],
        "LabelName": boxes["LabelName"],
        "BoxID": [f"{row:08x}" for row in range(len(boxes))],
        **{f"Box{side}": boxes[side] for side in _SIDES},
        "PredictedIoU": np.full(len(boxes), 0.9),
        "Clicks": np.full(len(boxes), ""),
    }
    return pa.table(columns)


def read_alone(path: Path) -> None:
    """What pyarrow needs to read the file."""
    rows = sum(batch.num_rows for batch in pacsv.open_csv(path, read_options=pacsv.ReadOptions(block_size=16_000_000)))
    assert rows > 0


def build(path: Path, images: int) -> None:
    """The whole command."""
    from d3ssl.data.open_images.build import build_benchmark
    from d3ssl.data.open_images.config import BuildConfig

    config = BuildConfig(images=images, val_images=0, test_images=0)
    build_benchmark(path.parent, path.parent / "mini", config)


def measure(part: str, path: Path, options: argparse.Namespace) -> tuple[float, float, float]:
    """Wall-clock seconds, core seconds and peak memory (GB) of a process of its own."""
    words = [sys.executable, __file__, "--part", part, "--file", str(path), "--images", str(options.images)]
    done = subprocess.run([*words, "--threads", str(options.threads)], check=True, stdout=subprocess.PIPE, text=True)
    wall, core, memory = (float(word) for word in done.stdout.splitlines()[-1].split())
    return wall, core, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--images", type=int, default=30_000, help="images to choose")
    parser.add_argument("--threads", type=int, default=2, help="threads that read CSV")
    parser.add_argument("--out", type=Path, default=None, help="write the figures as JSON to this file")
    parser.add_argument("--part", choices=("read", "build"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        pa.set_cpu_count(options.threads)
        start = time.perf_counter()
        read_alone(options.file) if options.part == "read" else build(options.file, options.images)
        wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        sys.stdout.write(f"{wall} {used.ru_utime + used.ru_stime} {used.ru_maxrss / 1e6}\n")
        return
    report(options)


def report(options: argparse.Namespace) -> None:
    from d3ssl.console import say, show_table
    from d3ssl.files import write_json

    with tempfile.TemporaryDirectory() as folder:
        path = write_metadata(Path(folder), options.rows)
        size = path.stat().st_size / 1e9
        found = {part: measure(part, path, options) for part in ("read", "build")}
    rows = [
        (part, f"{wall:.1f}", f"{core:.1f}", f"{wall / found['read'][0]:.1f}", f"{memory:.2f}")
        for part, (wall, core, memory) in found.items()
    ]
    header = ("", "seconds", "core seconds", "÷ read", "peak memory, GB")
    show_table(f"{options.rows:,} boxes ({size:.2f} GB), {options.images:,} images chosen", header, rows)
    wall, _, memory = found["build"]
    say(f"goal of {GOAL_S:g} s: {'reached' if wall < GOAL_S else 'missed'} ({wall:.1f})")
    say(f"goal of {GOAL_GB} GB: {'reached' if memory < GOAL_GB else 'missed'} ({memory:.2f})")
    if options.out is not None:
        names = ("seconds", "core_seconds", "peak_gb")
        write_json(options.out, {part: dict(zip(names, values, strict=True)) for part, values in found.items()})


if __name__ == "__main__":
    main()
