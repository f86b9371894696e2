"""The list of the shards in a folder that ``d3ssl shards pack`` made: tells whether all of them are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d3ssl.errors import InputError
from d3ssl.files import read_json

PACKED = "d3ssl-shards.json"
"""Name of the list."""
FORMAT = 1
"""Version of the list's layout."""
_REMEDY = "copy the missing shards, or pack again. For a part of the images, name shards: 'DIR/{000..003}.tar'."


def read_packed(folder: Path) -> dict[str, Any] | None:
    """What the list says; None if there is none.

    Raises:
        InputError: it is damaged or of another version.
    """
    path = folder / PACKED
    if not path.is_file():
        return None
    found = read_json(path)
    whole = isinstance(found, dict) and found.get("d3ssl_shards") == FORMAT and isinstance(found.get("shards"), dict)
    if not whole:
        raise InputError("is not a list of packed shards, or of another version", path=path, remedy="pack again.")
    return found


def check_packed(folder: Path, shards: Sequence[Path]) -> None:
    """Make sure that a folder with a list has exactly the shards in it, of the sizes that it says.

    Raises:
        InputError: one is missing, of another size, or not in the list.
    """
    listed = read_packed(folder)
    if listed is None:
        return
    wanted: dict[str, int] = listed["shards"]
    there = {shard.name: shard.stat().st_size for shard in shards}
    for name, size in wanted.items():
        if name not in there:
            raise InputError(f"the shard {name} is missing, which {PACKED} lists", path=folder, remedy=_REMEDY)
        if there[name] != size:
            problem = f"has {there[name]} bytes, and {PACKED} says {size}"
            raise InputError(problem, path=folder / name, remedy=_REMEDY)
    for name in sorted(there.keys() - wanted.keys()):
        remedy = f"move it elsewhere, or remove {PACKED} to take all shards as they are."
        raise InputError(f"is not in {PACKED}, the list of the shards here", path=folder / name, remedy=remedy)
