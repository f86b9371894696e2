"""Images in the rows of Arrow and Parquet files.

Images are read in place: an Arrow stream holds their bytes as they are; of a Parquet file, a group of rows is unpacked
for an image.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from d3ssl.data.place import Member, as_file
from d3ssl.errors import InputError, one_line

PARQUET = ".parquet"
IMAGE_NAMES = ("image", "img")
"""Names of columns of images."""
DAMAGED = "the file is damaged or of another kind; save or download it again."


@dataclass(frozen=True, slots=True)
class Cell(Member):
    """An image in a Parquet file: ``offset`` is its row, ``size`` that of its bytes."""

    column: str

    def is_there(self) -> bool:
        return self.shard.is_file()

    def open(self) -> io.BufferedReader:
        try:
            group, rows = next((group, rows) for group, rows in _row_groups(self.shard) if self.offset in rows)
            value = _group(self.shard, group, self.column)[0][self.offset - rows.start]
        except (pa.ArrowException, OSError, StopIteration) as error:
            raise _refuse(self.shard, error) from error
        return as_file(value.as_py())


def _refuse(file: Path, error: Exception) -> InputError:
    return InputError(f"cannot be read ({one_line(error)})", path=file, remedy=DAMAGED)


def read_schema(file: Path) -> pa.Schema:
    try:
        if file.suffix == PARQUET:
            return pq.read_schema(file)
        with pa.memory_map(str(file)) as source:
            return pa.ipc.open_stream(source).schema
    except (pa.ArrowException, OSError) as error:
        raise _refuse(file, error) from error


def image_column(schema: pa.Schema) -> str | None:
    """Structs with ``bytes``, as the library writes images; or bytes alone under an image's name."""
    found = [
        field.name
        for field in schema
        if (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
        or (pa.types.is_binary(field.type) and field.name in IMAGE_NAMES)
    ]
    return next((name for name in IMAGE_NAMES if name in found), found[0] if found else None)


def image_rows(file: Path, column: str) -> Iterator[tuple[Member, str | None]]:
    """Where the image of every row is, and its file name as far as it is kept.

    Raises:
        InputError: the file is damaged, compressed in a way that forbids reading in place, or a row has no image.
    """
    try:
        yield from _in_parquet(file, column) if file.suffix == PARQUET else _in_arrow(file, column)
    except (pa.ArrowException, OSError) as error:
        raise _refuse(file, error) from error


def _in_arrow(file: Path, column: str) -> Iterator[tuple[Member, str | None]]:
    """By their places in the file; of the images nothing is read."""
    whole = pa.memory_map(str(file)).read_buffer()
    row = 0
    for batch in pa.ipc.open_stream(whole):
        batch.validate(full=True)  # or damaged offsets would be followed out of the file
        values, names = _bytes_and_names(batch.column(column))
        bounds, data = _bounds(values), values.buffers()[2]
        start = data.address - whole.address if data is not None else -1
        if bounds[-1] and not 0 <= start <= whole.size - bounds[-1]:
            raise InputError("is compressed, so it cannot be read in place", path=file, remedy="save it plain.")
        for (first, last), name in zip(pairwise(bounds), names, strict=True):
            _check_there(file, row, last - first)
            yield Member(file, f"row {row}", start + first, last - first), name
            row += 1


def _in_parquet(file: Path, column: str) -> Iterator[tuple[Cell, str | None]]:
    """The file is read once, for the images' sizes."""
    for group, rows in _row_groups(file):
        values, names = _group(file, group, column)
        for row, (first, last), name in zip(rows, pairwise(_bounds(values)), names, strict=True):
            _check_there(file, row, last - first)
            yield Cell(file, f"row {row}", row, last - first, column), name


def _bounds(values: Any) -> list[int]:
    """Where each value begins in the buffer of all, and where the last one ends; a missing one has no bytes."""
    width = np.int64 if pa.types.is_large_binary(values.type) else np.int32
    return np.frombuffer(values.buffers()[1], dtype=width)[values.offset : values.offset + len(values) + 1].tolist()


def _check_there(file: Path, row: int, size: int) -> None:
    if size <= 0:
        remedy = "save the images themselves, not their paths: cast_column('image', Image()) and save_to_disk."
        raise InputError(f"row {row} has no bytes of an image", path=file, remedy=remedy)


def _bytes_and_names(values: Any) -> tuple[Any, list[str | None]]:
    """The bytes of images, and their file names as far as they are kept."""
    if not pa.types.is_struct(values.type):
        return values, [None] * len(values)
    has_names = values.type.get_field_index("path") >= 0
    return values.field("bytes"), values.field("path").to_pylist() if has_names else [None] * len(values)


@lru_cache(maxsize=256)
def _row_groups(file: Path) -> tuple[tuple[int, range], ...]:
    metadata = pq.read_metadata(file)
    ends = np.cumsum([0, *(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))]).tolist()
    return tuple((group, range(ends[group], ends[group + 1])) for group in range(metadata.num_row_groups))


@lru_cache(maxsize=2)
def _group(file: Path, group: int, column: str) -> tuple[Any, list[str | None]]:
    """The last groups are kept: images are often read in their order."""
    return _bytes_and_names(pq.ParquetFile(file).read_row_group(group, [column]).column(column).combine_chunks())


def read_column(file: Path, column: str) -> list[Any]:
    try:
        if file.suffix == PARQUET:
            return pq.read_table(file, columns=[column]).column(column).to_pylist()
        with pa.memory_map(str(file)) as source:
            table = pa.ipc.open_stream(source).read_all().select([column])
            table.validate(full=True)
            return table.column(column).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _refuse(file, error) from error
