"""The run's own log: a line of JSON every few steps. Resuming and reports read it."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from d3ssl.errors import InputError
from d3ssl.files import full_disk, write_text

NAME = "log.jsonl"


class JsonLines:
    """Appends to RUN/log.jsonl. On resuming, lines of steps behind the checkpoint's are cut: no step stands twice."""

    def __init__(self, run: Path, start: int) -> None:
        path = run / NAME
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        write_text(path, "".join(f"{line}\n" for line in lines if _step(line, start + 1) <= start))
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115  # closed by close()

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Append a line; a figure that is not finite becomes null, as JSON has no such numbers.

        Raises:
            D3sslError: the disk is full.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        with _clear_if_full(Path(self._file.name)):
            self._file.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")

    def close(self) -> None:
        with _clear_if_full(Path(self._file.name)):  # it writes what could not be written before
            self._file.close()


@contextmanager
def _clear_if_full(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise full_disk(path) from error


def _step(line: str, otherwise: int) -> int:
    """Step of a line; a line torn by a kill counts as behind the checkpoint."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return otherwise


def training_seconds(lines: Sequence[dict[str, Any]], batch_size: int) -> float:
    """Wall time of the training steps alone, from the rates in a log: also of a run that was stopped and resumed.

    Args:
        lines: of ``read_log``.
        batch_size: images per step.
    """
    ends = [0, *(line["step"] for line in lines)]
    steps = [end - start for start, end in pairwise(ends)]
    return sum(n * batch_size / line["images_per_s"] for n, line in zip(steps, lines, strict=True))


def read_log(run: str | Path) -> list[dict[str, Any]]:
    """All lines of a run's log, in order of steps; None: a figure that was not finite.

    A last line that is torn, as by a kill, is passed over.

    Raises:
        InputError: no such log, or another line of it is damaged.
    """
    path = Path(run) / NAME
    if not path.exists():
        raise InputError("no such log", path=path, remedy="is this the folder of a run of `d3ssl pretrain`?")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                remedy = "remove this line, or restore the file."
                raise InputError(f"line {number} is not valid JSON ({error})", path=path, remedy=remedy) from error
    return found
