"""Crop, flip and resize as one matrix an image, applied to pixels, label maps and boxes alike.

The window of a view is drawn in image-relative coordinates, turned into a matrix that maps canvas pixels to view
pixels, and everything is carried through that matrix. Matrices here are axis-aligned (scale, translation, mirror), so
a warp separates into two banded weight matrices, one a side, and runs as two batched matrix products, which is fast
on CPUs and GPUs alike. Parameters are drawn on the CPU, so that every device sees the same views.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

TRIES = 10
"""Draws before the central crop, as torchvision's RandomResizedCrop."""


def sample_windows(
    image_size: Float[Tensor, "B 2"],
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: torch.Generator,
    within: Float[Tensor, "B 4"] | None = None,
) -> Float[Tensor, "B 4"]:
    """Draw one window an image by the rule of Inception and torchvision's RandomResizedCrop.

    Area share (uniform) and aspect (log-uniform) are drawn up to ten times until the window fits; if none does, the
    largest central window of an allowed aspect is taken. Unlike torchvision, windows are not rounded to pixels, and
    ``area=(1, 1)`` gives ``within`` itself, whatever its aspect.

    Args:
        image_size: original height and width, px, so that aspect and area are the true ones on a stretched canvas.
        area: lowest and highest share of the area of ``within``.
        aspect: lowest and highest width / height, in original pixels.
        generator: on the CPU.
        within: xyxy in 0..1, the windows inside which to draw; None: the whole images.

    Returns:
        xyxy in 0..1 of the image, on the CPU, inside ``within``.
    """
    size = image_size.cpu()
    outer = size.new_tensor([0.0, 0.0, 1.0, 1.0]).expand(len(size), 4) if within is None else within.cpu()
    if tuple(area) == (1.0, 1.0):
        return outer.clone()
    corner, extent = outer[:, :2], outer[:, 2:] - outer[:, :2]
    pixels = extent * size.flip(1)  # width, height of the outer window in original px
    draws = torch.rand(3, len(size), TRIES, generator=generator)
    place = torch.rand(len(size), 2, generator=generator)

    share = area[0] + (area[1] - area[0]) * draws[0]
    ratio = torch.exp(math.log(aspect[0]) + math.log(aspect[1] / aspect[0]) * draws[1])
    root = (share * pixels.prod(dim=1, keepdim=True)).sqrt()
    relative = torch.stack([root * ratio.sqrt(), root / ratio.sqrt()], dim=2) / pixels[:, None]
    fits = (relative <= 1).all(dim=2)
    first = fits.int().argmax(dim=1)  # the first that fits
    chosen = relative[torch.arange(len(size)), first]

    outer_ratio = pixels[:, 0] / pixels[:, 1]
    central = torch.stack([(aspect[1] / outer_ratio), (outer_ratio / aspect[0])], dim=1).clamp(max=1)
    found = fits.any(dim=1, keepdim=True)
    chosen = torch.where(found, chosen, central)
    place = torch.where(found, place, place.new_tensor(0.5))

    start = corner + place * (1 - chosen) * extent
    stop = torch.minimum(start + chosen * extent, outer[:, 2:])  # rounding must not leave the outer window
    return torch.cat([start, stop], dim=1)


def window_matrix(
    window: Float[Tensor, "B 4"], flip: Bool[Tensor, "B"], canvas_side: int, out: tuple[int, int]
) -> Float[Tensor, "B 3 3"]:
    """The matrix that maps canvas px to view px (contracts: column vectors, pixel corners at integers).

    Args:
        window: xyxy in 0..1 of the image, stretched onto the view.
        flip: mirror the view horizontally.
        canvas_side: S, px.
        out: height and width of the view, px.
    """
    height, width = out
    x0, y0, x1, y1 = (window * canvas_side).unbind(1)
    scale_x, scale_y = width / (x1 - x0), height / (y1 - y0)
    sign = 1 - 2 * flip.to(window)
    matrix = torch.zeros(len(window), 3, 3, dtype=window.dtype, device=window.device)
    matrix[:, 0, 0] = sign * scale_x
    matrix[:, 0, 2] = flip.to(window) * width - sign * scale_x * x0
    matrix[:, 1, 1] = scale_y
    matrix[:, 1, 2] = -scale_y * y0
    matrix[:, 2, 2] = 1
    return matrix


