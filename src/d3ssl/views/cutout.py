"""Region Collaborative Cutout (RCC), and its counterpart for the surroundings of the regions.

Both are functions of (tensors, sampled parameters): draw with ``sample_cutout`` on the CPU, then apply on any device.
Batched over the images; the loops run over the few regions or rectangles of an image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from d3ssl.errors import InputError
from d3ssl.views.masks import pixel_corners, spans, union_mask

CONTEXT_RECTANGLES = 8
"""Rectangles cut in the surroundings of an image (decided here)."""
_CONTEXT_ASPECT = 2.0  # height / width of those from 1/2 to 2, log-uniform (as the later RCC code draws its boxes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutoutParameters:
    """What decides a cutout besides the regions; all uniform in 0..1."""

    place: Float[Tensor, "B K 2"]
    """Where in region k its rectangle lies, x and y: 0 leftmost or uppermost, 1 the other end."""
    context: Float[Tensor, "B N 3"]
    """Aspect, x and y of the rectangles in the surroundings."""


def sample_cutout(batch: int, slots: int, generator: torch.Generator | None = None) -> CutoutParameters:
    """Draw the parameters for ``batch`` images with ``slots`` regions, on the generator's device."""
    device = "cpu" if generator is None else generator.device
    place = torch.rand(batch, slots, 2, generator=generator, device=device)
    context = torch.rand(batch, CONTEXT_RECTANGLES, 3, generator=generator, device=device)
    return CutoutParameters(place=place, context=context)


def region_collaborative_cutout(
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    size: tuple[int, int],
    ratio: int | float | Float[Tensor, "B"],
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "B 1 H W"]:
    """Cut a rectangle in every region such that none loses much more than ``ratio``, however regions overlap.

    D³SSL (arXiv 2303.16947), the naive loop for one image::

        for region in sorted(regions, key=area, reverse=True):
            c = share of the region already cut
            if c > ratio:
                restore the region whole;  c = 0
            height, width = round(sqrt(ratio − c) · sides of the region)
            cut a rectangle height × width at a uniform place inside the region

    All on pixels: a region is the pixels whose centres lie in its box; sides are rounded to the nearest pixel and
    places are uniform over the whole pixels. A region processed last loses at most the ratio and what the rounding of
    the two sides by half a pixel adds; a larger one may lose more to smaller ones within it. Equal areas keep
    the order of their slots.

    Args:
        boxes: xyxy, px of the view.
        valid: False for slots to leave alone.
        size: height and width of the view, px.
        ratio: ρ, the share of a region to cut, 0..1; one for all images or one an image.
        generator: None: torch's global one.

    Returns:
        True where the pixel is kept, on the boxes' device.

    Raises:
        InputError: the ratio is not within 0..1.
    """
    return apply_cutout(boxes, valid, size, ratio, sample_cutout(valid.shape[0], valid.shape[1], generator))


def context_cutout(
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    size: tuple[int, int],
    ratio: int | float | Float[Tensor, "B"],
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "B 1 H W"]:
    """Cut rectangles in the surroundings of the regions, at most about ``ratio`` of their area (an option of ours).

    Each of eight rectangles, one after the other, has the area that is still missing divided by the rectangles that
    are left, an aspect of 1/2..2 and a uniform place in the view; what it covers of the regions is not cut.

    Arguments, returned mask and errors as ``region_collaborative_cutout``.
    """
    return apply_context_cutout(boxes, valid, size, ratio, sample_cutout(valid.shape[0], valid.shape[1], generator))


def apply_cutout(
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    size: tuple[int, int],
    ratio: int | float | Float[Tensor, "B"],
    parameters: CutoutParameters,
) -> Bool[Tensor, "B 1 H W"]:
    """``region_collaborative_cutout`` with parameters drawn before."""
    share = _per_image(ratio, boxes)
    corners = pixel_corners(boxes, size) * valid[..., None]  # an invalid region has no pixels
    area = (corners[..., 2:] - corners[..., :2]).clamp_(min=0).prod(dim=-1)
    order = area.argsort(dim=1, descending=True, stable=True)[..., None]
    corners = corners.gather(1, order.expand(-1, -1, 4))
    place = parameters.place.to(corners).gather(1, order.expand(-1, -1, 2))
    cut = torch.zeros(len(boxes), *size, device=boxes.device)
    for k in range(boxes.shape[1]):
        cut = _cut_region(cut, corners[:, k], place[:, k], share)
    return (cut == 0)[:, None]


