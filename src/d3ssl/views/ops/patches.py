"""Patches of a ViT that the student does not see: hidden by a mask token, or shown as another image's."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots, View
from d3ssl.errors import InputError
from d3ssl.views.ops.cutout import cut_shares
from d3ssl.views.ops.mixing import sample_partners
from d3ssl.views.ops.operation import Operation

TRIES = 20
"""Blocks that are tried for an image; nearly always fewer fill its ratio."""
BLOCK_ASPECT = (0.3, 1 / 0.3)
"""Height / width of a block (BEiT, arXiv 2106.08254; iBOT)."""
GRID = 3
"""Cells per side of the grid that RCC's regions are drawn in: one in each (D³SSL's public code)."""
REGION_AREA, REGION_ASPECT = (0.12, 0.3), (0.5, 2.0)
"""Of such a region: share of the view, and width / height (D³SSL's public code)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchDraws:
    """What decides which patches are hidden."""

    ratio: Float[Tensor, "B"]
    """Share of the patches of each image, 0..1."""
    shapes: Float[Tensor, "B N 4"]
    """Of each block, or of each of RCC's regions: area, aspect, x and y; uniform in 0..1."""
    places: Float[Tensor, "B N 2"]
    """Where in its region RCC cuts; uniform in 0..1."""
    partner: Int64[Tensor, "B"] | None = None


@dataclass(frozen=True, kw_only=True)
class HidePatches(Operation):
    """Patches are hidden behind the mask token (iBOT, arXiv 2111.07832, section 3.2)."""

    name: ClassVar[str] = "hide_patches"
    patch: int = 16
    """Side of a patch, px: the network's."""
    shape: Literal["block", "rcc"] = "block"
    """block: rectangles anywhere (BEiT, iBOT). rcc: Region Collaborative Cutout of regions in a 3 × 3 grid."""
    ratio: float = 0.3
    """Mean share of the patches (of each region, with rcc) that is hidden, 0..1 (iBOT: .3)."""
    spread: float = 0.2
    """The share is drawn from ``ratio`` ± this (iBOT: .2)."""
    probability: float = 0.5
    """That patches of an image are hidden at all (iBOT: one of the ratios 0 and .3)."""

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise InputError(f"a patch is {self.patch} px", remedy="set it to the network's, such as 16.")
        if not 0 <= self.ratio - self.spread <= self.ratio + self.spread <= 1:
            problem = f"the ratio of hidden patches is {self.ratio} ± {self.spread}"
            raise InputError(problem, remedy="keep both ends within 0..1.")
        if not 0 <= self.probability <= 1:
            raise InputError(f"the probability of hidden patches is {self.probability}", remedy="give 0..1.")

    @property
    def patch_size(self) -> int:
        return self.patch

    def sample(self, batch: CanvasBatch, slots: int, generator: torch.Generator) -> PatchDraws:
        count, parts = len(batch.canvas), GRID**2 if self.shape == "rcc" else TRIES
        ratio = self.ratio + self.spread * (2 * torch.rand(count, generator=generator) - 1)
        is_on = torch.rand(count, generator=generator) < self.probability
        return PatchDraws(
            ratio=ratio * is_on,
            shapes=torch.rand(count, parts, 4, generator=generator),
            places=torch.rand(count, parts, 2, generator=generator),
        )

    def apply(self, view: View, slots: Slots, drawn: PatchDraws, whole: Tensor) -> View:
        return dataclasses.replace(view, hidden=self.hidden(view, drawn))

    def hidden(self, view: View, drawn: PatchDraws) -> Bool[Tensor, "B h w"]:
        """Which patches of the view are hidden."""
        size = view.images.shape[2] // self.patch, view.images.shape[3] // self.patch
        return cut_regions(drawn, size) if self.shape == "rcc" else put_blocks(drawn, size)


@dataclass(frozen=True, kw_only=True)
class MixPatches(HidePatches):
    """Patches show another image of the view, as the patch embedding sees it; in every second image the others do.

    D³SSL's public code for ViTs: a copy whose own patches have to be told without what surrounds them.
    """

    name: ClassVar[str] = "mix_patches"
    shape: Literal["block", "rcc"] = "rcc"
    ratio: float = 0.4
    """Mean share of each region that is replaced, 0..1 (D³SSL's public code: .4)."""
    probability: float = 1.0

    def sample(self, batch: CanvasBatch, slots: int, generator: torch.Generator) -> PatchDraws:
        drawn = super().sample(batch, slots, generator)
        return dataclasses.replace(drawn, partner=sample_partners(len(batch.canvas), generator, batch.index))

    def apply(self, view: View, slots: Slots, drawn: PatchDraws, whole: Tensor) -> View:
        hidden = self.hidden(view, drawn)
        is_second = torch.arange(len(hidden), device=hidden.device) % 2 == 1
        return dataclasses.replace(view, hidden=hidden ^ is_second[:, None, None], partner=drawn.partner)


def cut_regions(drawn: PatchDraws, size: tuple[int, int]) -> Bool[Tensor, "B h w"]:
    """Region Collaborative Cutout on the patches: True where a patch is cut.

    One region in each cell of a 3 × 3 grid, its centre in the cell's middle half.

    Args:
        size: patches per column and row.
    """
    area = REGION_AREA[0] + (REGION_AREA[1] - REGION_AREA[0]) * drawn.shapes[..., 0]
    aspect = _log_uniform(drawn.shapes[..., 1], REGION_ASPECT)
    extent = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=-1)
    number = torch.arange(GRID**2, device=area.device)
    cell = torch.stack([number % GRID, number // GRID], dim=-1)
    centre = (cell + 0.25 + 0.5 * drawn.shapes[..., 2:]) / GRID
    corners = torch.cat([centre - extent / 2, centre + extent / 2], dim=-1).clamp(0, 1)
    boxes = corners * corners.new_tensor([size[1], size[0], size[1], size[0]])
    valid = torch.ones_like(area, dtype=torch.bool)
    return ~cut_shares(boxes, valid, size, drawn.ratio.double(), drawn.places)[:, 0]


def put_blocks(drawn: PatchDraws, size: tuple[int, int]) -> Bool[Tensor, "B h w"]:
    """Blocks of patches, one after the other, until their ratio of the patches is hidden (BEiT, arXiv 2106.08254,
    algorithm 1): True where a patch is hidden. A block that would hide more than is left is passed over.

    Args:
        size: patches per column and row.
    """
    height, width = size
    aspect = _log_uniform(drawn.shapes[..., 1], BLOCK_ASPECT)
    least = float((min(size) // 3) ** 2)
    target = (drawn.ratio * height * width).double()
    hidden = torch.zeros(len(target), height, width, dtype=torch.bool, device=target.device)
    row, column = torch.arange(height, device=target.device), torch.arange(width, device=target.device)
    for number in range(drawn.shapes.shape[1]):
        left = target - hidden.sum((1, 2))
        area = least + (left - least) * drawn.shapes[:, number, 0]
        tall = (area.clamp(min=0) * aspect[:, number]).sqrt().round()
        wide = (area.clamp(min=0) / aspect[:, number]).sqrt().round()
        top = _start(drawn.shapes[:, number, 3], height - tall)
        first = _start(drawn.shapes[:, number, 2], width - wide)
        rows = (row >= top[:, None]) & (row < (top + tall)[:, None])
        columns = (column >= first[:, None]) & (column < (first + wide)[:, None])
        new = rows[:, :, None] & columns[:, None] & ~hidden
        is_put = (new.sum((1, 2)) <= left) & (tall < height) & (wide < width)
        hidden = hidden | (new & is_put[:, None, None])
    return hidden


def _log_uniform(uniform: Float[Tensor, "B N"], ends: tuple[float, float]) -> Float[Tensor, "B N"]:
    low, high = math.log(ends[0]), math.log(ends[1])
    return (low + (high - low) * uniform).exp()


def _start(uniform: Float[Tensor, "B"], room: Float64[Tensor, "B"]) -> Float64[Tensor, "B"]:
    """Uniform over the whole numbers 0..room."""
    return torch.minimum((uniform * (room + 1)).floor(), room).clamp(min=0)
