"""Streaming the CSV files of Open Images: columns by name, in bounded memory, strictly checked."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import UInt64
from pyarrow import csv as pacsv

from d3ssl.console import Ticker
from d3ssl.errors import InputError
from d3ssl.files import open_file

Kind = Literal["image", "label", "number", "flag", "count", "file"]
"""What a column holds: an image id (16 lower-case hexadecimal digits), a class label, a finite number, a flag (1, 0 or
−1), a positive integer, a plain file name."""
SIDES = ("XMin", "XMax", "YMin", "YMax")
"""In the order of the files. Shares of the image's width and height, y down."""
FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")
BOX_COLUMNS: dict[str, Kind] = {
    "ImageID": "image",
    "LabelName": "label",
    **dict.fromkeys(SIDES, "number"),
    **dict.fromkeys(FLAGS, "flag"),
}
"""Of ``…-annotations-bbox.csv``; the others (Source, Confidence, XClick1X and so on) are not looked at."""
MASK_COLUMNS: dict[str, Kind] = {
    "MaskPath": "file",
    "ImageID": "image",
    "LabelName": "label",
    **{f"Box{side}": "number" for side in SIDES},
}
"""Of ``…-annotations-object-segmentation.csv``."""
SIZE_COLUMNS: dict[str, Kind] = {"ImageID": "image", "Width": "count", "Height": "count"}

_TYPES = {
    "image": pa.string(),
    "label": pa.dictionary(pa.int32(), pa.string()),
    "number": pa.float64(),
    "flag": pa.int8(),
    "count": pa.int32(),
    "file": pa.string(),
}
_WANTED = {
    "image": "16 hexadecimal digits in lower case",
    "label": "a class of the class list",
    "number": "a finite number",
    "flag": "1, 0 or -1",
    "count": "an integer above 0",
    "file": "a plain file name",
}
MAX_EXPANSION = 100
"""Tables of Open Images are compressed to a sixth or so. One that expands to more times its size is not read on."""
MAX_LINE = 100_000
"""Longest line, in characters; what follows counts as another one, which then has too few columns."""
_SMALL = 2**26
"""Bytes that any compressed table may have."""
_PIECE = 2**20
_IMAGE = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_NIBBLE = np.full(256, 255, dtype=np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16)
_REMEDY = "take the file as Open Images publishes it, or put this right."


def find_file(folder: Path, name: str) -> Path | None:
    """The file of this name in a folder, also with a release in front (``oidv6-``) or compressed (``.gz``).

    Raises:
        InputError: there are several.
    """
    pattern = re.compile(rf"(oidv\d+-)?{re.escape(name)}(\.gz)?")
    found = sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name)) if folder.is_dir() else []
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise InputError(
            f"holds more than one file of the same kind: {listed}", path=folder, remedy="keep one of them."
        )
    return found[0] if found else None


def image_name(number: int) -> str:
    """An image id as Open Images writes it, from its number."""
    return f"{number:016x}"


