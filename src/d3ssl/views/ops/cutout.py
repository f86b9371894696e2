"""Region Collaborative Cutout (RCC): a rectangle is cut in every region, so that no part of it decides alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots, View
from d3ssl.errors import InputError
from d3ssl.views.masks import hide, pixel_corners, spans
from d3ssl.views.ops.operation import Operation


@dataclass(frozen=True, kw_only=True)
class RegionCutout(Operation):
    """RCC as an operation; what is cut shows the mean colour."""

    name: ClassVar[str] = "cutout"
    ratio: float = 0.3
    """ρ, the share of each region to cut, 0..1 (D³SSL: 0.3)."""

    def sample(self, batch: CanvasBatch, slots: int, generator: torch.Generator) -> Float[Tensor, "B K 2"]:
        """Where in region k its rectangle lies, x and y: 0 leftmost or uppermost, 1 the other end."""
        return torch.rand(len(batch.canvas), slots, 2, generator=generator)

    def apply(self, view: View, slots: Slots, drawn: Float[Tensor, "B K 2"], whole: Tensor) -> View:
        size = view.images.shape[2], view.images.shape[3]
        return hide(view, apply_cutout(view.boxes, slots.distinct, size, self.ratio, drawn))


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
    device = "cpu" if generator is None else generator.device
    place = torch.rand(*valid.shape, 2, generator=generator, device=device)
    return apply_cutout(boxes, valid, size, ratio, place)


def apply_cutout(
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    size: tuple[int, int],
    ratio: int | float | Float[Tensor, "B"],
    place: Float[Tensor, "B K 2"],
) -> Bool[Tensor, "B 1 H W"]:
    """``region_collaborative_cutout`` with places drawn before (see ``RegionCutout.sample``)."""
    return cut_shares(boxes, valid, size, ratio_per_image(ratio, boxes), place)


def cut_shares(
    boxes: Float[Tensor, "B K 4"],
    valid: Bool[Tensor, "B K"],
    size: tuple[int, int],
    share: Float64[Tensor, "B"],
    place: Float[Tensor, "B K 2"],
) -> Bool[Tensor, "B 1 H W"]:
    """``apply_cutout`` with a share for each image that is known to be within 0..1."""
    corners = pixel_corners(boxes, size) * valid[..., None]  # an invalid region has no pixels
    area = (corners[..., 2:] - corners[..., :2]).clamp_(min=0).prod(dim=-1)
    order = area.argsort(dim=1, descending=True, stable=True)[..., None]
    corners = corners.gather(1, order.expand(-1, -1, 4))
    place = place.to(corners).gather(1, order.expand(-1, -1, 2))
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
    start = corners[:, :2] + whole_place(place, extent - sides)
    cut_rows, cut_columns = spans(torch.cat([start, start + sides], dim=1), size)
    cut = cut * (1 - outer(rows * restored[:, None], columns))
    return torch.maximum(cut, outer(cut_rows, cut_columns))


def ratio_per_image(ratio: int | float | Float[Tensor, "B"], boxes: Float[Tensor, "B K 4"]) -> Float64[Tensor, "B"]:
    """The ratio of every image. In double precision, so that c > ρ is decided as plain numbers would."""
    if isinstance(ratio, Tensor):
        outside = ratio.device.type == "cpu" and bool(((ratio < 0) | (ratio > 1)).any())
    else:
        outside = not 0 <= ratio <= 1
    if outside:
        raise InputError(f"the ratio to cut is {ratio}", remedy="give a share, 0..1.")
    return torch.as_tensor(ratio, dtype=torch.float64, device=boxes.device).expand(len(boxes))


def whole_place(uniform: Float64[Tensor, "B 2"], room: Float64[Tensor, "B 2"]) -> Float64[Tensor, "B 2"]:
    """Uniform over the whole numbers 0..room."""
    return torch.minimum((uniform * (room + 1)).floor(), room)


def outer(rows: Float[Tensor, "B H"], columns: Float[Tensor, "B W"]) -> Float[Tensor, "B H W"]:
    return rows[:, :, None] * columns[:, None, :]
