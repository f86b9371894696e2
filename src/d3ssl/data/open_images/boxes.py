"""The boxes of Open Images: which are sound, and which count as objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64, UInt64

from d3ssl.console import progress, warn
from d3ssl.data.open_images.classes import BoxableClasses
from d3ssl.data.open_images.columns import BOX_COLUMNS, FLAGS, SIDES, image_name, stream
from d3ssl.errors import InputError

TOLERANCE = 1e-3
"""How far a box may reach beyond the image before it counts as unsound, share of a side (a pixel of 1024)."""
MAX_BAD_SHARE = 1e-4
"""Share of unsound boxes up to which they are left out with a warning; more are an error. As for COCO files."""
GROUP, DEPICTION = FLAGS.index("IsGroupOf"), FLAGS.index("IsDepiction")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxRows:
    """Rows of a box file."""

    images: UInt64[np.ndarray, "rows"]
    """Image ids, their digits as numbers."""
    labels: Int64[np.ndarray, "rows"]
    """Positions in ``BoxableClasses``."""
    sides: Float64[np.ndarray, "rows 4"]
    """x from, x to, y from, y to (the order of the files), each clipped to 0..1."""
    flags: Int8[np.ndarray, "rows 5"]
    """1, 0 or −1 (unknown), in the order of ``FLAGS``."""


def counts(flags: Int8[np.ndarray, "rows 5"], unknown_counts: bool) -> Bool[np.ndarray, "rows"]:
    """Which boxes count as objects: neither a group nor a depiction. Where one of the two is unknown (−1), the box
    counts if ``unknown_counts`` and the other is not 1."""
    known = flags[:, [GROUP, DEPICTION]]
    return np.all((known <= 0) if unknown_counts else (known == 0), axis=1)


def stream_boxes(path: Path, classes: BoxableClasses, chunk_bytes: int, label: str) -> Iterator[BoxRows]:
    """Read a box file (any release from V4 to V7) chunk by chunk, showing progress.

    Boxes without width or height and those that reach outside the image are left out with a warning when they are at
    most ``MAX_BAD_SHARE`` of all, and an error otherwise.

    Raises:
        InputError: a missing column, an unknown class, a malformed value, an empty file; names line and column.
    """
    bad, total, first = 0, 0, ""
    with progress(f"{label} (MB)", max(1, path.stat().st_size // 1_000_000)) as ticker:
        for chunk in stream(path, BOX_COLUMNS, classes.numbers(), chunk_bytes, ticker):
            sides = np.stack([chunk[name] for name in SIDES], axis=1)
            clipped = np.clip(sides, 0, 1)
            solid = (clipped[:, 1] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 2])
            good = solid & (np.abs(sides - clipped) <= TOLERANCE).all(axis=1)
            total += len(good)
            if not good.all():
                row = int(np.flatnonzero(~good)[0])
                shown = ", ".join(f"{name} {value:g}" for name, value in zip(SIDES, sides[row], strict=True))
                first = first or f"image {image_name(int(chunk['ImageID'][row]))} has the box {shown}"
                bad += int(np.count_nonzero(~good))
            yield BoxRows(
                images=chunk["ImageID"][good],
                labels=chunk["LabelName"][good],
                sides=clipped[good],
                flags=np.stack([chunk[name] for name in FLAGS], axis=1)[good],
            )
        ticker.advance(ticker.total - ticker.done)
    if bad:
        problem = f"{bad} of {total} boxes have no area or reach outside the image; {first}"
        if bad > MAX_BAD_SHARE * total:
            raise InputError(problem, path=path, remedy="are XMin, XMax, YMin, YMax shares of the image, 0 to 1?")
        warn(f"{path}: {problem}; they are left out")
