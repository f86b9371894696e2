"""Foreground shift: regions are moved to other places in the view, so that place says nothing about the object."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots, View
from d3ssl.errors import InputError
from d3ssl.views.geometry import clip_boxes, map_boxes, warp, warp_labels
from d3ssl.views.masks import Carrier, has_mask, union_mask
from d3ssl.views.ops.operation import Operation

ShiftMode = Literal["union", "each", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftParameters:
    """What decides a shift besides the regions; uniform in 0..1."""

    scale: Float[Tensor, "B K"]
    """Where in the range of scales; the union takes the first slot's."""
    place: Float[Tensor, "B K 2"]
    """Where in the room that is left, x and y; the union takes the first slot's."""


@dataclass(frozen=True, kw_only=True)
class Shift(Operation):
    """Foreground shift as an operation: what the regions leave shows the mean colour."""

    name: ClassVar[str] = "shift"
    mode: ShiftMode = "each"
    """Every region by itself, all together (``union``), or not at all: their surroundings go all the same."""
    scale: tuple[float, float] = (0.6, 1.0)
    """Lowest and highest factor by which the foreground is rescaled."""
    carried_by: Carrier = "box"
    """What moves with a region: its whole box, or the pixels of its mask."""

    @property
    def needs_masks(self) -> bool:
        return self.carried_by == "mask"

    def sample(self, batch: CanvasBatch, slots: int, generator: torch.Generator) -> ShiftParameters:
        return sample_shift(len(batch.canvas), slots, generator)

    def apply(self, view: View, slots: Slots, drawn: ShiftParameters, whole: Tensor) -> View:
        size = view.images.shape[2], view.images.shape[3]
        keep = torch.ones_like(view.images[:, :1], dtype=torch.bool) if view.keep is None else view.keep
        moving = shift_matrices(view.boxes, slots.distinct, size, drawn, mode=self.mode, scale=self.scale)
        masked = None
        if self.carried_by == "mask" and view.labels is not None:
            masked = has_mask(view.labels, slots.distinct.shape[1])
        known = torch.where(keep, view.images, whole)  # resampling must not mix what a cutout shows into its edges
        images, shown, labels = apply_shift(known, keep, view.boxes, slots.distinct, moving, view.labels, masked=masked)
        boxes = shift_boxes(view.boxes, slots.distinct, moving, size)
        return dataclasses.replace(view, images=images, keep=shown, labels=labels, boxes=boxes)


def sample_shift(batch: int, slots: int, generator: torch.Generator | None = None) -> ShiftParameters:
    """Draw the parameters for ``batch`` images with ``slots`` regions, on the generator's device."""
    device = "cpu" if generator is None else generator.device
    scale = torch.rand(batch, slots, generator=generator, device=device)
    place = torch.rand(batch, slots, 2, generator=generator, device=device)
    return ShiftParameters(scale=scale, place=place)


def shift_foreground(
    images: Float[Tensor, "B C H W"],
    keep: Bool[Tensor, "B 1 H W"],
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    generator: torch.Generator | None = None,
    *,
    mode: ShiftMode = "each",
    scale: tuple[float, float] = (0.6, 1.0),
    labels: UInt8[Tensor, "B H W"] | None = None,
) -> tuple[Float[Tensor, "B C H W"], Bool[Tensor, "B 1 H W"], Float[Tensor, "B K 4"]]:
    """Rescale the regions and move them by a random amount under which all valid ones stay inside the view.

    One of D³SSL's augmentations (arXiv 2303.16947). ``union`` moves all regions together, as the paper does; ``each``
    moves every region by itself, larger ones first, so that smaller ones lie on top (decided here: the union often
    nearly fills the view and then has no room to move).

    Args:
        images: any range.
        keep: pixels of the image that may be shown; a pixel that is not kept (cut out, say) moves as a hole.
        boxes: xyxy, px of the view; parts outside it are ignored.
        valid: False for slots to leave alone.
        generator: None: torch's global one.
        mode: union, each, or none: the foreground stays where it is.
        scale: lowest and highest factor of the size; a region that would outgrow the view is scaled to fit it.
        labels: if given, slot k carries the pixels with label k + 1 only, instead of its whole box.

    Returns:
        The images with moved foreground, zero elsewhere; True where they show it (fill the rest by
        ``mix_background``); and the moved boxes, inside the view (invalid slots as they came).

    Raises:
        InputError: the scale is not 0 < low ≤ high.
    """
    parameters = sample_shift(valid.shape[0], valid.shape[1], generator)
    size = images.shape[2], images.shape[3]
    matrices = shift_matrices(boxes, valid, size, parameters, mode=mode, scale=scale)
    masked = None if labels is None else torch.ones_like(valid)
    moved, shown, _ = apply_shift(images, keep, boxes, valid, matrices, labels, masked=masked)
    return moved, shown, shift_boxes(boxes, valid, matrices, size)


