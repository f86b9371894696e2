"""The paper's table in small: every row trained and measured over seeds, with the same data, images seen and options.

    python -m benchmarks.scenes_table SCENES --out DIR [--budget cpu] [--rows table|study|NAME ...] [--seeds 3]
        [--unseen SCENES] [--processes 2] [--workers 0] [--minutes M] [--write docs/results.md]

SCENES is a folder of `d3ssl scenes`. Every cell (row × seed) is kept in DIR with its config and logs; run the command
again after a stop, or with ``--minutes`` (the training that runs then saves a checkpoint), and it goes on. Prints the
table and the goals against the host; ``--write`` puts them between marks of the document, with a plot beside it.

Budgets: ``smoke`` (a minute or two: does it run?), ``cpu`` (a night of two cores), ``study`` (half as long; objects
and diagnosis only), ``gpu`` (one GPU, several calls).
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.scenes_table import table
from benchmarks.scenes_table.budgets import BUDGETS
from benchmarks.scenes_table.cells import (
    COST,
    DIAGNOSED,
    EVALUATED,
    STRIDES,
    UNSEEN,
    CellFailed,
    OutOfTime,
    Work,
    compute_regions,
    is_complete,
    read_cell,
    read_origin,
    run_cell,
)
from benchmarks.scenes_table.rows import COMPARED, PAIRS, ROWS, STUDY, TABLE
from d3ssl.files import read_json, write_json

DRAWN = ("o_knn", "o_knn_shuffled", "context_sensitivity", "position_sensitivity")


def main() -> None:
    options = _parse()
    words = [name for word in options.rows for name in {"table": TABLE, "study": STUDY}.get(word, [word])]
    rows = list(dict.fromkeys(words))  # each once: two threads must not train the same cell
    budget = BUDGETS[options.budget]
    _claim(options)
    end = time.monotonic() + 60 * options.minutes
    work = Work(
        scenes=options.scenes,
        out=options.out,
        budget=budget,
        threads=options.threads,
        workers=options.workers,
        unseen=options.unseen,
        end=end,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, work.stop)
    asked = [(row, seed) for seed in range(options.seeds) for row in rows]
    failed: list[str] = []

    def cell(row: str, seed: int) -> None:
        with contextlib.suppress(OutOfTime):
            try:
                run_cell(work, row, seed)
            except CellFailed as error:  # the others go on
                failed.append(f"{row}, seed {seed}: {error}")
                return
            sys.stderr.write(f"done: {row}, seed {seed}\n")

    try:
        for kind in sorted({ROWS[row].regions for row in rows if ROWS[row].trained}):
            compute_regions(work, kind)
    except OutOfTime:
        sys.exit("the time was used up while regions were computed; run the same command again to go on")
    except CellFailed as error:
        sys.exit(str(error))
    with ThreadPoolExecutor(options.processes) as pool:
        list(pool.map(lambda own: cell(*own), asked))
    figures = gather(work)
    write_json(options.out / "figures.json", {"budget": options.budget, "rows": figures})
    known = ((row, seed, figures.get(row, {}).get(seed, {})) for row, seed in asked)
    missing = [f"{row}, seed {seed}" for row, seed, own in known if not is_complete(work, own)]
    shown: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        if found := {seed: own for seed, own in figures.get(row, {}).items() if seed < options.seeds}:
            shown[row] = found
    origins = [read_origin(work, row, seed) for row, seeds in shown.items() for seed in seeds]
    commits, machines = sorted({commit for commit, _ in origins}), sorted({machine for _, machine in origins})
    origin = f"{'; '.join(machines)}. Cells begun at commit {', '.join(commits)}."
    text = _text(shown, options, origin, missing)
    sys.stdout.write(text + "\n")
    if options.write is not None and shown:
        table.plot(shown, options.write.parent / "images" / f"{options.name}.png", DRAWN)
        picture = f"![Bars with 95 % intervals](images/{options.name}.png)"
        table.put(options.write, options.name, f"{text}\n\n{picture}")
    if failed:
        sys.exit("\n".join(["failed:", *failed]))
    if missing:
        sys.stderr.write(f"not finished: {'; '.join(missing)}\nrun the same command again to go on\n")
        sys.exit(3)


def gather(work: Work) -> dict[str, dict[int, dict[str, float]]]:
    """Row → seed → the figures that there are, whichever call made them."""
    figures: dict[str, dict[int, dict[str, float]]] = {}
    endings = {folder.name.rpartition("-")[2] for folder in (work.out / "cells").glob("*-*")}
    seeds = sorted(int(ending) for ending in endings if ending.isdecimal())
    for row in ROWS:
        for seed in seeds:
            if found := read_cell(work, row, seed):
                figures.setdefault(row, {})[seed] = found
    return figures


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scenes_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget", choices=BUDGETS, default="cpu")
    parser.add_argument("--rows", nargs="+", default=["table"], choices=["table", "study", *ROWS], metavar="ROW")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--unseen", type=Path, help="scenes with the same train/, and val/ and val_shuffled/ on other photographs"
    )
    parser.add_argument("--processes", type=int, default=2, help="cells at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--workers", type=int, default=0, help="that load images for each training, for a GPU")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop then, and go on with the next call")
    parser.add_argument("--write", type=Path, help="document to put the results into")
    parser.add_argument("--name", default="scenes_table", help="of the results in the document")
    parser.add_argument("--note", default="", help="on the data and the machine, for the document")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("--seeds: give 1 or more")
    for folder in [options.scenes, *([] if options.unseen is None else [options.unseen])]:
        if not (folder / "scenes.json").is_file():
            parser.error(f"{folder} is not a folder of `d3ssl scenes`: no scenes.json in it")
    if options.unseen is not None and _trained_on(options.unseen) != _trained_on(options.scenes):
        parser.error(f"--unseen: {options.unseen}/train is not that of {options.scenes}: copy it there")
    return options


def _claim(options: argparse.Namespace) -> None:
    """Cells of another budget or of other scenes are never mixed with these."""
    wanted = {"budget": options.budget, "scenes": _described(options.scenes), "options": repr(BUDGETS[options.budget])}
    if options.unseen is not None:
        wanted["unseen"] = _described(options.unseen)
    file = options.out / "table.json"
    known = read_json(file) if file.exists() else {}
    if any(known[key] != wanted[key] for key in known.keys() & wanted.keys()):
        sys.exit(f"{options.out} holds a table of another budget or other scenes: choose another --out")
    if known | wanted != known:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(file, known | wanted)


def _trained_on(scenes: Path) -> bytes | None:
    file = scenes / "train" / "annotations.json"
    return file.read_bytes() if file.exists() else None


def _described(scenes: Path) -> Any:
    return read_json(scenes / "scenes.json")["config"]


def _text(
    figures: dict[str, dict[int, dict[str, float]]], options: argparse.Namespace, origin: str, missing: list[str]
) -> str:
    words = [word for word in sys.argv[1:] if not word.startswith("--minutes=")]  # says nothing of the results
    if "--minutes" in words:
        del words[words.index("--minutes") : words.index("--minutes") + 2]
    command = "python -m benchmarks.scenes_table " + shlex.join(words)
    other = [task for task in ("segmentation", "detection") if task in BUDGETS[options.budget].evaluate]
    parts = [
        f"Budget `{options.budget}`, {origin} Mean over seeds ± half of the 95 % interval "
        f"(Student's t; the scenes are the same for all seeds, and what other scenes would change is not in it); "
        f"in brackets: of how many seeds, where one was not measured. "
        f"{options.note}".strip(),
        f"```sh\n{command}\n```",
        *([f"**Not finished:** {'; '.join(missing)}."] if missing else []),
        table.markdown(
            figures, [*EVALUATED["objects"], *([] if options.unseen is None else UNSEEN), *DIAGNOSED, *STRIDES]
        ),
        table.markdown(figures, [*(name for task in other for name in EVALUATED[task]), *COST]),
    ]
    parts += [table.goals(figures, row, host) for row, host in PAIRS if {row, host} <= figures.keys()]
    for reference, compared in COMPARED.items():
        rows = [row for row in compared if row in figures]
        if rows and reference in figures:
            parts.append(table.changes(figures, rows, reference))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
