"""Cells as one compressed file: what every figure of the results is computed from, with or without the cells."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from d3ssl.errors import InputError
from d3ssl.files import write_atomically

_DRAWS = 1000
"""Of the bootstrap, kept of each figure: the interval's ends move by a twentieth of its width."""
_UNIT = 2**-15
"""Draws are kept in these units, as 16 bits: .003 points."""
_DATE = (1980, 1, 1, 0, 0, 0)
"""The same cells make the same file."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is known of a row with one seed."""

    row: str
    passes: int
    seed: int
    figures: dict[str, float]
    """``task/measure`` → value."""
    draws: dict[str, np.ndarray] = field(default_factory=dict)
    """``task/measure`` → its value in every draw of the bootstrap."""

    def has(self, tasks: Iterable[str]) -> bool:
        """Whether figures of all these are there."""
        known = {key.partition("/")[0] for key in self.figures}
        return known.issuperset(tasks)


Record = dict[str, Cell]
"""Name → cell."""


def write(path: Path, cells: Record, columns: set[str]) -> None:
    """
    Args:
        columns: figures whose draws are kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as archive:
        for name, cell in sorted(cells.items()):
            own = {"row": cell.row, "passes": cell.passes, "seed": cell.seed, "figures": cell.figures}
            archive.writestr(_entry(f"{name}.json"), json.dumps(own, sort_keys=True))
            kept = {key: np.round(cell.draws[key][:_DRAWS] / _UNIT) for key in sorted(columns & cell.draws.keys())}
            if kept:
                buffer = io.BytesIO()
                np.savez(buffer, allow_pickle=False, **{k: v.astype(np.int16) for k, v in kept.items()})  # type: ignore[arg-type]
                archive.writestr(_entry(f"{name}.npz"), buffer.getvalue())


def read(path: Path) -> Record:
    """
    Raises:
        InputError: it is no file of ``write``.
    """
    found: Record = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            for name in sorted(name.removesuffix(".json") for name in names if name.endswith(".json")):
                own, draws = json.loads(archive.read(f"{name}.json")), {}
                if f"{name}.npz" in names:
                    with np.load(io.BytesIO(archive.read(f"{name}.npz"))) as kept:
                        draws = {key: kept[key] * _UNIT for key in kept.files}
                found[name] = Cell(**own, draws=draws)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise InputError(f"is not a record of cells ({error!r})", path=path, remedy="name another --record.") from error
    return found


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=_DATE)
    entry.compress_type = zipfile.ZIP_LZMA
    return entry