def warp(
    images: Float[Tensor, "B C H W"],
    matrix: Float[Tensor, "B 3 3"],
    out: tuple[int, int],
    padding: Literal["zeros", "border"] = "zeros",
    antialias: bool = True,
) -> Float[Tensor, "B C h w"]:
    """Resample images through axis-aligned matrices, bilinear.

    With ``antialias`` the triangle filter widens by the shrinking factor, side by side and image by image, which is
    what PIL's and ``torch.nn.functional.interpolate``'s antialiased bilinear do; whole-image windows give the same
    values. Next to the border of the image the weights of the pixels that exist are renormalised.

    Args:
        images: any range.
        matrix: image px → output px.
        out: height and width of the output, px.
        padding: what an output pixel shows whose centre lies outside the image: zero, or the nearest border.
        antialias: False samples two pixels a side whatever the scale.

    Raises:
        ValueError: a matrix rotates or shears.
    """
    scale, offset = _axes(matrix)
    scale, offset = scale.to(images.device), offset.to(images.device)
    batch, channels, height, width = images.shape
    columns = _resampling_weights(scale[:, 0], offset[:, 0], width, out[1], padding, antialias).to(images.dtype)
    rows = _resampling_weights(scale[:, 1], offset[:, 1], height, out[0], padding, antialias).to(images.dtype)
    across = torch.bmm(images.reshape(batch, channels * height, width), columns.transpose(1, 2))
    return torch.matmul(rows[:, None], across.view(batch, channels, height, out[1]))


def warp_labels(
    labels: UInt8[Tensor, "B H W"], matrix: Float[Tensor, "B 3 3"], out: tuple[int, int]
) -> UInt8[Tensor, "B h w"]:
    """Carry label maps exactly: each output pixel takes the label of the pixel under its centre, 0 outside.

    Raises:
        ValueError: a matrix rotates or shears.
    """
    scale, offset = _axes(matrix)
    scale, offset = scale.to(labels.device), offset.to(labels.device)
    column, in_width = _nearest(scale[:, 0], offset[:, 0], labels.shape[2], out[1])
    row, in_height = _nearest(scale[:, 1], offset[:, 1], labels.shape[1], out[0])
    image = torch.arange(len(labels), device=labels.device)
    carried = labels[image[:, None, None], row[:, :, None], column[:, None, :]]
    return carried * (in_height[:, :, None] & in_width[:, None, :])


def map_boxes(boxes: Float[Tensor, "B K 4"], matrix: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B K 4"]:
    """Carry xyxy boxes through axis-aligned matrices; a mirrored box is xyxy again. Padding rows move too.

    Raises:
        ValueError: a matrix rotates or shears.
    """
    scale, offset = _axes(matrix)
    scale, offset = scale.to(boxes)[:, None], offset.to(boxes)[:, None]
    first, second = boxes[..., :2] * scale + offset, boxes[..., 2:] * scale + offset
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)


def clip_boxes(
    boxes: Float[Tensor, "B K 4"], size: tuple[int, int]
) -> tuple[Float[Tensor, "B K 4"], Float[Tensor, "B K"]]:
    """Clip xyxy boxes to a view of ``size`` (height, width); also the share 0..1 of each box's area that is left.

    A box without area has share 0.
    """
    height, width = size
    limit = boxes.new_tensor([width, height, width, height])
    clipped = torch.minimum(boxes.clamp(min=0), limit)
    before = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    after = (clipped[..., 2:] - clipped[..., :2]).prod(dim=-1)
    share = torch.where(before > 0, after / before.clamp(min=torch.finfo(boxes.dtype).tiny), torch.zeros_like(after))
    return clipped, share.clamp(max=1)


def _axes(matrix: Float[Tensor, "B 3 3"]) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B 2"]]:
    """Scale and offset in x and y of axis-aligned matrices (checked on the CPU only: elsewhere it would wait)."""
    if matrix.device.type == "cpu" and bool((matrix[:, [0, 1, 2, 2], [1, 0, 0, 1]] != 0).any()):
        raise ValueError("only axis-aligned matrices (scale, translation, mirror) can be applied")
    return matrix[:, [0, 1], [0, 1]], matrix[:, :2, 2]


def _resampling_weights(
    scale: Float[Tensor, "B"],
    offset: Float[Tensor, "B"],
    source: int,
    out: int,
    padding: Literal["zeros", "border"],
    antialias: bool,
) -> Float[Tensor, "B out source"]:
    """Weights of the source pixels for every output pixel along one side: a triangle around its centre, sum 1."""
    steps = torch.arange(max(source, out), device=scale.device, dtype=scale.dtype) + 0.5
    centre = (steps[:out] - offset[:, None]) / scale[:, None]
    inside = (centre >= 0) & (centre <= source)
    reach = (1 / scale.abs()).clamp(min=1) if antialias else torch.ones_like(scale)
    distance = (steps[:source] - centre.clamp(0, source)[:, :, None]).abs_()
    weights = distance.mul_(-1 / reach[:, None, None]).add_(1).clamp_(min=0)
    total = weights.sum(dim=2)
    if padding == "zeros":
        total = torch.where(inside, total, torch.inf)
    return weights.div_(total[:, :, None])


def _nearest(
    scale: Float[Tensor, "B"], offset: Float[Tensor, "B"], source: int, out: int
) -> tuple[Int64[Tensor, "B out"], Bool[Tensor, "B out"]]:
    """The source pixel under the centre of every output pixel along one side, and whether there is one."""
    centre = torch.arange(out, device=scale.device, dtype=scale.dtype) + 0.5
    pixel = ((centre - offset[:, None]) / scale[:, None]).floor().long()
    return pixel.clamp(0, source - 1), (pixel >= 0) & (pixel < source)
