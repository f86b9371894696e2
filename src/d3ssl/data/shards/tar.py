"""What lies where in an uncompressed tar: only the headers are read, and whatever is odd is an error with its byte.

The formats are those of POSIX.1-2001 (ustar headers, pax records) with GNU's long names and binary sizes, as tar,
Python and the WebDataset tools write them. Python's own reader takes a damaged header or a missing end for the end of
the archive without a word, which would lose images in silence; this one does not.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from d3ssl.errors import InputError
from d3ssl.files import only_files

BLOCK = 512
"""Headers and contents begin at multiples of this, bytes."""
MAX_NAME_BYTES = 1 << 16
"""Longest record of a name (pax or GNU) that is read; a longer one is refused."""
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of compressed files."""
_REGULAR, _FOLDER, _IGNORED = b"0\0007", b"5", b"K"
_REFUSED = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}
_NULLS = bytes(BLOCK)
_PADDING_READ = 1 << 20
_MOST_DIGITS = 20
_AGAIN = "copy or download the shard again, or pack it again."
_REPACK = "pack the files again as plain files in an uncompressed tar, such as with d3ssl shards pack."


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The regular files of a tar, in their order."""

    names: tuple[str, ...]
    """As stored; bytes that are no UTF-8 are kept as surrogates."""
    offsets: Int64[np.ndarray, "files"]
    """Byte at which each content begins."""
    sizes: Int64[np.ndarray, "files"]
    """Of each content, bytes."""

    def __len__(self) -> int:
        return len(self.names)


def scan_tar(path: Path) -> Contents:
    """Walk through the headers of a tar.

    Raises:
        InputError: the tar is compressed, cut off (with the byte), damaged (with the byte), no tar at all, or holds
            links, devices, pipes or sparse files; or it cannot be opened.
    """
    try:
        with io.FileIO(path, opener=only_files) as file:
            return _Scan(path, file).run()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path, remedy="check the path.") from error


@dataclass(frozen=True, slots=True)
class _Header:
    name: str
    size: int
    kind: bytes


class _Scan:
    """The state of a walk: where it is, and what records in front say of the next file."""

    def __init__(self, path: Path, file: io.FileIO) -> None:
        self.path, self.file, self.bytes = path, file, os.fstat(file.fileno()).st_size
        self.names: list[str] = []
        self.places: list[tuple[int, int]] = []
        self.said: dict[str, str] = {}
        """Name and size from records in front of a header."""

    def run(self) -> Contents:
        self.file.seek(0)
        first = self.file.read(BLOCK) or b""
        for magic, name in COMPRESSED.items():
            if first.startswith(magic):
                raise compressed(self.path, name)
        at = 0
        while (block := self._read(at, BLOCK)) != _NULLS:
            at = self._entry(at, block)
        self._check_end(at)
        places = np.array(self.places, dtype=np.int64).reshape(-1, 2)
        return Contents(names=tuple(self.names), offsets=places[:, 0].copy(), sizes=places[:, 1].copy())

    def _entry(self, at: int, block: bytes) -> int:
        """Take in one entry; returns where the next one begins."""
        try:
            header = _parse_header(block)
        except ValueError as error:
            raise self._no_header(at, error) from error
        begin = at + BLOCK
        if header.kind in b"xgL":
            if header.size > MAX_NAME_BYTES:
                raise self._refuse(f"has a record of {header.size} bytes at byte {at}; names take less", _AGAIN)
            try:
                self._remember(header.kind, self._read(begin, header.size))
            except ValueError as error:
                raise self._refuse(f"has a damaged record at byte {at} ({error})", _AGAIN) from error
            return begin + _padded(header.size)
        if header.kind in _IGNORED:
            return begin + _padded(header.size)
        name, size = self.said.get("path", header.name), int(self.said.get("size", header.size))
        self.said = {}
        if header.kind in _FOLDER or (header.kind in _REGULAR and name.endswith("/")):
            return begin
        if header.kind not in _REGULAR:
            what = _REFUSED.get(header.kind, f"an entry of the unknown type {header.kind!r}")
            raise self._refuse(f"holds {what}: {name!r} (byte {at})", _REPACK)
        if begin + size > self.bytes:
            problem = f"is cut off at byte {self.bytes}: {name!r} lies at bytes {begin} to {begin + size}"
            raise self._refuse(problem, _AGAIN)
        self.names.append(name)
        self.places.append((begin, size))
        return begin + _padded(size)

    def _remember(self, kind: bytes, record: bytes) -> None:
        if kind == b"L":
            self.said["path"] = _text(record)
            return
        values = _pax_records(record)
        if any(key.startswith("GNU.sparse") for key in values):
            raise ValueError("it announces a sparse file")
        found = {key: values[key] for key in ("path", "size") if key in values}
        if kind == b"g" and found:
            raise ValueError("it gives one name or size to all files")
        if not found.get("size", "0").isdecimal() or len(found.get("size", "")) > _MOST_DIGITS:
            raise ValueError(f"the size {found['size']!r}")
        self.said.update(found)

    def _read(self, at: int, size: int) -> bytes:
        if at + size > self.bytes:
            problem = f"is cut off at byte {self.bytes}: more of the tar, or its end mark, is expected there"
            raise self._refuse(problem, _AGAIN)
        self.file.seek(at)
        return self.file.read(size) or b""

    def _check_end(self, at: int) -> None:
        """Nothing but padding lies behind the end mark: what does was joined to the tar, and would never be read."""
        self.file.seek(at)
        if (self.file.read(_PADDING_READ) or b"").strip(b"\0"):
            problem = f"holds more behind its end mark (byte {at}), as of tars that were joined"
            raise self._refuse(problem, "give each tar its own file.")

    def _no_header(self, at: int, error: ValueError) -> InputError:
        if at > 0:
            return self._refuse(f"is damaged at byte {at} ({error})", _AGAIN)
        return self._refuse(f"is not a tar ({error})", "name an uncompressed tar of images.")

    def _refuse(self, problem: str, remedy: str) -> InputError:
        return InputError(problem, path=self.path, remedy=remedy)


def compressed(path: Path, kind: str) -> InputError:
    """The error for a compressed tar."""
    remedy = "decompress it (images do not get smaller by it), or pack the images again with d3ssl shards pack."
    return InputError(f"is compressed ({kind}), so nothing in it can be read in place", path=path, remedy=remedy)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _parse_header(block: bytes) -> _Header:
    """A ustar, GNU or older header (POSIX.1-2001, pax, "ustar Interchange Format").

    Raises:
        ValueError: its checksum is wrong, or its size is no number.
    """
    total = sum(block) - sum(block[148:156]) + 8 * 32  # the checksum itself counts as spaces
    if _number(block[148:156]) != total:
        raise ValueError("the checksum of a header is wrong")
    name, kind = _text(block[:100]), block[156:157]
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, _number(block[124:136]), kind)


def _number(field: bytes) -> int:
    """Octal digits, or, as GNU has it, a binary number behind a byte of 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not set(digits) <= set(b"01234567"):
        raise ValueError(f"the number {digits!r} in a header")
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax_records(data: bytes) -> dict[str, str]:
    """Records "length key=value\\n", the length being that of the whole record.

    Raises:
        ValueError: one is malformed.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:
        digits, _, _ = data[at : at + 20].partition(b" ")
        if not digits.isdigit():
            raise ValueError("a record without its length")
        end = at + int(digits)
        key, equals, value = data[at + len(digits) + 1 : end].partition(b"=")
        if end > len(data) or not equals or not value.endswith(b"\n"):
            raise ValueError("a record of another length than it says")
        found[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        at = end
    return found
