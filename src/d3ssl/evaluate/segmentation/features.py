"""Dense maps of a backbone, labels at their resolution, and the way back to the pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, Shaped, UInt8
from torch import Tensor

from d3ssl.data.ahead import read_ahead
from d3ssl.data.images import read_canvas
from d3ssl.data.semantic import IGNORED, SemanticSet
from d3ssl.distributed import collective_device, gather_rows, rank, world_size
from d3ssl.errors import InputError
from d3ssl.models import Backbone

_SCORES_AT_A_TIME = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An image with the truth about it."""

    index: int
    """Position in its set."""
    canvas: UInt8[np.ndarray, "S S C"]
    """The whole image stretched to a square, 0..255."""
    labels: Int64[np.ndarray, "H W"]
    """Of the image itself: 0..num_classes − 1, or 255 (ignored)."""


def read_samples(
    images: SemanticSet, indices: Sequence[int], *, size: int, channels: int, workers: int, batch_size: int
) -> Iterator[list[Sample]]:
    """Batches in the given order, decoded by threads while the backbone works.

    Raises:
        InputError: an image or its map cannot be used.
    """

    def read(index: int) -> Sample:
        canvas, _ = read_canvas(images.paths[index], size, channels)
        return Sample(index=index, canvas=canvas, labels=images.labels(index))

    items = read_ahead((partial(read, index) for index in indices), workers, 2 * batch_size)
    while found := list(islice(items, batch_size)):
        yield [_raise_error(item) for item in found]


def _raise_error(item: Sample | InputError) -> Sample:
    if isinstance(item, InputError):
        raise item
    return item


def own_part(count: int) -> range:
    """The images that this process deals with: consecutive ones, so that what all processes gather is in order."""
    return range(count * rank() // world_size(), count * (rank() + 1) // world_size())


def gather(rows: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "M ..."]:
    """The rows of all processes, on the CPU."""
    return gather_rows(rows.to(collective_device())).cpu() if world_size() > 1 else rows.cpu()


def dense_levels(backbone: Backbone, images: Float[Tensor, "B C S S"], levels: int) -> list[Float[Tensor, "B D h w"]]:
    """The last maps of the backbone, brought bilinearly to the size of the finest of them.

    Args:
        levels: how many; networks with fewer maps (ViTs have one) give all they have.
    """
    maps = backbone.maps(images)[-levels:]
    size = maps[0].shape[2:]
    return [maps[0], *(F.interpolate(own, size=size, mode="bilinear", align_corners=False) for own in maps[1:])]


def cells_of(maps: Float[Tensor, "B D h w"]) -> Float[Tensor, "N D"]:
    """The cells of all images, row by row: N = B·h·w."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def labels_at(labels: Int64[np.ndarray, "H W"], height: int, width: int) -> Int64[np.ndarray, "h w"]:
    """A label map at another size: the label of the pixel in which the centre of the new one lies."""
    rows = ((2 * np.arange(height) + 1) * labels.shape[0]) // (2 * height)
    columns = ((2 * np.arange(width) + 1) * labels.shape[1]) // (2 * width)
    return labels[np.ix_(rows, columns)]


def soft_labels(
    labels: Int64[np.ndarray, "H W"], height: int, width: int, stride: int, num_classes: int
) -> tuple[Float32[np.ndarray, "cells classes"], Float32[np.ndarray, "cells"]]:
    """What a cell's pixels are: the mean of their one-hot labels (Hummingbird, arXiv 2306.01667, section 3).

    Args:
        height, width: cells of the map.
        stride: pixels a side of a cell at which the labels are looked at.

    Returns:
        Shares of the classes among the pixels that are not ignored, row by row of cells; and the share of these pixels
        in the cell. A cell that is wholly ignored has no shares (zeros).
    """
    fine = labels_at(labels, height * stride, width * stride)
    cells = np.arange(height * width).reshape(height, width).repeat(stride, axis=0).repeat(stride, axis=1)
    counted = fine != IGNORED
    flat = cells[counted] * num_classes + fine[counted]
    counts = np.bincount(flat, minlength=height * width * num_classes).reshape(-1, num_classes).astype(np.float32)
    total = counts.sum(axis=1)
    return counts / np.maximum(total, 1)[:, None], total / np.float32(stride**2)


def name_pixels(scores: Float[Tensor, "classes h w"], height: int, width: int) -> Int64[np.ndarray, "H W"]:
    """The class of the greatest score at every pixel, the scores being upsampled bilinearly (as by
    ``interpolate(…, align_corners=False)``). Done in bands of rows: whole maps of all classes may be large."""
    down = _interpolation(scores.shape[1], height).to(scores)
    across = scores @ _interpolation(scores.shape[2], width).to(scores).T
    band = max(1, _SCORES_AT_A_TIME // (len(scores) * width))
    rows = [torch.einsum("ih,chw->ciw", part, across).argmax(dim=0) for part in down.split(band)]
    return torch.cat(rows).cpu().numpy()


def _interpolation(cells: int, pixels: int) -> Float32[Tensor, "pixels cells"]:
    """Weights of bilinear interpolation along one axis."""
    identity = torch.eye(cells)[None]
    return F.interpolate(identity, size=pixels, mode="linear", align_corners=False)[0].T.contiguous()
