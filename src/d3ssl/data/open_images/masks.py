"""The masks of Open Images: which object each belongs to, and their PNG files as run lengths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from PIL import Image

from d3ssl.console import progress
from d3ssl.data.images import read_image
from d3ssl.data.open_images.classes import BoxableClasses
from d3ssl.data.open_images.columns import MASK_COLUMNS, SIDES, stream
from d3ssl.data.open_images.objects import ImageIndex, ObjectTable
from d3ssl.errors import InputError

MATCH_TOLERANCE = 2e-3
"""A mask belongs to the box of its image and class whose sides are nearest to those of the mask's own box, when none
is farther than this; share of the image's side (2 px of 1024). The files have no common key of boxes."""


def match_masks(
    path: Path, classes: BoxableClasses, images: np.ndarray, table: ObjectTable, chunk_bytes: int
) -> tuple[tuple[str | None, ...], int]:
    """Find the masks of the objects of a split.

    Args:
        path: ``…-annotations-object-segmentation.csv``.
        images: the split's image ids, uint64, in the order of the list.

    Returns:
        For every object its mask's file name or None; and how many masks of these images and classes match no box.
        A box gets the nearest mask, a mask one box at most; ties: by the name of the mask, then the order of boxes.

    Raises:
        InputError: as ``stream``.
    """
    index, found = ImageIndex(images), []
    with progress(f"masks of {path.name} (MB)", max(1, path.stat().st_size // 1_000_000)) as ticker:
        for chunk in stream(path, MASK_COLUMNS, classes.numbers(), chunk_bytes, ticker):
            position = index.positions(chunk["ImageID"])
            sides = np.stack([chunk[f"Box{side}"] for side in SIDES], axis=1)
            found += [
                (chunk["MaskPath"][row], int(position[row]), int(chunk["LabelName"][row]), sides[row])
                for row in np.flatnonzero(position >= 0).tolist()
            ]
    key = table.image * len(classes) + table.label
    kept, candidates, unmatched = set(table.label.tolist()), [], set()
    for name, image, label, box in found:
        if label not in kept:
            continue
        unmatched.add(name)
        wanted = image * len(classes) + label
        for row in range(*np.searchsorted(key, [wanted, wanted + 1]).tolist()):
            distance = float(np.abs(table.sides[row] - box).max())
            if distance <= MATCH_TOLERANCE:
                candidates.append((distance, name, row))
    masks: list[str | None] = [None] * len(table)
    for _, name, row in sorted(candidates):
        if name in unmatched and masks[row] is None:
            masks[row] = name
            unmatched.remove(name)
    return tuple(masks), len(unmatched)


def find_mask_files(folder: Path, table: ObjectTable) -> dict[str, Path]:
    """File name → path of all masks of a table, searched in a folder and its subfolders.

    Raises:
        InputError: one is missing; names it.
    """
    if not folder.is_dir():
        raise InputError("no such folder of masks", path=folder, remedy="check the path.")
    files = {path.name: path for path in folder.rglob("*.png")}
    wanted = [name for name in table.masks if name is not None]
    missing = [name for name in wanted if name not in files]
    if missing:
        problem = f"lacks {len(missing)} of {len(wanted)} masks, such as {missing[0]}"
        raise InputError(problem, path=folder, remedy="unpack all mask archives of the split into this folder.")
    return {name: files[name] for name in wanted}


def run_lengths(path: Path, height: int, width: int) -> dict[str, Any]:
    """A mask file as COCO's packed run lengths: what is not 0 belongs to the object. A file of another size than the
    image is stretched to it (nearest pixel).

    Raises:
        InputError: it cannot be read.
    """
    mask = (read_image(path).max(axis=2) > 0).astype(np.uint8)
    if mask.shape != (height, width):
        mask = np.array(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    packed: Mapping[str, Any] = rle.encode(np.asfortranarray(mask))
    counts = packed["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [height, width], "counts": text}
