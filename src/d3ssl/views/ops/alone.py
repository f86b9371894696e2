"""Alone: each region by itself on the mean colour, so that nothing else can be told from its feature."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots, View
from d3ssl.views.geometry import clip_boxes, map_boxes, warp, warp_labels
from d3ssl.views.masks import Carrier, pixel_corners, spans
from d3ssl.views.ops.operation import Operation


@dataclass(frozen=True, kw_only=True)
class Alone(Operation):
    """A view of B images with K regions becomes one of B·K images: the pixels of one region, in the middle.

    The scale is the view's own; only a region that is larger than ``size`` is made smaller. It is moved by whole
    pixels, so that nothing is resampled.
    """

    name: ClassVar[str] = "alone"
    size: int | None = None
    """Side of the small images, px; None: that of the view."""
    carried_by: Carrier = "mask"
    """The pixels of the region's mask (its box, where it has none), or its whole box."""

    @property
    def needs_masks(self) -> bool:
        return self.carried_by == "mask"

    def sample(self, batch: CanvasBatch, slots: int, generator: torch.Generator) -> None:
        """Nothing is random."""

    def apply(self, view: View, slots: Slots, drawn: None, whole: Tensor) -> View:
        count, (height, width) = slots.source.shape[1], view.images.shape[2:]
        side = self.size or max(height, width)
        moved = view.boxes.gather(1, slots.source[..., None].expand_as(view.boxes))  # operations move distinct slots
        view = dataclasses.replace(view, boxes=moved)
        own = region_pixels(view, slots, self.carried_by).flatten(0, 1)
        boxes = clip_boxes(view.boxes, (height, width))[0].flatten(0, 1)
        matrix = centre_matrix(boxes, side)
        single = view.images.repeat_interleave(count, 0) * own[:, None]
        return View(
            images=warp(single, matrix, (side, side)),
            boxes=clip_boxes(map_boxes(boxes[:, None], matrix), (side, side))[0],
            matrix=matrix @ view.matrix.repeat_interleave(count, 0),
            keep=warp_labels(own.byte(), matrix, (side, side))[:, None] > 0,
            labels=warp_labels(own.byte(), matrix, (side, side)),
        )


def region_pixels(view: View, slots: Slots, carried_by: Carrier) -> Bool[Tensor, "B K H W"]:
    """The pixels of each slot's region: of its mask where it has one, else of its box."""
    size = view.images.shape[2], view.images.shape[3]
    rows, columns = spans(pixel_corners(view.boxes, size), size)
    boxed = (rows[..., :, None] * columns[..., None, :]) > 0
    if carried_by == "box" or view.labels is None:
        return boxed
    masked = view.labels[:, None] == (slots.source + 1)[..., None, None]
    return torch.where(masked.flatten(2).any(2)[..., None, None], masked, boxed)


def centre_matrix(boxes: Float[Tensor, "N 4"], side: int) -> Float[Tensor, "N 3 3"]:
    """The matrix that moves each box to the middle of a square of ``side`` px, by whole pixels where it fits."""
    extent = (boxes[:, 2:] - boxes[:, :2]).amax(1).clamp(min=1)
    scale = (side / extent).clamp(max=1)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    move = side / 2 - centre * scale[:, None]
    move = torch.where(scale[:, None] == 1, (move + 0.5).floor(), move)  # as ``pixel_corners`` rounds
    matrix = torch.zeros(len(boxes), 3, 3, dtype=boxes.dtype, device=boxes.device)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2] = scale, scale, 1
    matrix[:, :2, 2] = move
    return matrix
