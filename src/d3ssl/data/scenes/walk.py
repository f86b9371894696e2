"""Finding the picture files under a folder, in an order that is the same everywhere."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from d3ssl.errors import InputError


def find_pictures(root: Path, suffixes: frozenset[str], exclude: tuple[str, ...]) -> tuple[PurePosixPath, ...]:
    """Paths relative to ``root`` of the files with one of the (lower-case) suffixes, at any depth, sorted.

    Hidden files and folders are left out, and what ``exclude`` matches; such folders are not opened. Links to folders
    are followed, each folder once.

    Raises:
        InputError: ``root`` is no folder, or a folder in it cannot be read.
    """
    if not root.is_dir():
        raise InputError("no such folder", path=root, remedy="check the path.")
    found, seen = [], set()

    def fail(error: OSError) -> None:
        problem = f"cannot be read ({error.strerror})"
        raise InputError(problem, path=error.filename, remedy="check its permissions, or exclude it.") from error

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=fail):
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        real = os.path.realpath(folder)
        if real in seen:  # a link back up, or two links to one folder
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not _left_out(here / name, exclude))
        kept = (here / name for name in files if not _left_out(here / name, exclude))
        found.extend(path for path in kept if path.suffix.lower() in suffixes)
    return tuple(sorted(found))


def _left_out(path: PurePosixPath, exclude: tuple[str, ...]) -> bool:
    if path.name.startswith("."):
        return True
    return any(fnmatch(path.name, pattern) or fnmatch(path.as_posix(), pattern) for pattern in exclude)
