"""Post-training on real photographs: rows trained and measured over seeds, every cell kept.

    python -m benchmarks.photographs DATA --backbone timm:efficientnet_lite0:lite0.pth --out DIR
        [--set dev|final] [--rows ROW ...] [--seeds 3] [--passes 3200] [--record docs/data/photographs.zip]
    python -m benchmarks.photographs --record docs/data/photographs.zip [--passes 3200] [--write docs/results.md]

DATA comes from ``benchmarks/photographs/data.py``. A cell (row × seed) is trained on DATA/SET/natural/train by
``d3ssl posttrain``, its strength chosen there, and measured by the commands that a user has: objects out of context
(DATA/SET/scenes, remembered from their own photographs), objects and pixels in context (DATA/SET/natural) and under the
controlled conditions (DATA/SET/conditions), context and position sensitivity. Regions and features are read from the
plain last map. Run the command again after a stop, and it goes on. Options are chosen on ``dev``.

``--record`` keeps the figures and draws of every finished cell in one file, and cells that it holds are not made again;
the second form prints the tables from it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from benchmarks.document import put
from benchmarks.photographs import record, table
from benchmarks.photographs.cells import (
    CHEAP,
    MEASURED,
    PASSES,
    RANDOM,
    START,
    Work,
    claim,
    draws_of,
    figures_of,
    find_regions,
    run_cell,
)
from benchmarks.photographs.rows import ROWS


def main() -> None:
    options = _parse()
    known = record.read(options.record) if options.record is not None and options.record.exists() else {}
    failed: list[str] = []
    if options.data is not None:
        work = Work(
            data=options.data, set=options.set, backbone=options.backbone, out=options.out, passes=options.passes
        )
        claim(work)
        for kind in sorted({ROWS[row].regions for row in options.rows if row in ROWS}):
            find_regions(work, kind)
        failed = _run(work, options, known)
    for name in options.tables:
        text = table.markdown(known, name, [RANDOM, *ROWS], options.passes)
        if text:
            sys.stdout.write(f"{name}, {options.passes} passes of 16 images\n\n{text}\n\n")
            if options.write is not None:
                put(options.write, f"{name}-{options.passes}", text, by="benchmarks/photographs")
    if failed:
        sys.exit("\n".join(["failed:", *failed]))


def _run(work: Work, options: argparse.Namespace, known: record.Record) -> list[str]:
    """All cells that are not done; what failed. Each finished one is added to what is known, and to the record."""
    cells = [(START, 0), *((row, seed) for seed in range(options.seeds) for row in options.rows if row != START)]
    measured, begun, failed = tuple(options.measure), time.monotonic(), []
    left = [cell for cell in cells if not _is_known(known, work.cell(*cell).name, measured)]
    with ThreadPoolExecutor(options.processes) as pool:
        running = {pool.submit(run_cell, work, row, seed, measured): (row, seed) for row, seed in left}
        for number, future in enumerate(as_completed(running), start=1):
            row, seed = running[future]
            path = work.cell(row, seed)
            try:
                future.result()
            except subprocess.CalledProcessError as error:
                failed.append(f"{row}, seed {seed}: {' '.join(map(str, error.cmd))}: see the logs in {path}")
                continue
            known[path.name] = record.Cell(
                row=row, passes=work.passes, seed=seed, figures=figures_of(path), draws=draws_of(path)
            )
            if options.record is not None:
                record.write(options.record, known, table.columns())
            minutes = (time.monotonic() - begun) / number * (len(left) - number) / 60
            sys.stderr.write(f"{row}, seed {seed}: {number} of {len(left)} cells, about {minutes:.0f} minutes left\n")
    return failed


def _is_known(known: record.Record, name: str, measured: tuple[str, ...]) -> bool:
    return name in known and known[name].has(measured)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.photographs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--backbone", help="spec of the start, such as timm:efficientnet_lite0:lite0.pth")
    parser.add_argument("--out", type=Path, help="folder of the cells")
    parser.add_argument("--set", choices=("dev", "final"), default="dev", help="options are chosen on dev alone")
    rows = [START, RANDOM, *ROWS]
    parser.add_argument("--rows", nargs="+", choices=rows, default=["DC"], metavar="ROW", help=", ".join(rows))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--passes", type=int, default=PASSES, help="views that the student sees, in batches of 16 images"
    )
    parser.add_argument("--measure", nargs="+", choices=list(MEASURED), default=list(CHEAP))
    parser.add_argument("--processes", type=int, default=2, help="cells at a time, each with one thread")
    parser.add_argument("--record", type=Path, help="file of all figures")
    parser.add_argument("--write", type=Path, help="document to put the tables into")
    parser.add_argument("--tables", nargs="+", choices=list(table.TABLES), default=list(table.TABLES))
    options = parser.parse_args()
    if options.data is not None and (options.backbone is None or options.out is None):
        parser.error("give --backbone and --out with DATA")
    if options.data is None and (options.record is None or not options.record.exists()):
        parser.error("give DATA, or a --record that is there")
    return options


if __name__ == "__main__":
    main()
