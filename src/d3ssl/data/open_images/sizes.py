"""Sizes of the images, which the box files do not tell."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt64

from d3ssl.data.open_images.columns import SIZE_COLUMNS, image_name, stream
from d3ssl.data.open_images.objects import ImageIndex
from d3ssl.errors import InputError
from d3ssl.files import write_text

NOMINAL = 1024
"""Height and width, px, that boxes are written for while the true size is not known. 1024: the longest side of the
images that Open Images offers for download. The entry then says ``"size_known": false``."""


def read_sizes(path: Path, images: UInt64[np.ndarray, "images"], chunk_bytes: int) -> Int64[np.ndarray, "images 2"]:
    """Height and width of the images, px, from a CSV file with the columns ImageID, Width and Height.

    Raises:
        InputError: malformed, or an image is missing; names it.
    """
    index, sizes = ImageIndex(images), np.zeros((len(images), 2), dtype=np.int64)
    for chunk in stream(path, SIZE_COLUMNS, {}, chunk_bytes):
        position = index.positions(chunk["ImageID"])
        rows = position >= 0
        sizes[position[rows]] = np.stack([chunk["Height"], chunk["Width"]], axis=1)[rows]
    missing = np.flatnonzero(sizes[:, 0] == 0)
    if len(missing):
        problem = f"has no size of {len(missing)} chosen images, such as {image_name(int(images[missing[0]]))}"
        raise InputError(problem, path=path, remedy="add them, or build without sizes: download finds them.")
    return sizes


def write_sizes(path: Path, ids: list[str], sizes: Int64[np.ndarray, "images 2"]) -> None:
    """Write what ``read_sizes`` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("ImageID", "Width", "Height"))
    writer.writerows((name, width, height) for name, (height, width) in zip(ids, sizes.tolist(), strict=True))
    write_text(path, text.getvalue())
