"""The regions of many images, in memory and in a Parquet file with one row an image."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64, UInt8
from PIL import Image

from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import image_size
from d3ssl.data.pil_formats import DAMAGE, open_picture
from d3ssl.data.place import Place, file_bytes
from d3ssl.errors import InputError, first_names, one_line
from d3ssl.files import digest, write_atomically

FORMAT = 1
"""Version of the file's layout."""
_KEY = b"d3ssl_regions"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("file_bytes", pa.int64()),
        pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4)), nullable=False),
        pa.field("label_map", pa.binary()),
    ]
)
_MAKE_AGAIN = "make it again with d3ssl regions."
_SIZE_CHECKS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionTable:
    """Regions of images, one entry an image."""

    ids: tuple[str, ...]
    """As in the image set, unique."""
    sizes: Int64[np.ndarray, "images 2"]
    """Height and width of the original images, px."""
    boxes: Sequence[np.ndarray]
    """For every image (r, 4) float32: xyxy, px of the original image, inside it, at least one."""
    label_maps: Sequence[bytes | None]
    """PNG of 8 bits at the computed size: value r + 1 belongs to box r, 0 to none; a region may have no pixels: it is
    hidden behind others, or an annotated object without a mask. None: the regions are boxes."""
    metadata: dict[str, Any]
    """``method``, ``params``, ``data_digest`` (of the image set), ``digest`` (of the regions), ``skipped`` (id → why an
    image is missing here), ``d3ssl`` (version)."""
    file_bytes: Int64[np.ndarray, "images"] | None = None
    """Sizes of the image files, bytes: tells images from others of the same name. None: not known."""

    def __len__(self) -> int:
        return len(self.ids)

    def label_map(self, row: int, side: int | None = None) -> UInt8[np.ndarray, "h w"] | None:
        """Pixels of an image's label map; None: it has none.

        Args:
            side: stretch it to a square of this side, px, by the nearest pixel.

        Raises:
            InputError: it is damaged.
        """
        png = self.label_maps[row]
        if png is None:
            return None
        try:
            picture = open_picture(io.BytesIO(png), ("PNG",))
            return np.asarray(picture if side is None else picture.resize((side, side), Image.Resampling.NEAREST))
        except DAMAGE as error:
            problem = f"the label map of {self.ids[row]} in the regions file cannot be read ({error})"
            raise InputError(problem, remedy="make the regions file again with d3ssl regions.") from error

    def check_size(self, row: int, found: tuple[int, int], path: Place) -> None:
        """Raise InputError if an image, which lies at ``path``, is not (height, width) as large as its regions say."""
        known = tuple(int(side) for side in self.sizes[row])
        if known != tuple(found):
            problem = f"is {found[1]}×{found[0]} px, but its regions were made at {known[1]}×{known[0]}"
            raise InputError(problem, path=path, remedy="compute the regions again.")


def content_digest(table: RegionTable) -> str:
    """Identifies the regions: ids, sizes, boxes and label maps."""
    counts = np.array([len(boxes) for boxes in table.boxes], dtype=np.int64)
    return digest(
        "\0".join(table.ids),
        np.ascontiguousarray(table.sizes, dtype=np.int64).tobytes(),
        counts.tobytes(),
        *(np.ascontiguousarray(boxes, dtype=np.float32).tobytes() for boxes in table.boxes),
        *(png or b"" for png in table.label_maps),
    )


def write_regions(path: str | Path, table: RegionTable) -> None:
    """Write a Parquet file: columns id, height, width, file_bytes, boxes (lists of four floats), label_map (PNG).

    Raises:
        D3sslError: the disk is full or the folder cannot be written.
    """
    counts = [len(boxes) for boxes in table.boxes]
    flat = np.concatenate([np.empty((0, 4), dtype=np.float32), *table.boxes]).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    four = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), 4)
    columns = [
        pa.array(table.ids, pa.string()),
        pa.array(table.sizes[:, 0].astype(np.int32)),
        pa.array(table.sizes[:, 1].astype(np.int32)),
        pa.nulls(len(table), pa.int64()) if table.file_bytes is None else pa.array(table.file_bytes, pa.int64()),
        pa.ListArray.from_arrays(pa.array(offsets), four),
        pa.array(table.label_maps, pa.binary()),
    ]
    metadata = {_KEY: json.dumps({"format": FORMAT, **table.metadata}, sort_keys=True).encode()}
    with write_atomically(path) as temporary:
        pq.write_table(pa.table(columns, schema=_SCHEMA.with_metadata(metadata)), temporary, compression="zstd")