def _cut_region(
    cut: Float[Tensor, "B H W"],
    corners: Float64[Tensor, "B 4"],
    place: Float64[Tensor, "B 2"],
    ratio: Float64[Tensor, "B"],
) -> Float[Tensor, "B H W"]:
    """One turn of the procedure, for one region of every image; ``cut`` is 1.0 where a pixel is cut."""
    size = cut.shape[1], cut.shape[2]
    extent = (corners[:, 2:] - corners[:, :2]).clamp(min=0)
    area = extent.prod(dim=1).clamp(min=1)
    rows, columns = spans(corners, size)
    lost = torch.bmm(torch.bmm(rows[:, None], cut), columns[:, :, None])[:, 0, 0] / area
    restored = lost > ratio
    sides = (extent * (ratio - lost * ~restored).clamp(min=0).sqrt()[:, None]).round()
    start = corners[:, :2] + _whole_place(place, extent - sides)
    cut_rows, cut_columns = spans(torch.cat([start, start + sides], dim=1), size)
    cut = cut * (1 - _outer(rows * restored[:, None], columns))
    return torch.maximum(cut, _outer(cut_rows, cut_columns))


def apply_context_cutout(
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    size: tuple[int, int],
    ratio: int | float | Float[Tensor, "B"],
    parameters: CutoutParameters,
) -> Bool[Tensor, "B 1 H W"]:
    """``context_cutout`` with parameters drawn before."""
    share = _per_image(ratio, boxes)
    draws = parameters.context.to(share)
    context = (~union_mask(boxes, valid, size))[:, 0].float()
    wanted = share * context.sum(dim=(1, 2))
    height, width = size
    limit = share.new_tensor([width, height])
    cut = torch.zeros_like(context)
    for n in range(CONTEXT_RECTANGLES):
        missing = (wanted - cut.sum(dim=(1, 2))).clamp(min=0) / (CONTEXT_RECTANGLES - n)
        aspect = torch.exp((2 * draws[:, n, 0] - 1) * math.log(_CONTEXT_ASPECT))
        sides = torch.stack([(missing / aspect).sqrt(), (missing * aspect).sqrt()], dim=1).round()
        sides = torch.minimum(sides, limit)
        start = _whole_place(draws[:, n, 1:], limit - sides)
        rectangle = _outer(*spans(torch.cat([start, start + sides], dim=1), size))
        cut = torch.maximum(cut, rectangle * context)
    return (cut == 0)[:, None]


def _per_image(ratio: int | float | Float[Tensor, "B"], boxes: Float[Tensor, "B K 4"]) -> Float64[Tensor, "B"]:
    """The ratio of every image. In double precision, so that c > ρ is decided as plain numbers would."""
    if isinstance(ratio, Tensor):
        outside = ratio.device.type == "cpu" and bool(((ratio < 0) | (ratio > 1)).any())
    else:
        outside = not 0 <= ratio <= 1
    if outside:
        raise InputError(f"the ratio to cut is {ratio}", remedy="give a share, 0..1.")
    return torch.as_tensor(ratio, dtype=torch.float64, device=boxes.device).expand(len(boxes))


def _whole_place(uniform: Float64[Tensor, "B 2"], room: Float64[Tensor, "B 2"]) -> Float64[Tensor, "B 2"]:
    """Uniform over the whole numbers 0..room."""
    return torch.minimum((uniform * (room + 1)).floor(), room)


def _outer(rows: Float[Tensor, "B H"], columns: Float[Tensor, "B W"]) -> Float[Tensor, "B H W"]:
    return rows[:, :, None] * columns[:, None, :]