def stream(
    path: Path, columns: Mapping[str, Kind], labels: Mapping[str, int], chunk_bytes: int, ticker: Ticker | None = None
) -> Iterator[dict[str, Any]]:
    """Read a CSV file chunk by chunk.

    Args:
        path: ``.csv`` or ``.csv.gz``, with a header.
        columns: names of the columns to read → what they hold. Their order in the file does not matter.
        labels: class label → its number.
        chunk_bytes: how much to read at a time.
        ticker: is advanced by the megabytes read of the file.

    Yields:
        For every column an array of the chunk's rows: image uint64 (the id's digits as a number), label int64,
        number float64, flag int8, count int32; file: a list of texts.

    Raises:
        InputError: no such file, an empty one, a missing column, a malformed value; names the line and the column.
    """
    _check_header(path, columns)
    rows = 0
    try:
        with open_file(path) as raw, _unpacked(path, raw) as opened:
            reader = pacsv.open_csv(
                pa.PythonFile(opened, mode="r"),
                read_options=pacsv.ReadOptions(block_size=chunk_bytes),
                convert_options=pacsv.ConvertOptions(
                    include_columns=list(columns), column_types={n: _TYPES[kind] for n, kind in columns.items()}
                ),
            )
            told = 0
            for batch in reader:
                rows += batch.num_rows
                yield _arrays(batch, columns, labels)
                if ticker is not None:
                    ticker.advance(raw.tell() // 1_000_000 - told)
                    told = raw.tell() // 1_000_000
    except (pa.ArrowException, OSError, EOFError, _MalformedError) as error:
        raise _fault(path, columns, labels, error) from error
    if rows == 0:
        raise InputError("has a header but no rows", path=path, remedy=_REMEDY)


class _MalformedError(Exception):
    """A chunk holds a value that cannot be; which one is looked for when it is known that there is one."""


def _arrays(batch: pa.RecordBatch, columns: Mapping[str, Kind], labels: Mapping[str, int]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for name, kind in columns.items():
        column = batch.column(name)
        if column.null_count:
            raise _MalformedError
        if kind == "image":
            arrays[name] = _image_numbers(column)
        elif kind == "label":
            codes = [labels.get(text, -1) for text in column.dictionary.to_pylist()]
            arrays[name] = np.array(codes, dtype=np.int64)[column.indices.to_numpy(zero_copy_only=False)]
        elif kind == "file":
            arrays[name] = column.to_pylist()
        else:
            arrays[name] = column.to_numpy(zero_copy_only=False)
        if not _all_valid(kind, arrays[name]):
            raise _MalformedError
    return arrays


def _all_valid(kind: Kind, values: Any) -> bool:
    if kind == "label":
        return bool((values >= 0).all())
    if kind == "file":
        return all(map(_FILE.fullmatch, values))
    if kind == "number":
        return bool(np.isfinite(values).all())
    if kind == "flag":
        return bool((np.abs(values) <= 1).all() and (values > -2).all())
    return kind != "count" or bool((values > 0).all())


def _image_numbers(column: pa.StringArray) -> UInt64[np.ndarray, "rows"]:
    _, offset_bytes, text = column.buffers()
    if len(column) == 0 or text is None:
        return np.zeros(len(column), dtype=np.uint64)
    offsets = np.frombuffer(offset_bytes, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    if (np.diff(offsets) != 16).any():
        raise _MalformedError
    digits = _NIBBLE[np.frombuffer(text, dtype=np.uint8)[offsets[0] : offsets[-1]]].reshape(-1, 16)
    if (digits == 255).any():
        raise _MalformedError
    packed = (digits[:, 0::2] << 4) | digits[:, 1::2]
    return np.ascontiguousarray(packed).view(">u8").reshape(-1).astype(np.uint64)


def open_text(path: Path) -> io.TextIOWrapper:
    """Open a text file, compressed or not.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        return io.TextIOWrapper(_unpacked(path, open_file(path)), encoding="utf-8-sig", newline="")
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror})", path=path, remedy="check the path.") from error


def _unpacked(path: Path, raw: io.BufferedReader) -> io.BufferedReader:
    """The content of a file that may be compressed; owns ``raw``."""
    return io.BufferedReader(_Unpacked(path, raw), _PIECE) if path.suffix == ".gz" else raw


class _Unpacked(io.RawIOBase):
    """What is in a gzip file, up to what a text can be: a few kilobytes may hold gigabytes of nothing."""

    def __init__(self, path: Path, raw: io.BufferedReader) -> None:
        self._path, self._raw, self._content = path, raw, gzip.GzipFile(fileobj=raw)
        self._left = MAX_EXPANSION * os.fstat(raw.fileno()).st_size + _SMALL

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # what BufferedReader hands over
        try:
            found = self._content.readinto(buffer)
        except zlib.error as error:
            raise OSError(f"it is damaged ({error})") from error
        self._left -= found
        if self._left < 0:
            problem = f"expands to more than {MAX_EXPANSION} times its size, as no table does"
            raise InputError(problem, path=self._path, remedy=_REMEDY)
        return found

    def close(self) -> None:
        self._raw.close()
        super().close()


def read_rows(file: io.TextIOWrapper) -> Any:
    """A ``csv.reader`` that keeps at most ``MAX_LINE`` characters of a line."""
    return csv.reader(iter(lambda: file.readline(MAX_LINE), ""))


def _check_header(path: Path, columns: Mapping[str, Kind]) -> None:
    with open_text(path) as file:
        try:
            header = next(read_rows(file), None)
        except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"line 1 cannot be read ({error})", path=path, remedy=_REMEDY) from error
    if header is None:
        raise InputError("is empty", path=path, remedy=_REMEDY)
    missing = [name for name in columns if name not in header]
    if missing:
        found = ", ".join(header)[:300]
        problem = f"its header (line 1) has no column {missing[0]!r}; it has: {found}"
        raise InputError(problem, path=path, remedy=_REMEDY)


def _fault(path: Path, columns: Mapping[str, Kind], labels: Mapping[str, int], cause: Exception) -> InputError:
    """Look for the first malformed value, line by line."""
    with open_text(path) as file:
        reader = read_rows(file)
        try:
            header = next(reader)
            places = {name: header.index(name) for name in columns}
            for row in reader:
                if not row:  # an empty line is no row
                    continue
                if len(row) != len(header):
                    problem = f"line {reader.line_num} has {len(row)} columns, the header {len(header)}"
                    return InputError(problem, path=path, remedy=_REMEDY)
                for name, place in places.items():
                    if not _is_valid(columns[name], row[place], labels):
                        wanted = f"must be {_WANTED[columns[name]]}"
                        problem = f"line {reader.line_num}, column {name}: {row[place]!r} {wanted}"
                        return InputError(problem, path=path, remedy=_REMEDY)
        except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
            problem = f"cannot be read after line {reader.line_num} ({error})"
            return InputError(problem, path=path, remedy=_REMEDY)
    return InputError(f"cannot be read ({' '.join(str(cause).split())})", path=path, remedy=_REMEDY)


def _is_valid(kind: Kind, text: str, labels: Mapping[str, int]) -> bool:
    if kind == "image":
        return _IMAGE.fullmatch(text) is not None
    if kind == "label":
        return text in labels
    if kind == "file":
        return _FILE.fullmatch(text) is not None
    if kind == "flag":
        return text.strip() in ("1", "0", "-1")
    try:
        return math.isfinite(float(text)) if kind == "number" else 0 < int(text) < 2**31
    except ValueError:
        return False
