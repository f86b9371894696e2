"""Which candidate regions of an image are trained on: a random few of those that every view shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from d3ssl.views.geometry import clip_boxes, map_boxes


def survives(
    boxes: Float[Tensor, "B R 4"],
    views: Sequence[tuple[Tensor, tuple[int, int]]],
    min_visible: float,
    min_side: float,
) -> Bool[Tensor, "B R"]:
    """Whether every view shows at least ``min_visible`` of a region's area, and a part of ``min_side`` px a side.

    Args:
        boxes: xyxy, canvas px.
        views: the matrix (B, 3, 3) and the size (height, width) of every view.
    """
    alive = torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    for matrix, size in views:
        clipped, visible = clip_boxes(map_boxes(boxes, matrix), size)
        side = (clipped[..., 2:] - clipped[..., :2]).amin(dim=-1)
        # the tolerances are for boxes mapped exactly onto the limits, which rounding puts on either side
        alive &= (visible > 0) & (visible >= min_visible - 1e-4) & (side >= min_side - 1e-3)
    return alive


def choose(
    alive: Bool[Tensor, "B R"], slots: int, generator: torch.Generator
) -> tuple[Int64[Tensor, "B K"], Bool[Tensor, "B K"]]:
    """Draw ``slots`` of the candidates that are alive, without replacement, in random order.

    Returns:
        The number of the candidate in every slot, and whether there is one: images with fewer candidates fill the
        first slots.
    """
    score = torch.rand(alive.shape, generator=generator).masked_fill(~alive, -1)
    missing = max(0, slots - alive.shape[1])
    score = torch.nn.functional.pad(score, (0, missing), value=-1)
    best, chosen = score.sort(dim=1, descending=True, stable=True)
    valid = best[:, :slots] >= 0
    return chosen[:, :slots] * valid, valid


def slot_boxes(
    boxes: Float[Tensor, "B R 4"], chosen: Int64[Tensor, "B K"], valid: Bool[Tensor, "B K"]
) -> Float[Tensor, "B K 4"]:
    """The chosen boxes; zero where a slot is not valid."""
    if boxes.shape[1] == 0:
        return boxes.new_zeros(*chosen.shape, 4)
    return boxes.gather(1, chosen[..., None].expand(-1, -1, 4)) * valid[..., None]


def slot_labels(
    labels: UInt8[Tensor, "B H W"], chosen: Int64[Tensor, "B K"], valid: Bool[Tensor, "B K"]
) -> UInt8[Tensor, "B H W"]:
    """Rewrite a label map of candidates (r + 1) into one of slots (k + 1); all others become 0."""
    slot = torch.arange(1, chosen.shape[1] + 1, dtype=torch.uint8, device=labels.device)
    table = torch.zeros(len(labels), 256, dtype=torch.uint8, device=labels.device)
    table.scatter_(1, (chosen + 1) * valid, slot.expand_as(chosen) * valid)
    table[:, 0] = 0  # where the slots that are not valid were written
    return table.gather(1, labels.flatten(1).long()).view(labels.shape)
