"""A run that may be stopped at any moment: what it was begun with, and that only the same run continues it.

While it works, finished blocks are small files in OUT.parts, beside ``plan.json``, which says of what backbone, data
and options they are. OUT appears at once and whole; then the parts are removed.
"""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3ssl.console import say
from d3ssl.embedding.table import read_about
from d3ssl.errors import InputError
from d3ssl.files import make_folder, read_json, write_json
from d3ssl.train.lock import lock_run

PLAN = "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A run that has a folder of its own."""

    folder: Path
    """For the parts."""
    about: dict[str, Any]
    """As it was begun with."""


@contextmanager
def begin(out: Path, about: dict[str, Any], resume: bool) -> Iterator[Begun | None]:
    """Claim OUT.parts; remove it when the block ends without an error. None: ``out`` is whole already.

    Args:
        about: what is wanted: backbone, data, options, versions.
        resume: continue what is there.

    Raises:
        InputError: ``out`` is there or was begun, and is not to be continued; it was begun with something else; there
            is nothing to continue; the folder cannot be written; another process writes into it.
    """
    folder = out.with_name(out.name + ".parts")
    plan = folder / PLAN
    _check_out(out, plan, resume)
    if out.exists():
        _check_same(out, read_about(out), about)
        shutil.rmtree(folder, ignore_errors=True)
        say(f"{out} is whole already")
        yield None
        return
    make_folder(out.parent)
    with lock_run(make_folder(folder), "run"):
        if plan.exists():
            known = read_json(plan)
            _check_same(out, known, about)
            about = known
        else:
            write_json(plan, about)
        for torn in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):  # of a process killed while it joined
            torn.unlink(missing_ok=True)
        yield Begun(folder=folder, about=about)
        shutil.rmtree(folder, ignore_errors=True)


def _check_out(out: Path, plan: Path, resume: bool) -> None:
    if out.is_dir():
        raise InputError("is a folder", path=out, remedy=f"name a file, such as {out / 'features.parquet'}.")
    if out.exists() and not resume:
        remedy = "choose another --out, or remove the file; --resume checks that it is of this backbone and data."
        raise InputError("is there already", path=out, remedy=remedy)
    if out.exists():
        return
    if plan.exists() and not resume:
        remedy = f"continue it with --resume, choose another --out, or remove {plan.parent} to begin again."
        raise InputError("was begun and is not whole yet", path=out, remedy=remedy)
    if resume and not plan.exists():
        raise InputError("there is nothing to continue", path=out, remedy="check --out, or leave out --resume.")


def _check_same(out: Path, known: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise InputError if a run was begun with something else than is wanted now."""
    changes = [] if known["backbone"]["digest"] == wanted["backbone"]["digest"] else ["another backbone"]
    if any(known["data"][key] != wanted["data"][key] for key in ("images", "digest")):
        changes.append("other images")
    if known["data"]["regions_digest"] != wanted["data"]["regions_digest"]:
        changes.append("other regions")
    for group in ("options", "versions"):
        names = sorted({*known[group], *wanted[group]})
        pairs = [(name, known[group].get(name), wanted[group].get(name)) for name in names]
        changes += [f"{name} {before} (now {now})" for name, before, now in pairs if before != now]
    if changes:
        remedy = "give the backbone, data and options that it was begun with, or choose another --out."
        raise InputError(f"was begun with {', '.join(changes)}", path=out, remedy=remedy)
