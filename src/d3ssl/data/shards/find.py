"""Which tars DATA names: a folder of them, one of them, or a pattern with braces."""

from __future__ import annotations

import os
import re
from itertools import product
from pathlib import Path

from d3ssl.data.shards.packed import check_packed
from d3ssl.data.shards.tar import compressed
from d3ssl.errors import InputError, first_names

SUFFIX = ".tar"
MAX_PATTERN = 1_000_000
"""Most names that a pattern may stand for."""
_COMPRESSED = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst|zstd|lz4|lzma|z))$", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def find_shards(data: str | Path) -> tuple[Path, ...] | None:
    """The shards that DATA names, sorted; None if it is something else.

    DATA is a folder with ``*.tar`` directly in it, a ``.tar`` file, or a pattern such as ``shards/{000..012}.tar`` or
    ``{a,b}/0.tar``, as shells write it.

    Raises:
        InputError: a file that the pattern or the folder's own list names is missing, or DATA is a compressed tar.
    """
    path = Path(data)
    if path.is_dir():
        names = sorted(name for name in os.listdir(path) if name.endswith(SUFFIX) and not name.startswith("."))
        shards = tuple(path / name for name in names)
        check_packed(path, shards)
        return shards or None
    if path.is_file():
        if _COMPRESSED.search(path.name):
            raise compressed(path, path.suffix.lstrip("."))
        return (path,) if path.suffix == SUFFIX else None
    if path.suffix != SUFFIX or not _BRACES.search(str(path)):
        return None
    shards = tuple(Path(name) for name in _expand(str(path)))
    missing = [str(shard) for shard in shards if not shard.is_file()]
    if missing:
        problem = f"names {len(missing)} of {len(shards)} shards that are missing: {first_names(missing)}"
        raise InputError(problem, path=path, remedy="correct the pattern, or copy these shards.")
    return tuple(sorted(set(shards)))


def compressed_tars(folder: Path) -> list[Path]:
    """Tars directly in a folder that are compressed, by their names."""
    return sorted(path for path in folder.iterdir() if _COMPRESSED.search(path.name) and path.is_file())


def _expand(pattern: str) -> list[str]:
    parts = _BRACES.split(pattern)  # text, inside of braces, text, …
    choices = [[part] if place % 2 == 0 else _choices(pattern, part) for place, part in enumerate(parts)]
    count = 1
    for options in choices:
        count *= len(options)
    if count > MAX_PATTERN:
        problem = f"stands for {count:,} names"
        raise InputError(problem, path=pattern, remedy=f"name at most {MAX_PATTERN:,}, or the folder.")
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(pattern: str, inside: str) -> list[str]:
    """``000..012`` or ``a,b``; numbers are as wide as the wider end where an end begins with a zero."""
    found = _RANGE.fullmatch(inside)
    if found is None:
        if "," not in inside:
            remedy = "write {000..012} for numbers or {a,b} for names."
            raise InputError(f"has braces with {inside!r} in, which mean nothing", path=pattern, remedy=remedy)
        return inside.split(",")
    first, last = found.groups()
    low, high = sorted((int(first), int(last)))
    if high - low >= MAX_PATTERN:
        raise InputError(f"stands for {high - low + 1:,} names", path=pattern, remedy="name the folder.")
    padded = any(end.startswith("0") and len(end) > 1 for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    return [f"{number:0{width}d}" for number in range(low, high + 1)]
