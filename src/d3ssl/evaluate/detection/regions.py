"""Anchors, and the features of proposed regions: what torchvision's detection framework is given to look at."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.image_list import ImageList

from d3ssl.models import roi_align

LARGEST = 0.64
"""Side of the largest anchors as a share of the image's side (512 of 800 px, Lin et al., arXiv 1612.03144)."""
OCTAVES = 5
"""A map without a pyramid has anchors of so many sizes, each half of the next: 512 … 32 of 800 px (Faster R-CNN)."""
RATIOS = (0.5, 1.0, 2.0)
"""Height / width."""
ROI_CELLS = 14
"""A region is read from the coarsest level where its side, √area, covers at least so many cells: 224 px on P4 of stride
16 (arXiv 1612.03144, equation 1)."""


class Anchors(nn.Module):
    """Boxes of fixed sizes around the centre of every cell of every level.

    The sizes are shares of the image's side, so that objects of the same share meet anchors alike whatever the image
    is stretched to. The coarsest level has the largest anchors, each finer one half of it; a single level has all.
    Like torchvision's, but with centres at the centres of the cells, strides as they are where the image's side is no
    multiple of them, and sides that are not rounded, which matters at a few px.
    """

    def __init__(self, strides: list[float], size: int) -> None:
        super().__init__()
        self.strides = strides
        count = len(strides)
        sizes = [[LARGEST * size / 2**octave for octave in range(OCTAVES)]] if count == 1 else []
        self.sizes = sizes or [[LARGEST * size / 2 ** (count - 1 - level)] for level in range(count)]

    def num_anchors_per_location(self) -> list[int]:
        return [len(sizes) * len(RATIOS) for sizes in self.sizes]

    def forward(self, images: ImageList, maps: list[Tensor]) -> list[Tensor]:
        """(N, 4) xyxy px for every image; level by level, then row by row, cell by cell, anchor by anchor."""
        anchors = torch.cat([self._level(level, *found.shape[2:]) for level, found in enumerate(maps)])
        return [anchors.to(maps[0])] * len(images.image_sizes)

    def _level(self, level: int, height: int, width: int) -> Float[Tensor, "N 4"]:
        shapes = [(s / math.sqrt(ratio), s * math.sqrt(ratio)) for ratio in RATIOS for s in self.sizes[level]]
        half = torch.tensor(shapes) / 2  # width, height
        rows, columns = ((torch.arange(cells) + 0.5) * self.strides[level] for cells in (height, width))
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centres = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
        return torch.cat([centres - half, centres + half], dim=-1).reshape(-1, 4)


class LevelRoiAlign(nn.Module):
    """RoIAlign, aligned to half pixels, of each region on the level that fits its size."""

    def __init__(self, strides: list[float], cells: int) -> None:
        super().__init__()
        self.strides, self.cells = strides, cells

    def forward(
        self, levels: dict[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]
    ) -> Float[Tensor, "N C cells cells"]:
        """The regions of all images, image by image.

        Args:
            levels: ``p0``, ``p1``, … (B, C, h, w) each.
            boxes: (K, 4) xyxy px for every image.
        """
        counts = torch.tensor([len(own) for own in boxes])
        image = torch.arange(len(boxes)).repeat_interleave(counts).to(boxes[0].device)
        every = torch.cat(boxes)
        level_of = self.level_of(every)
        rows, parts = [], []
        for level, stride in enumerate(self.strides):
            mine = (level_of == level).nonzero()[:, 0]
            found = levels[f"p{level}"]
            own = [every[mine[image[mine] == number]] for number in range(len(boxes))]
            padded = pad_sequence(own, batch_first=True)
            filled = torch.tensor([len(each) for each in own], device=every.device)
            valid = torch.arange(padded.shape[1], device=every.device) < filled[:, None]
            cells = roi_align(found, padded.to(found), 1.0 / stride, self.cells)
            rows.append(mine)
            parts.append(cells.permute(0, 1, 3, 4, 2)[valid].permute(0, 3, 1, 2))
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def level_of(self, boxes: Float[Tensor, "N 4"]) -> Int64[Tensor, "N"]:
        """0 for the finest level."""
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
        octave = torch.log2(side.clamp(min=1e-6) / (ROI_CELLS * self.strides[0]) + 1e-6).floor()
        return octave.clamp(0, len(self.strides) - 1).long()
