"""Where an image file lies: by itself on the disk, or inside a tar shard, where it is read in place."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from d3ssl.errors import InputError
from d3ssl.files import only_files, open_file


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an uncompressed tar. As text: ``shard.tar: name``."""

    shard: Path
    name: str
    """As in the tar."""
    offset: int
    """Byte of the tar at which the file's content begins."""
    size: int
    """Of the content, bytes."""

    def __str__(self) -> str:
        return f"{self.shard}: {self.name}"

    def is_there(self) -> bool:
        """Whether the shard is, and is long enough."""
        return file_bytes(self.shard) >= self.offset + self.size

    def open(self) -> io.BufferedReader:
        """The content as a binary file that can be read and sought. Each call opens the shard again, so that threads
        and processes do not share a position.

        Raises:
            InputError: the shard ends before the member does.
            OSError: the shard cannot be opened.
        """
        file = io.FileIO(self.shard, opener=only_files)
        found = os.fstat(file.fileno()).st_size
        end = self.offset + self.size
        if found < end:
            file.close()
            problem = f"its shard is cut off at byte {found}, and it lies at bytes {self.offset} to {end}"
            raise InputError(problem, path=self, remedy="copy or download the shard again.")
        return io.BufferedReader(_Window(str(self), file, self.offset, self.size))


Place = Path | Member
"""A file of its own, or a member of a shard."""


def as_place(file: str | Place) -> Place:
    """The same, with text taken for a path."""
    return Path(file) if isinstance(file, str) else file


def open_place(place: Place) -> io.BufferedReader:
    """Open for reading; the file can be sought.

    Raises:
        InputError: a member's shard is cut off.
        OSError: the file or the shard cannot be opened, or is a pipe, a socket or a device.
    """
    return place.open() if isinstance(place, Member) else open_file(place)


def file_bytes(place: Place) -> int:
    """Size of a file; −1 for one that is not there (a link that leads nowhere, a file deleted after it was listed):
    it is then skipped and counted where it is read, as any image that cannot be."""
    if isinstance(place, Member):
        return place.size  # known from the shard's index; the shard is looked at when it is read
    try:
        return place.stat().st_size
    except OSError:
        return -1


def changed_at(place: Place) -> int:
    """When the file, or the shard that it lies in, was changed last, ns; −1 for one that is not there."""
    try:
        return (place.shard if isinstance(place, Member) else place).stat().st_mtime_ns
    except OSError:
        return -1


def as_file(content: bytes) -> io.BufferedReader:
    """Bytes as a file that is open for reading."""
    return io.BufferedReader(_Content(content))  # type: ignore[arg-type]  # it has what is asked of a raw file


class _Content(io.BytesIO):
    @property
    def mode(self) -> str:
        return "rb"

    @property
    def name(self) -> str:
        return ""


class _Window(io.RawIOBase):
    """A part of a file as a file of its own; owns the file below."""

    mode = "rb"

    def __init__(self, name: str, file: io.FileIO, start: int, size: int) -> None:
        self.name = name
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(f"byte {base + offset} is before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # what BufferedReader hands over
        wanted = buffer[: max(self._size - self._at, 0)]
        self._file.seek(self._start + self._at)
        found = self._file.readinto(wanted) or 0
        self._at += found
        return found

    def readall(self) -> bytes:
        wanted = max(self._size - self._at, 0)
        self._file.seek(self._start + self._at)
        found = self._file.read(wanted) or b""
        while len(found) < wanted and (more := self._file.read(wanted - len(found))):  # the system may give less
            found += more
        self._at += len(found)
        return found

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