def shift_matrices(
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    size: tuple[int, int],
    parameters: ShiftParameters,
    *,
    mode: ShiftMode,
    scale: tuple[float, float],
) -> Float[Tensor, "B M 3 3"]:
    """The matrices that move the foreground, view px → view px: M is 1 for the union, K for each region by itself."""
    if not 0 < scale[0] <= scale[1]:
        raise InputError(f"the scale of the shift is {tuple(scale)}", remedy="give 0 < low ≤ high.")
    moving, _ = clip_boxes(boxes, size)
    if mode == "none":
        return torch.eye(3, dtype=boxes.dtype, device=boxes.device).expand(len(boxes), 1, 3, 3)
    height, width = size
    view = boxes.new_tensor([width, height])
    draws = torch.cat([parameters.scale[..., None], parameters.place], dim=-1).to(boxes)
    if mode == "union":
        moving, draws = _hull(moving, valid), draws[:, :1]
    extent = (moving[..., 2:] - moving[..., :2]).clamp(min=1e-3)
    factor = scale[0] + (scale[1] - scale[0]) * draws[..., :1]
    factor = torch.minimum(factor, (view / extent).amin(dim=-1, keepdim=True))
    start = draws[..., 1:] * (view - factor * extent).clamp(min=0)
    matrices = torch.zeros(*moving.shape[:2], 3, 3, dtype=boxes.dtype, device=boxes.device)
    matrices[..., [0, 1], [0, 1]] = factor
    matrices[..., :2, 2] = start - factor * moving[..., :2]
    matrices[..., 2, 2] = 1
    return matrices


def _hull(boxes: Float[Tensor, "B K 4"], valid: Bool[Tensor, "B K"]) -> Float[Tensor, "B 1 4"]:
    """The smallest box around all valid ones; zero if there is none."""
    low = boxes[..., :2].masked_fill(~valid[..., None], torch.inf).amin(dim=1)
    high = boxes[..., 2:].masked_fill(~valid[..., None], -torch.inf).amax(dim=1)
    hull = torch.cat([low, high], dim=-1)
    return torch.where(valid.any(dim=1, keepdim=True), hull, torch.zeros_like(hull))[:, None]


def shift_boxes(
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    matrices: Float[Tensor, "B M 3 3"],
    size: tuple[int, int],
) -> Float[Tensor, "B K 4"]:
    """Move the valid boxes by the matrices of ``shift_matrices``; the others stay as they are."""
    clipped, _ = clip_boxes(boxes, size)
    each = matrices.expand(-1, boxes.shape[1], 3, 3)
    moved = map_boxes(clipped.reshape(-1, 1, 4), each.reshape(-1, 3, 3)).view_as(boxes)
    inside, _ = clip_boxes(moved, size)  # rounding must not leave the view
    return torch.where(valid[..., None], inside, boxes)


def apply_shift(
    images: Float[Tensor, "B C H W"],
    keep: Bool[Tensor, "B 1 H W"],
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    matrices: Float[Tensor, "B M 3 3"],
    labels: UInt8[Tensor, "B H W"] | None = None,
    *,
    masked: Bool[Tensor, "B K"] | None = None,
) -> tuple[Float[Tensor, "B C H W"], Bool[Tensor, "B 1 H W"], UInt8[Tensor, "B H W"] | None]:
    """Move the foreground by the matrices of ``shift_matrices``; images and keep as ``shift_foreground`` returns them.

    Pixels are resampled bilinearly (antialiased when shrunk); ``keep`` and ``labels`` take the pixel under the centre.

    Args:
        labels: label map to carry: k + 1 moves with slot k, all else becomes 0.
        masked: slots that carry their labelled pixels only; the others carry their whole box (None: all do).
    """
    size = images.shape[2], images.shape[3]
    moved, shown = torch.zeros_like(images), torch.zeros_like(keep)
    moved_labels = None if labels is None else torch.zeros_like(labels)
    moved_boxes = shift_boxes(boxes, valid, matrices, size)
    for matrix, owned, members in _turns(moved_boxes, valid, matrices, size):
        if labels is not None and moved_labels is not None:
            carried = warp_labels(labels, matrix, size)
            carried = carried * _is_member(carried, members)
            if masked is not None:
                by_box = union_mask(moved_boxes, members & ~masked, size)
                owned = owned & ((carried > 0)[:, None] | by_box)
            moved_labels = torch.where(owned[:, 0], carried, moved_labels)
        kept = warp_labels(keep[:, 0].byte(), matrix, size)[:, None] > 0
        moved = torch.where(owned, warp(images, matrix, size, padding="border"), moved)
        shown = torch.where(owned, kept, shown)
    return moved * shown, shown, moved_labels


def _turns(
    moved: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    matrices: Float[Tensor, "B M 3 3"],
    size: tuple[int, int],
) -> Iterator[tuple[Float[Tensor, "B 3 3"], Bool[Tensor, "B 1 H W"], Bool[Tensor, "B K"]]]:
    """What is drawn one after the other: its matrix, the pixels it takes, the slots that belong to it."""
    if matrices.shape[1] == 1:
        yield matrices[:, 0], union_mask(moved, valid, size), valid
        return
    area = (moved[..., 2:] - moved[..., :2]).prod(dim=-1)
    image = torch.arange(len(moved), device=moved.device)
    for slot in area.argsort(dim=1, descending=True, stable=True).unbind(1):
        members = torch.zeros_like(valid)
        members[image, slot] = valid[image, slot]
        yield matrices[image, slot], union_mask(moved, members, size), members


def _is_member(labels: UInt8[Tensor, "B H W"], members: Bool[Tensor, "B K"]) -> Bool[Tensor, "B H W"]:
    """Whether a pixel's label k + 1 is that of a member slot k."""
    known = torch.nn.functional.pad(members, (1, 255 - members.shape[1]))  # label 0 is no slot
    return known.gather(1, labels.flatten(1).long()).view(labels.shape)
