"""Boxes as sets of pixels: a pixel belongs to a box if its centre lies in it."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor


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
