"""The objects of the chosen images, with all that Open Images says of them, exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float64, Int8, Int64, UInt64

from d3ssl.data.open_images.boxes import BoxRows
from d3ssl.errors import InputError, one_line
from d3ssl.files import write_atomically

_SIDES = ("x_min", "x_max", "y_min", "y_max")
FLAG_NAMES = ("is_occluded", "is_truncated", "is_group_of", "is_depiction", "is_inside")
"""``FLAGS`` as they are called in the files written here."""
_SCHEMA = pa.schema(
    [
        pa.field("image", pa.int64(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in _SIDES),
        *(pa.field(name, pa.int8(), nullable=False) for name in FLAG_NAMES),
        pa.field("mask", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectTable:
    """All boxes of kept classes in the chosen images: sorted by image, class, sides and flags."""

    image: Int64[np.ndarray, "objects"]
    """Position of the image in the list, 0 for the first."""
    label: Int64[np.ndarray, "objects"]
    """Position of the class in ``BoxableClasses``."""
    sides: Float64[np.ndarray, "objects 4"]
    """x from, x to, y from, y to; shares of the image's sides, 0..1."""
    flags: Int8[np.ndarray, "objects 5"]
    """1, 0 or −1 (unknown), in the order of ``FLAG_NAMES``."""
    masks: tuple[str | None, ...]
    """File names of the masks; None: Open Images has none."""

    def __len__(self) -> int:
        return len(self.image)


class ImageIndex:
    """Finds images in a list by id."""

    def __init__(self, images: UInt64[np.ndarray, "images"]) -> None:
        self._order = np.argsort(images, kind="stable")
        self._sorted = images[self._order]

    def positions(self, images: UInt64[np.ndarray, "rows"]) -> Int64[np.ndarray, "rows"]:
        """Position in the list of each image; −1: it is not in the list."""
        if len(self._sorted) == 0:
            return np.full(len(images), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._sorted, images), len(self._sorted) - 1)
        return np.where(self._sorted[place] == images, self._order[place], -1).astype(np.int64)


def gather_objects(
    chunks: Iterable[BoxRows], images: UInt64[np.ndarray, "images"], kept: Bool[np.ndarray, "classes"]
) -> tuple[ObjectTable, int]:
    """The objects of the chosen images, in an order of their own, whatever the order of rows; and how many boxes of
    other classes these images have."""
    index, others = ImageIndex(images), 0
    none = np.empty(0, dtype=np.int64)
    parts = [(none, none, np.empty((0, 4)), np.empty((0, 5), dtype=np.int8))]
    for rows in chunks:
        position = index.positions(rows.images)
        chosen = position >= 0
        others += int(np.count_nonzero(chosen & ~kept[rows.labels]))
        chosen &= kept[rows.labels]
        parts.append((position[chosen], rows.labels[chosen], rows.sides[chosen], rows.flags[chosen]))
    image, label, sides, flags = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((*flags.T[::-1], *sides.T[::-1], label, image))
    table = ObjectTable(
        image=image[order], label=label[order], sides=sides[order], flags=flags[order], masks=(None,) * len(order)
    )
    return table, others


def with_masks(table: ObjectTable, masks: tuple[str | None, ...]) -> ObjectTable:
    """The same objects with these masks."""
    return replace(table, masks=masks)


def write_objects(path: Path, table: ObjectTable) -> None:
    """Write the table as Parquet, one row an object."""
    columns = [table.image, table.label, *table.sides.T, *table.flags.T]
    arrays = [pa.array(np.ascontiguousarray(column)) for column in columns] + [pa.array(table.masks, pa.string())]
    with write_atomically(path) as temporary:
        pq.write_table(pa.table(arrays, schema=_SCHEMA), temporary, compression="zstd")


def read_objects(path: Path) -> ObjectTable:
    """Read what ``write_objects`` wrote.

    Raises:
        InputError: no such file, damaged, or of another kind.
    """
    try:
        with pq.ParquetFile(path) as file:
            columns = file.read().cast(_SCHEMA).combine_chunks()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = one_line(error)
        remedy = "build the benchmark again."
        raise InputError(f"cannot be read as a table of objects ({reason})", path=path, remedy=remedy) from error
    return ObjectTable(
        image=columns["image"].to_numpy(),
        label=columns["label"].to_numpy(),
        sides=np.stack([columns[name].to_numpy() for name in _SIDES], axis=1),
        flags=np.stack([columns[name].to_numpy() for name in FLAG_NAMES], axis=1),
        masks=tuple(columns["mask"].to_pylist()),
    )
