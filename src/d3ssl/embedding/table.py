"""The Parquet file of the features, and the parts that it is joined from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from torch import Tensor

from d3ssl.console import warn
from d3ssl.embedding.regions import ImageRegions
from d3ssl.errors import D3sslError, InputError, one_line
from d3ssl.files import write_atomically

FORMAT = 1
"""Version of the file's layout."""
KEY = b"d3ssl_embeddings"
"""Of the entry in the file's metadata that says what the features are, in JSON."""
_SKIPPED = b"d3ssl_skipped"
_GROUP_BYTES = 64 * 2**20
"""Rows are written in groups of at least so many bytes: what is in memory at a time when the parts are joined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which columns there are."""

    dim: int
    """D, the size of a feature."""
    dtype: str
    """``float32`` or ``float16``."""
    has_regions: bool
    is_annotated: bool

    @property
    def schema(self) -> pa.Schema:
        number = pa.float32() if self.dtype == "float32" else pa.float16()
        fields = [("id", pa.string())]
        if self.has_regions:
            fields += [("region", pa.int32()), ("box", pa.list_(pa.float32(), 4))]
        if self.is_annotated:
            fields += [("annotation_id", pa.int64()), ("class_name", pa.string())]
        fields.append(("feature", pa.list_(number, self.dim)))
        return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])


def make_table(
    layout: Layout, ids: Sequence[str], regions: Sequence[ImageRegions], features: Float[Tensor, "N D"]
) -> pa.Table:
    """Rows of some images.

    Args:
        ids: of the images.
        regions: of each image; empty if whole images are embedded.
        features: image by image, float32.

    Raises:
        D3sslError: a feature is too large for float16.
    """
    with np.errstate(over="ignore"):  # told below
        flat = features.numpy().astype(layout.dtype).reshape(-1)
    if not np.isfinite(flat).all():
        problem = f"a feature of {float(features.abs().max()):.3g} is too large for float16 (65504 at most)"
        raise D3sslError(problem, remedy="begin again with --dtype float32.")
    columns: dict[str, pa.Array] = {"feature": pa.FixedSizeListArray.from_arrays(pa.array(flat), layout.dim)}
    if layout.has_regions:
        own = list(zip(ids, regions, strict=True))
        ids = [name for name, found in own for _ in found.number]
        boxes = [value for found in regions for value in found.boxes.reshape(-1)]
        columns["region"] = pa.array([number for found in regions for number in found.number], pa.int32())
        columns["box"] = pa.FixedSizeListArray.from_arrays(pa.array(boxes, pa.float32()), 4)
    if layout.is_annotated:
        columns["annotation_id"] = pa.array(
            [key for found in regions for key in (found.annotation_ids if found.annotation_ids is not None else ())],
            pa.int64(),
        )
        columns["class_name"] = pa.array([name for found in regions for name in found.class_names or ()], pa.string())
    columns["id"] = pa.array(ids, pa.string())
    return pa.table([columns[name] for name in layout.schema.names], schema=layout.schema)


def write_part(path: Path, table: pa.Table, skipped: dict[str, str]) -> None:
    """A part, with the images of it that could not be read: id → reason."""
    table = table.replace_schema_metadata({_SKIPPED: json.dumps(skipped).encode()})
    with write_atomically(path) as temporary:
        pq.write_table(table, temporary, compression="none")


def skipped_in(path: Path) -> dict[str, str] | None:
    """The images that could not be read in a part; None: there is no such part, or not a whole one."""
    if not path.exists():
        return None
    try:
        return json.loads((pq.read_schema(path).metadata or {})[_SKIPPED])
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        warn(f"{path}: the part cannot be read ({one_line(error)}); it is made again")
        return None


def join(out: Path, parts: Sequence[Path], layout: Layout, about: dict[str, Any]) -> int:
    """Write the parts as one file, atomically. Returns the number of rows.

    Args:
        about: what the features are; kept under ``KEY``.
    """
    schema = layout.schema.with_metadata({KEY: json.dumps(about, sort_keys=True).encode()})
    words = [name for name in ("id", "class_name") if name in schema.names]
    count, waiting = 0, []
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": words}
    with write_atomically(out) as temporary, pq.ParquetWriter(temporary, schema, **options) as writer:
        for path in parts:
            with pq.ParquetFile(path) as file:
                waiting.append(file.read())
            count += len(waiting[-1])
            if sum(table.nbytes for table in waiting) >= _GROUP_BYTES:
                _write_group(writer, waiting)
                waiting = []
        if waiting:
            _write_group(writer, waiting)
    return count


def _write_group(writer: pq.ParquetWriter, tables: list[pa.Table]) -> None:
    whole = pa.concat_tables(tables)
    writer.write_table(whole, row_group_size=max(1, len(whole)))


def read_about(path: str | Path) -> dict[str, Any]:
    """What the features in a file are: ``backbone``, ``data``, ``options``, ``versions``, ``skipped`` (id → reason).

    Raises:
        InputError: no such file, damaged, or not one of ``d3ssl embed``.
    """
    remedy = "check the path, or choose another one for the features."
    if not Path(path).is_file():
        raise InputError("no such file", path=path, remedy=remedy)
    try:
        about = json.loads((pq.read_schema(path).metadata or {}).get(KEY, b"null"))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = one_line(error)
        raise InputError(f"is not a whole Parquet file ({reason})", path=path, remedy=remedy) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError("is a Parquet file, but not one of d3ssl embed", path=path, remedy=remedy)
    return about
