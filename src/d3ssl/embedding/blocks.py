"""The work: blocks of images through the backbone, a part on disk each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from d3ssl.console import Ticker, progress, say, warn
from d3ssl.data.ahead import read_ahead
from d3ssl.data.bad_images import SHOWN, listed, too_many_bad
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import read_canvas
from d3ssl.embedding.config import EmbedConfig
from d3ssl.embedding.regions import ImageRegions, Regions
from d3ssl.embedding.table import Layout, make_table, skipped_in, write_part
from d3ssl.errors import InputError
from d3ssl.evaluate.encode import encode_images, encode_masks, encode_regions
from d3ssl.evaluate.features import check_finite, frozen, pick_device
from d3ssl.models import Backbone

BLOCK = 256
"""Images in a part: what a killed process loses at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done."""

    backbone: Backbone
    images: ImageSet
    regions: Regions | None
    """None: whole images."""
    config: EmbedConfig
    size: int
    """Side to which images are stretched, px."""

    @property
    def layout(self) -> Layout:
        return Layout(
            dim=self.backbone.channels[self.config.level],
            dtype=self.config.dtype,
            has_regions=self.regions is not None,
            is_annotated=self.regions is not None and self.regions.is_annotated,
        )

    def wanted(self) -> list[int]:
        """The images that have something to be embedded."""
        every = range(len(self.images))
        return list(every) if self.regions is None else [n for n in every if len(self.regions.of(n).number)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image as it is read."""

    name: str
    canvas: UInt8[np.ndarray, "S S C"]
    regions: ImageRegions | None = None
    boxes: Float32[np.ndarray, "K 4"] | None = None
    """In px of the canvas."""
    masks: Bool[np.ndarray, "K H W"] | None = None


def make_parts(work: Work, folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Make the parts that are missing.

    Returns:
        The parts in the order of the data, and the images that are left out: id → reason.

    Raises:
        InputError: too many images cannot be read; the parts that lack some are removed, so that repaired images are
            tried again.
        D3sslError: features that are not finite, or the disk is full.
    """
    wanted = work.wanted()
    blocks = [wanted[start : start + BLOCK] for start in range(0, len(wanted), BLOCK)]
    paths = [folder / f"{number:06d}.parquet" for number in range(len(blocks))]
    bad = {number: own for number, path in enumerate(paths) if (own := skipped_in(path)) is not None}
    pending = [number for number in range(len(blocks)) if number not in bad]
    done = len(wanted) - sum(len(blocks[number]) for number in pending)
    if done:
        say(f"continuing: {done} of {len(wanted)} images were done before")
    _check_bad(work, bad, paths, len(wanted))
    device = pick_device(work.config.device)
    say(
        f"{work.config.kind} on map {work.config.level} of {work.backbone.timm_name}: {len(wanted)} images at "
        f"{work.size} px, on {device.type}"
    )
    with frozen(work.backbone, device), progress("embedding", len(wanted), done) as ticker:
        jobs = (partial(_read, work, index) for number in pending for index in blocks[number])
        items = read_ahead(jobs, work.config.workers, 2 * work.config.batch_size)
        for number in pending:
            bad[number] = _make_part(work, blocks[number], items, paths[number], ticker)
            _check_bad(work, bad, paths, len(wanted))
    return paths, _left_out(work, bad, len(wanted))


def _make_part(
    work: Work, block: Sequence[int], items: Iterator[Item | InputError], path: Path, ticker: Ticker
) -> dict[str, str]:
    """Write the part of a block. Returns the images of it that cannot be read."""
    tables: list[pa.Table] = []
    skipped: dict[str, str] = {}
    size = work.config.batch_size
    for start in range(0, len(block), size):
        batch = block[start : start + size]
        read = list(islice(items, len(batch)))
        for index, item in zip(batch, read, strict=True):
            if isinstance(item, InputError):
                skipped[work.images.ids[index]] = item.problem
        tables.append(_rows(work, [item for item in read if isinstance(item, Item)]))
        ticker.advance(len(batch))
    write_part(path, pa.concat_tables(tables), skipped)
    return skipped


def _read(work: Work, index: int) -> Item:
    """Decode one image, and the masks of its regions where they count."""
    name, regions = work.images.ids[index], work.regions
    canvas, size = read_canvas(work.images.paths[index], work.size, work.backbone.in_channels)
    if regions is None:
        return Item(name=name, canvas=canvas)
    regions.check_size(index, size)
    found = regions.of(index)
    if work.config.kind == "masks":
        return Item(name=name, canvas=canvas, regions=found, masks=regions.masks(index))
    scale = np.array([work.size / size[1], work.size / size[0]] * 2, dtype=np.float32)
    return Item(name=name, canvas=canvas, regions=found, boxes=found.boxes * scale)


def _rows(work: Work, items: Sequence[Item]) -> pa.Table:
    """The rows of a batch. Call it inside ``frozen``."""
    features = _encode(work, items) if items else torch.zeros(0, work.layout.dim)
    check_finite(features, work.config.kind)
    regions = [item.regions for item in items if item.regions is not None]
    return make_table(work.layout, [item.name for item in items], regions, features)


def _encode(work: Work, items: Sequence[Item]) -> Float32[Tensor, "N D"]:
    canvases, level = np.stack([item.canvas for item in items]), work.config.level
    if work.config.kind == "images":
        return encode_images(work.backbone, canvases, level)
    if work.config.kind == "boxes":
        return encode_regions(work.backbone, canvases, [i.boxes for i in items if i.boxes is not None], level)
    return encode_masks(work.backbone, canvases, [i.masks for i in items if i.masks is not None], level)


def _check_bad(work: Work, bad: dict[int, dict[str, str]], paths: Sequence[Path], total: int) -> None:
    """Raise InputError if too many images cannot be read."""
    named = [f"{name}: {problem}" for own in bad.values() for name, problem in own.items()]
    if not too_many_bad(len(named), total, work.config.max_bad_share):
        return
    for number in (number for number, own in bad.items() if own):
        paths[number].unlink(missing_ok=True)
    problem = f"{len(named)} of {total} images cannot be used so far:\n  " + "\n  ".join(named[:SHOWN])
    remedy = "repair or remove them, or raise --max_bad_share and continue with --resume."
    raise InputError(problem, path=work.images.root, remedy=remedy)


def _left_out(work: Work, bad: dict[int, dict[str, str]], total: int) -> dict[str, str]:
    """Say which images are left out. Returns id → reason, in the order of the data."""
    skipped = {name: problem for number in sorted(bad) for name, problem in bad[number].items()}
    if skipped:
        named = [f"{name}: {problem}" for name, problem in skipped.items()]
        warn(f"{len(skipped)} of {total} images are left out:\n  {listed(named)}")
    without = {} if work.regions is None else work.regions.left_out()
    if without:
        warn(f"{len(without)} images have no regions: they could not be read when the regions were computed")
    return skipped | {work.images.ids[index]: reason for index, reason in without.items()}
