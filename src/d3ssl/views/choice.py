"""Which candidate regions of an image are trained on: a random few of those that every view shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots
from d3ssl.views.geometry import clip_boxes, map_boxes


def survives(
    boxes: Float[Tensor, "B R 4"],
    views: Sequence[tuple[Tensor, tuple[int, int]]],
    min_visible: float,
    min_side: float,
) -> Bool[Tensor, "B R"]:
    """Whether every view shows at least ``min_visible`` of a region's area, and a part of ``min_side`` px per side.

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
    batch: CanvasBatch,
    alive: Bool[Tensor, "B R"],
    slots: int,
    windows: Sequence[Float[Tensor, "B 4"]],
    generator: torch.Generator,
) -> tuple[Int64[Tensor, "B K"], Slots]:
    """Draw ``slots`` of the candidates that are alive, without replacement, in random order, and fill every slot.

    Args:
        windows: of every view, xyxy in 0..1 of the image: an image without a region takes what they share.

    Returns:
        The number of the candidate in every slot, and the slots; on the CPU.
    """
    score = torch.rand(alive.shape, generator=generator).masked_fill(~alive, -1)
    score = torch.nn.functional.pad(score, (0, max(0, slots - alive.shape[1])), value=-1)
    order = score.sort(dim=1, descending=True, stable=True)[1][:, :slots]
    count = alive.sum(dim=1, keepdim=True).clamp(max=slots)
    number = torch.arange(slots).expand(len(alive), slots)
    source = torch.where(count > 0, number % count.clamp(min=1), number)
    times = (slots - 1 - source) // count.clamp(min=1) + 1
    chosen = order.gather(1, source) * (count > 0)
    boxes = _common_window(windows, batch.canvas.shape[-1])[:, None].expand(-1, slots, 4)
    if alive.shape[1]:
        own = batch.boxes.cpu().gather(1, chosen[..., None].expand(-1, -1, 4))
        boxes = torch.where((count > 0)[..., None], own, boxes)
    return chosen, Slots(
        distinct=number < count, source=source, weight=(count > 0) / times, boxes=boxes, index=batch.index.cpu()
    )


def _common_window(windows: Sequence[Float[Tensor, "B 4"]], side: int) -> Float[Tensor, "B 4"]:
    """What all windows show, canvas px; the whole image where they share nothing."""
    stacked = torch.stack(list(windows))
    shared = torch.cat([stacked[..., :2].amax(0), stacked[..., 2:].amin(0)], dim=1)
    whole = shared.new_tensor([0.0, 0.0, 1.0, 1.0])
    return torch.where((shared[:, 2:] > shared[:, :2]).all(1, keepdim=True), shared, whole) * side


def slot_labels(
    labels: UInt8[Tensor, "B H W"], chosen: Int64[Tensor, "B K"], distinct: Bool[Tensor, "B K"]
) -> UInt8[Tensor, "B H W"]:
    """Rewrite a label map of candidates (r + 1) into one of distinct slots (k + 1); all others become 0."""
    slot = torch.arange(1, chosen.shape[1] + 1, dtype=torch.uint8, device=labels.device)
    table = torch.zeros(len(labels), 256, dtype=torch.uint8, device=labels.device)
    table.scatter_(1, (chosen + 1) * distinct, slot.expand_as(chosen) * distinct)
    table[:, 0] = 0  # where the slots that repeat a region were written
    return table.gather(1, labels.flatten(1).long()).view(labels.shape)
