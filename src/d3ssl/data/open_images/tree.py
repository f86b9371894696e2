"""The files of a finished benchmark: where they are, and how it is known that they are whole."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from d3ssl.errors import InputError
from d3ssl.files import write_text

CHECKSUMS = "checksums.txt"
"""SHA-256 of every file but itself and the images, in the layout of ``sha256sum``; written last."""
DEFINITION = "benchmark.json"
MISSING = "missing.txt"
CLASSES = "classes.csv"
IDS = "ids.txt"
OBJECTS = "objects.parquet"
IMAGES = "images"
IMAGE_RECORDS = "images.csv"
"""Size, bytes and SHA-256 of every downloaded image of a split."""


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(root: Path, names: list[str]) -> None:
    """Write the checksums of these files (paths relative to the root, with forward slashes)."""
    write_text(root / CHECKSUMS, "".join(f"{sha256(root / name)}  {name}\n" for name in sorted(names)))


def read_checksums(path: Path) -> dict[str, str]:
    """Name → SHA-256, from a file in the layout of ``sha256sum``.

    Raises:
        InputError: no such file, or a line that is none; names it.
    """
    found = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError("no such file of checksums", path=path, remedy="check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", path=path, remedy="check the file.") from error
    for number, line in enumerate(lines, start=1):
        digest, _, name = line.partition(" ")
        name = name[1:] if name[:1] in (" ", "*") else ""
        if len(digest) != 64 or set(digest) - set("0123456789abcdef") or not name:
            problem = f"line {number} is no checksum: {line[:100]!r}"
            raise InputError(problem, path=path, remedy="each line has 64 hexadecimal digits, two spaces and a name.")
        found[name] = digest
    return found


def read_ids(path: Path) -> tuple[str, ...]:
    """The list of image ids of a split.

    Raises:
        InputError: no such file, an id that is none, or one that stands there twice; names the line.
    """
    remedy = "build the benchmark again."
    try:
        ids = tuple(path.read_text(encoding="ascii").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", path=path, remedy=remedy) from error
    seen: set[str] = set()
    for number, name in enumerate(ids, start=1):
        if len(name) != 16 or set(name) - set("0123456789abcdef"):
            raise InputError(f"line {number}: {name[:40]!r} is no image id", path=path, remedy=remedy)
        if name in seen:
            raise InputError(f"line {number}: the image {name} is listed twice", path=path, remedy=remedy)
        seen.add(name)
    return ids


def check_whole(root: Path, *, without: Collection[str] = ()) -> dict[str, str]:
    """Compare all files but those of these names with their checksums, and return these.

    Raises:
        InputError: not a finished benchmark, or a file is missing or changed; names it.
    """
    if not (root / CHECKSUMS).is_file():
        problem = f"is no finished benchmark: it has no {CHECKSUMS}"
        raise InputError(problem, path=root, remedy="build it with d3ssl benchmark openimage-mini build.")
    listed = read_checksums(root / CHECKSUMS)
    for name, wanted in listed.items():
        path = root / name
        if name in without:
            continue
        if Path(name).is_absolute() or ".." in Path(name).parts:
            problem = f"names the file {name!r}, which is not below its folder"
            raise InputError(problem, path=root / CHECKSUMS, remedy="build the benchmark again.")
        if not path.is_file():
            raise InputError(f"is missing, though {CHECKSUMS} lists it", path=path, remedy="build the benchmark again.")
        if sha256(path) != wanted:
            problem = f"was changed: its checksum is not the one in {CHECKSUMS}"
            remedy = "build the benchmark again; after a download that was cut off, call download again."
            raise InputError(problem, path=path, remedy=remedy)
    return listed
