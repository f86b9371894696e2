"""The counterpart of RCC for the surroundings of the regions (an option of ours)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots, View
from d3ssl.views.masks import hide, spans, union_mask
from d3ssl.views.ops.cutout import outer, ratio_per_image, whole_place
from d3ssl.views.ops.operation import Operation

RECTANGLES = 8
"""Rectangles cut in the surroundings of an image (decided here)."""
_ASPECT = 2.0  # height / width of those from 1/2 to 2, log-uniform (as the later RCC code draws its boxes)


@dataclass(frozen=True, kw_only=True)
class ContextCutout(Operation):
    """Cut rectangles in the surroundings of the regions; what is cut shows the mean colour."""

    name: ClassVar[str] = "context_cutout"
    ratio: float = 0.3
    """Share of the surroundings to cut, 0..1."""

    def sample(self, batch: CanvasBatch, slots: int, generator: torch.Generator) -> Float[Tensor, "B N 3"]:
        """Aspect, x and y of each rectangle, uniform in 0..1."""
        return torch.rand(len(batch.canvas), RECTANGLES, 3, generator=generator)

    def apply(self, view: View, slots: Slots, drawn: Float[Tensor, "B N 3"], whole: Tensor) -> View:
        size = view.images.shape[2], view.images.shape[3]
        return hide(view, apply_context_cutout(view.boxes, slots.distinct, size, self.ratio, drawn))


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
    device = "cpu" if generator is None else generator.device
    draws = torch.rand(len(boxes), RECTANGLES, 3, generator=generator, device=device)
    return apply_context_cutout(boxes, valid, size, ratio, draws)


def apply_context_cutout(
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    size: tuple[int, int],
    ratio: int | float | Float[Tensor, "B"],
    draws: Float[Tensor, "B N 3"],
) -> Bool[Tensor, "B 1 H W"]:
    """``context_cutout`` with draws made before (see ``ContextCutout.sample``)."""
    share = ratio_per_image(ratio, boxes)
    draws = draws.to(share)
    context = (~union_mask(boxes, valid, size))[:, 0].float()
    wanted = share * context.sum(dim=(1, 2))
    height, width = size
    limit = share.new_tensor([width, height])
    cut = torch.zeros_like(context)
    for n in range(RECTANGLES):
        missing = (wanted - cut.sum(dim=(1, 2))).clamp(min=0) / (RECTANGLES - n)
        aspect = torch.exp((2 * draws[:, n, 0] - 1) * math.log(_ASPECT))
        sides = torch.stack([(missing / aspect).sqrt(), (missing * aspect).sqrt()], dim=1).round()
        sides = torch.minimum(sides, limit)
        start = whole_place(draws[:, n, 1:], limit - sides)
        rectangle = outer(*spans(torch.cat([start, start + sides], dim=1), size))
        cut = torch.maximum(cut, rectangle * context)
    return (cut == 0)[:, None]
