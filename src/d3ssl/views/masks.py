"""Boxes as sets of pixels (a pixel belongs to a box if its centre lies in it), and what a view shows of them."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from d3ssl.contracts import Slots, View

Carrier = Literal["box", "mask"]
"""What belongs to a region: its whole box, or the pixels of its mask."""


def pixel_corners(boxes: Float[Tensor, "*shape 4"], size: tuple[int, int]) -> Float64[Tensor, "*shape 4"]:
    """The block of pixels whose centres lie in each box, clipped to the view: xyxy, whole numbers.

    Args:
        boxes: xyxy, px; a centre on the left or upper edge belongs to the box, one on the other edges does not.
        size: height and width of the view, px.
    """
    height, width = size
    corners = (boxes.double() - 0.5).ceil_().clamp_(min=0)
    corners[..., 0::2].clamp_(max=width)
    corners[..., 1::2].clamp_(max=height)
    return corners


def spans(
    corners: Float64[Tensor, "*shape 4"], size: tuple[int, int]
) -> tuple[Float[Tensor, "*shape H"], Float[Tensor, "*shape W"]]:
    """Which rows and which columns each block of pixels takes: 1.0 or 0.0; their outer product is its mask."""
    height, width = size
    row = torch.arange(height, device=corners.device)
    column = torch.arange(width, device=corners.device)
    x0, y0, x1, y1 = corners[..., None, :].unbind(-1)
    return ((row >= y0) & (row < y1)).float(), ((column >= x0) & (column < x1)).float()


def union_mask(
    boxes: Float[Tensor, "B K 4"], valid: Bool[Tensor, "B K"], size: tuple[int, int]
) -> Bool[Tensor, "B 1 H W"]:
    """The pixels that belong to any valid box."""
    rows, columns = spans(pixel_corners(boxes, size), size)
    return (torch.bmm((rows * valid[..., None]).transpose(1, 2), columns) > 0)[:, None]


def own_pixels(view: View, slots: Slots, carried_by: Carrier) -> Bool[Tensor, "B 1 H W"]:
    """The pixels of the regions. A region without any pixel in the label map counts by its box."""
    size = view.images.shape[2], view.images.shape[3]
    if carried_by == "box" or view.labels is None:
        return union_mask(view.boxes, slots.distinct, size)
    masked = (view.labels > 0)[:, None]
    return masked | union_mask(view.boxes, slots.distinct & ~has_mask(view.labels, slots.distinct.shape[1]), size)


def has_mask(labels: UInt8[Tensor, "B H W"], slots: int) -> Bool[Tensor, "B K"]:
    """Whether the label map shows any pixel of each slot's region."""
    seen = torch.zeros(len(labels), 256, dtype=torch.bool, device=labels.device)
    seen.scatter_(1, labels.flatten(1).long(), True)
    return seen[:, 1 : slots + 1]


def hide(view: View, keep: Bool[Tensor, "B 1 H W"]) -> View:
    """The view with the mean colour (0) where a pixel is not kept."""
    shown = keep if view.keep is None else view.keep & keep
    return dataclasses.replace(view, images=view.images * keep, keep=shown)
