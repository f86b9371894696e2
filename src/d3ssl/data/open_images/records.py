"""What is known of the downloaded images of a split: kept while the download runs, so that it can be resumed."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from d3ssl.data.open_images.tree import IMAGE_RECORDS
from d3ssl.errors import InputError
from d3ssl.files import write_text

_HEADER = ("ImageID", "Height", "Width", "Bytes", "SHA256")
_JOURNAL = ".images.journal"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """An image file as it was when it had been checked."""

    height: int
    """Of the upright image, px."""
    width: int
    bytes: int
    sha256: str

    def row(self, name: str) -> tuple[str, int, int, int, str]:
        return name, self.height, self.width, self.bytes, self.sha256


class Records:
    """The records of a split. ``add`` appends to a journal at once; ``finish`` turns it into ``images.csv``."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self.images: dict[str, ImageRecord] = {}
        if (folder / IMAGE_RECORDS).is_file():
            self.images.update(read_records(folder / IMAGE_RECORDS))
        journal = folder / _JOURNAL
        if journal.is_file():
            lines = journal.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]  # the last one is cut off when a process was killed
            self.images.update(_parse(journal, csv.reader(whole)))
            write_text(journal, "".join(whole))
        self._journal = open(journal, "a", encoding="ascii")  # noqa: SIM115 - closed by close()

    def add(self, name: str, record: ImageRecord) -> None:
        """Remember a checked image."""
        with self._lock:
            self.images[name] = record
            self._journal.write(",".join(map(str, record.row(name))) + "\n")
            self._journal.flush()

    def forget(self, name: str) -> None:
        """An image is not what it was."""
        with self._lock:
            self.images.pop(name, None)

    def close(self) -> None:
        """Close the journal; what it says is kept."""
        self._journal.close()

    def finish(self, ids: tuple[str, ...]) -> None:
        """Write ``images.csv`` with the images that there are, in the order of the list, and end the journal."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_HEADER)
        writer.writerows(self.images[name].row(name) for name in ids if name in self.images)
        write_text(self._folder / IMAGE_RECORDS, text.getvalue())
        self.close()
        (self._folder / _JOURNAL).unlink(missing_ok=True)


def read_records(path: Path) -> dict[str, ImageRecord]:
    """Image id → record, from ``images.csv``.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open(path, encoding="ascii", newline="") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != _HEADER:
                raise InputError("is no table of images", path=path, remedy="remove it; the images are checked again.")
            return _parse(path, reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        remedy = "remove it; the images are checked again."
        raise InputError(f"cannot be read ({error})", path=path, remedy=remedy) from error


def _parse(path: Path, rows: Iterable[list[str]]) -> dict[str, ImageRecord]:
    found = {}
    for row in rows:
        try:
            name, height, width, size, sha = row
            found[name] = ImageRecord(height=int(height), width=int(width), bytes=int(size), sha256=sha)
        except ValueError as error:
            remedy = "remove it; the images are checked again."
            raise InputError(f"has the malformed line {','.join(row)[:80]!r}", path=path, remedy=remedy) from error
    return found
