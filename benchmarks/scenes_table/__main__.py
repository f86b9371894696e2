"""The paper's table in small: every row trained and measured over seeds, with the same data, images seen and options.

    python -m benchmarks.scenes_table SCENES --out DIR [--budget cpu] [--rows table|study|NAME ...] [--seeds 3]
        [--unseen SCENES] [--processes 2] [--workers 0] [--minutes M] [--write docs/results.md]

SCENES is a folder of `d3ssl scenes`. Every cell (row × seed) is kept in DIR with its config and logs; run the command
again after a stop, or with ``--minutes`` (the training that runs then saves a checkpoint), and it goes on. Prints the
table and the goals against the host; ``--write`` puts them between marks of the document, with a plot and the figures
seed by seed beside it. Those, or figures.json of DIR, are ``--known`` to a call on another machine.

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

from benchmarks.document import put
from benchmarks.scenes_table import record, table
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
    run_cell,
)
from benchmarks.scenes_table.rows import COMPARED, PAIRS, ROWS, STUDY, TABLE
from d3ssl.errors import InputError
from d3ssl.files import read_json, write_json

CURVES = ("loss", "effective_rank", "diagnosis_context_sensitivity", "diagnosis_position_sensitivity")
DRAWN = ("o_knn", "o_knn_shuffled", "context_sensitivity", "position_sensitivity")


def main() -> None:
    options = _parse()
    words = [name for word in options.rows for name in {"table": TABLE, "study": STUDY}.get(word, [word])]
    rows = list(dict.fromkeys(words))  # each once: two threads must not train the same cell
    work = Work(
        scenes=options.scenes,
        out=options.out,
        budget=BUDGETS[options.budget],
        threads=options.threads,
        workers=options.workers,
        unseen=options.unseen,
        end=time.monotonic() + 60 * options.minutes,
    )
    claim = _describe(options)
    try:
        known = {} if options.known is None else record.read(options.known, claim, work, rows)
    except InputError as error:
        sys.exit(str(error))
    _claim(options.out, claim)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, work.stop)
    asked = [(row, seed) for seed in range(options.seeds) for row in rows]
    unknown = [(row, seed) for row, seed in asked if seed not in known.get(row, {})]
    failed = _run(work, unknown, options.processes)
    found = record.gather(work)
    for row, seeds in known.items():
        found.setdefault(row, {}).update(seeds)
    record.write(options.out / "figures.json", claim, work, found)
    missing = [f"{row}, seed {seed}" for row, seed in asked if not is_complete(work, found.get(row, {}).get(seed))]
    shown: record.Cells = {}
    for row, seed in asked:
        if (own := found.get(row, {}).get(seed)) is not None:
            shown.setdefault(row, {})[seed] = own
    text = _text(shown, options, missing)
    sys.stdout.write(text + "\n")
    if options.write is not None and shown:
        beside = options.write.parent
        table.plot(_figures(shown), beside / "images" / f"{options.name}.png", DRAWN)
        record.write(beside / "figures" / f"{options.name}.json", claim, work, shown)
        parts = [text, f"![Bars with 95 % intervals](images/{options.name}.png)"]
        if curves := record.gather_curves(work, shown, CURVES):
            table.plot_curves(curves, beside / "images" / f"{options.name}_curves.png", CURVES)
            parts.append(f"![What the trainings logged, a line for each seed](images/{options.name}_curves.png)")
        put(options.write, options.name, "\n\n".join(parts), by="benchmarks/scenes_table")
    if failed:
        sys.exit("\n".join(["failed:", *failed]))
    if missing:
        sys.stderr.write(f"not finished: {'; '.join(missing)}\nrun the same command again to go on\n")
        sys.exit(3)


def _run(work: Work, cells: list[tuple[str, int]], processes: int) -> list[str]:
    """Train and measure; what failed, and why."""
    failed: list[str] = []

    def run(row: str, seed: int) -> None:
        with contextlib.suppress(OutOfTime):
            try:
                run_cell(work, row, seed)
            except CellFailed as error:  # the others go on
                failed.append(f"{row}, seed {seed}: {error}")
                return
            sys.stderr.write(f"done: {row}, seed {seed}\n")

    try:
        for kind in sorted({ROWS[row].regions for row, _ in cells if ROWS[row].trained}):
            compute_regions(work, kind)
    except OutOfTime:
        sys.exit("the time was used up while regions were computed; run the same command again to go on")
    except CellFailed as error:
        sys.exit(str(error))
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda own: run(*own), cells))
    return failed


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
    parser.add_argument(
        "--known",
        type=Path,
        help="figures.json of another --out, or FOLDER/figures/NAME.json beside a document: the cells that are "
        "complete there are not run again",
    )
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


def _describe(options: argparse.Namespace) -> dict[str, Any]:
    """What all cells of a table have in common, on whatever machine."""
    budget = {"budget": options.budget, "options": repr(BUDGETS[options.budget])}
    folders = {"scenes": options.scenes, "unseen": options.unseen}
    return budget | {name: _describe_scenes(folder) for name, folder in folders.items() if folder is not None}


def _describe_scenes(folder: Path) -> dict[str, Any]:
    """How they were made, and of what; not where that lay."""
    made = read_json(folder / "scenes.json")
    config = {name: value for name, value in made["config"].items() if name not in ("cutouts", "backgrounds")}
    return {"config": config, "sources": made["sources"]}


def _claim(out: Path, claim: dict[str, Any]) -> None:
    """Cells of another budget or of other scenes are never mixed with these."""
    file = out / "table.json"
    known = read_json(file) if file.exists() else {}
    if any(known[key] != claim[key] for key in known.keys() & claim.keys()):
        sys.exit(f"{out} holds a table of another budget or other scenes: choose another --out")
    if known | claim != known:
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, known | claim)


def _trained_on(scenes: Path) -> bytes | None:
    file = scenes / "train" / "annotations.json"
    return file.read_bytes() if file.exists() else None


def _figures(cells: record.Cells) -> dict[str, dict[int, dict[str, float]]]:
    return {row: {seed: own.figures for seed, own in seeds.items()} for row, seeds in cells.items()}


def _text(cells: record.Cells, options: argparse.Namespace, missing: list[str]) -> str:
    figures = _figures(cells)
    all_cells = [own for seeds in cells.values() for own in seeds.values()]
    commits, machines = sorted({own.commit for own in all_cells}), sorted({own.machine for own in all_cells})
    other = [task for task in ("segmentation", "detection") if task in BUDGETS[options.budget].evaluate]
    parts = [
        f"Budget `{options.budget}`, {'; '.join(machines)}. Cells begun at commit {', '.join(commits)}. "
        "Mean over seeds ± half of the 95 % interval (Student's t; the scenes are the same for all seeds, and what "
        "other scenes would change is not in it); in brackets: of how many seeds, where one was not measured. "
        f"Seed by seed: [figures/{options.name}.json](figures/{options.name}.json). {options.note}".strip(),
        f"```sh\n{_command()}\n```",
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


def _command() -> str:
    """The call that makes all of it again: without what was known, and when it stopped."""
    words = sys.argv[1:]
    for option in ("--minutes", "--known"):
        words = [word for word in words if not word.startswith(f"{option}=")]
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
    return "python -m benchmarks.scenes_table " + shlex.join(words)


if __name__ == "__main__":
    main()