def read_regions(path: str | Path) -> RegionTable:
    """Read a regions file.

    Raises:
        InputError: no such file, damaged, not a regions file, or with boxes that cannot be.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such regions file", path=path, remedy="check the path, or " + _MAKE_AGAIN)
    try:
        with pq.ParquetFile(path) as file:
            columns = file.read()
        columns.validate(full=True)
        stored = json.loads((columns.schema.metadata or {}).get(_KEY, b"null"))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = one_line(error)
        raise InputError(f"is not a whole Parquet file ({reason})", path=path, remedy=_MAKE_AGAIN) from error
    if not isinstance(stored, dict) or not set(_SCHEMA.names) <= set(columns.column_names):
        raise InputError("is a Parquet file, but not one of d3ssl's regions", path=path, remedy=_MAKE_AGAIN)
    if stored.pop("format", None) != FORMAT:
        raise InputError("was written in another version's layout", path=path, remedy=_MAKE_AGAIN)
    try:
        columns = columns.select(_SCHEMA.names).cast(_SCHEMA).combine_chunks()  # others may have added columns
        columns.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        reason = one_line(error)
        raise InputError(f"has columns of other kinds ({reason})", path=path, remedy=_MAKE_AGAIN) from error
    table = _from_columns(columns, stored)
    _check(path, table)
    return table


def _from_columns(columns: pa.Table, metadata: dict[str, Any]) -> RegionTable:
    def numbers(name: str) -> np.ndarray:
        return columns[name].to_numpy().astype(np.int64)

    lists = columns["boxes"].combine_chunks()
    # Copied: pyarrow's arrays are read-only, and torch warns about those.
    flat = np.array(lists.flatten().flatten().to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, 4)
    cuts = np.cumsum(np.diff(lists.offsets.to_numpy()))
    return RegionTable(
        ids=tuple(columns["id"].to_pylist()),
        sizes=np.stack([numbers("height"), numbers("width")], axis=1).reshape(-1, 2),
        boxes=np.split(flat, cuts[:-1]) if len(columns) else [],
        label_maps=columns["label_map"].to_pylist(),
        metadata=metadata,
        file_bytes=None if columns["file_bytes"].null_count else numbers("file_bytes"),
    )


def _check(path: Path, table: RegionTable) -> None:
    """Boxes have an area and lie inside their images; every image has one; ids are unique."""
    if len(set(table.ids)) != len(table):
        raise InputError("names an image twice", path=path, remedy=_MAKE_AGAIN)
    counts = np.array([len(boxes) for boxes in table.boxes], dtype=np.int64)
    for row in np.flatnonzero(counts == 0)[:1]:
        raise InputError(f"has no region for the image {table.ids[row]}", path=path, remedy=_MAKE_AGAIN)
    flat = np.concatenate([np.empty((0, 4), dtype=np.float32), *table.boxes])
    limits = np.repeat(table.sizes, counts, axis=0)[:, [1, 0]] + 1e-3
    good = (flat[:, :2] >= 0).all(1) & (flat[:, 2:] > flat[:, :2]).all(1) & (flat[:, 2:] <= limits).all(1)
    for box in np.flatnonzero(~good)[:1]:
        image = table.ids[np.repeat(np.arange(len(table)), counts)[box]]
        problem = f"has the box {flat[box].tolist()} for the image {image}, which is degenerate or outside of it"
        raise InputError(problem, path=path, remedy=_MAKE_AGAIN)


def image_changes(table: RegionTable, image_set: ImageSet, *, are_all: bool) -> str:
    """How images differ from those that regions were made for, by name and size in bytes: ``changed: a.jpg``.

    Args:
        are_all: the regions were made for no more images than these.
    """
    known = dict(zip(table.ids, [None] * len(table) if table.file_bytes is None else table.file_bytes, strict=True))
    skipped = table.metadata.get("skipped", {})
    found = dict(zip(image_set.ids, image_set.paths, strict=True))
    sizes = {name: file_bytes(path) for name, path in found.items() if known.get(name) is not None}
    changes = {
        "changed": [name for name, size in sizes.items() if size not in (known[name], -1)],
        "missing": [name for name in known if sizes.get(name) == -1 or (are_all and name not in found)],
        "new": [name for name in found if name not in known and name not in skipped],
    }
    return "; ".join(f"{kind}: {first_names(names)}" for kind, names in changes.items() if names)


def check_regions(table: RegionTable, image_set: ImageSet) -> None:
    """Make sure that regions were made for these images; regions of more images than these are welcome.

    Every image must be in the table (or be named there as unreadable) with a file of the same number of bytes; where
    these are not known, the sizes in px of some images are compared.

    Raises:
        InputError: with the images at fault.
    """
    if table.metadata.get("data_digest") == image_set.digest():
        return
    row_of = {image_id: row for row, image_id in enumerate(table.ids)}
    skipped = table.metadata.get("skipped", {})
    missing = [image_id for image_id in image_set.ids if image_id not in row_of and image_id not in skipped]
    if missing:
        problem = (
            f"the regions file has no regions for {len(missing)} of {len(image_set)} images: {first_names(missing)}"
        )
        raise InputError(problem, path=image_set.root, remedy="compute regions for these images: d3ssl regions.")
    rows = [
        (row_of[image_id], path)
        for image_id, path in zip(image_set.ids, image_set.paths, strict=True)
        if image_id in row_of
    ]
    if table.file_bytes is not None:
        found = [(row, path, file_bytes(path)) for row, path in rows]
        gone = [str(path) for _, path, size in found if size < 0]
        if gone:
            problem = f"{len(gone)} images that have regions cannot be found: {first_names(gone)}"
            raise InputError(
                problem, path=image_set.root, remedy="restore them, or compute regions again: d3ssl regions."
            )
        other = [table.ids[row] for row, _, size in found if size != int(table.file_bytes[row])]
    else:
        some = rows[:: max(1, len(rows) // _SIZE_CHECKS)]
        other = [table.ids[row] for row, path in some if image_size(path) != tuple(table.sizes[row].tolist())]
    if other:
        problem = f"the regions file was made for other images of the same names: {first_names(other)}"
        raise InputError(problem, path=image_set.root, remedy="compute regions for these images: d3ssl regions.")
