"""The index of a shard: what lies where in it, kept on disk, so that its headers are read once.

The index is the file ``SHARD.index`` beside the shard (Parquet: name, offset, size). Where that folder cannot be
written, it is kept in the user's cache folder (``$XDG_CACHE_HOME/d3ssl/shards``, or ``~/.cache/d3ssl/shards``). It
counts as long as the shard has the same size and time of change as when it was made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from d3ssl.console import warn
from d3ssl.data.shards.tar import Contents, scan_tar
from d3ssl.errors import D3sslError, InputError, one_line
from d3ssl.files import digest, write_atomically

FORMAT = 1
"""Version of the index file's layout."""
_KEY = b"d3ssl_shard"
_SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in
                     (("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64()))])  # fmt: skip


def read_index(shard: Path) -> Contents | None:
    """What lies where in a shard by its index; None if there is none of the shard as it is now.

    Raises:
        InputError: no such shard, or names as in ``check_names``.
    """
    stamp = _stamp(shard)
    for path in _places(shard):
        found = _read(path, stamp)
        if found is not None:
            check_names(shard, found)
            return found
    return None


def make_index(shard: Path) -> Contents:
    """What lies where in a shard by its headers; the index is written.

    Raises:
        InputError: as ``scan_tar`` and ``check_names``.
    """
    stamp = _stamp(shard)  # before: a shard that changes meanwhile is then indexed again
    found = scan_tar(shard)
    check_names(shard, found)
    _write(shard, found, stamp)
    return found


def check_names(shard: Path, contents: Contents) -> None:
    """Nothing is ever extracted; names are checked all the same, as they become ids and are shown.

    Raises:
        InputError: a name is absolute, leads up (``..``), has a backslash, or is no printable text.
    """
    for name in contents.names:
        if name.startswith("/") or "\\" in name or not name.isprintable() or (".." in name and ".." in name.split("/")):
            problem = f"holds a file of the name {name!r}, which is absolute, leads out of the tar or is no plain text"
            raise InputError(problem, path=shard, remedy="pack the files again under plain relative names.")


def _stamp(shard: Path) -> dict[str, int]:
    try:
        status = shard.stat()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=shard, remedy="check the path.") from error
    return {"format": FORMAT, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _places(shard: Path) -> list[Path]:
    """Where the index may be, the first choice first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    kept = cache / "d3ssl" / "shards" / f"{shard.name}.{digest(str(shard.resolve()))}.index"
    return [shard.with_name(f"{shard.name}.index"), *([kept] if cache.is_absolute() else [])]


def _read(path: Path, stamp: dict[str, int]) -> Contents | None:
    """An index, if it is there, whole, and of the shard as it is now."""
    if not path.is_file():
        return None
    try:
        with pq.ParquetFile(path) as file:
            if json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"null")) != stamp:
                return None
            columns = file.read().cast(_SCHEMA)
        names = tuple(columns["name"].to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:
        warn(f"{path}: the index of a shard cannot be read ({one_line(error)}); it is made again")
        return None
    offsets, sizes = (np.array(columns[name].to_numpy(), dtype=np.int64) for name in ("offset", "size"))
    if ((offsets < 0) | (sizes < 0) | (offsets + sizes > stamp["bytes"])).any():
        warn(f"{path}: the index of a shard names bytes beyond its end; it is made again")
        return None
    return Contents(names=names, offsets=offsets, sizes=sizes)


def _write(shard: Path, contents: Contents, stamp: dict[str, int]) -> None:
    columns = [pa.array(contents.names, pa.string()), pa.array(contents.offsets), pa.array(contents.sizes)]
    table = pa.table(columns, schema=_SCHEMA.with_metadata({_KEY: json.dumps(stamp).encode()}))
    refused: list[str] = []
    for path in _places(shard):
        try:
            with write_atomically(path) as temporary:
                pq.write_table(table, temporary, compression="zstd")
            return
        except D3sslError as error:  # a full disk, or a folder that cannot be written: the next place may do
            refused.append(f"{path}: {error.problem}")
    remedy = "let one of these places be written, or every start reads the shard's headers again."
    warn("the index of a shard cannot be kept: " + "; ".join(refused), remedy)
