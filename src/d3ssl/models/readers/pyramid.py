"""Boxes read through a feature pyramid: RoIAlign on the level that fits a box's size, and a convolutional head."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from d3ssl.contracts import Slots, View
from d3ssl.errors import InputError
from d3ssl.models.backbone import Backbone, Features
from d3ssl.models.readers.reader import Reader, ReaderConfig, RowKind
from d3ssl.models.roi_align import roi_align

PYRAMID_STRIDES = (4, 8, 16, 32)
"""Strides of P2, P3, P4 and P5."""
LEVEL_LIMITS = (48.0, 96.0, 192.0)
"""√(box area), px, up to which a box is read from P2, P3, P4; above: P5 (SoCo, arXiv 2106.02637, section 3.2)."""


@dataclass(frozen=True, kw_only=True)
class Pyramid(ReaderConfig):
    """SoCo's FPN variant (see ``FpnPath``; CNNs with maps of strides 4, 8, 16 and 32)."""

    rows: ClassVar[RowKind] = "region"
    roi_size: int = 7
    """Cells per side."""

    def build(self, backbone: Backbone) -> PyramidReader:
        return PyramidReader(self, backbone)


class PyramidReader(Reader):
    """See ``Pyramid``."""

    needs = "map"

    def __init__(self, config: Pyramid, backbone: Backbone) -> None:
        super().__init__()
        self.path = FpnPath(backbone.channels, backbone.strides, roi_size=config.roi_size)
        self.out_features = self.path.out_features

    def forward(self, features: Features, view: View, slots: Slots, backbone: Backbone) -> Float[Tensor, "N D"]:
        return self.path(features["map"], view.boxes)


class FpnPath(nn.Module):
    """Feature pyramid and region head of SoCo's FPN variant: maps and boxes in, one feature per region out.

    P2–P5 of 256 channels with batch norm (Lin et al., arXiv 1612.03144), RoIAlign 7×7 on the level of the box, four
    3×3 convolutions of 256 channels with batch norm and ReLU, a linear layer to 1024 and ReLU: the head that
    detectors call "4conv1fc" (arXiv 1803.08494), as in SoCo (arXiv 2106.02637).

    Args:
        channels: of each map that ``forward`` will get.
        strides: of each map, view px per map px. Those of 4, 8, 16 and 32 are used, all others ignored.
        width: channels of the pyramid and of the head's convolutions.
        out_features: D, the size of a region's feature.
        roi_size: side of RoIAlign's grid.

    Raises:
        InputError: one of the strides is missing.
    """

    def __init__(
        self,
        channels: list[int],
        strides: list[int],
        *,
        width: int = 256,
        out_features: int = 1024,
        roi_size: int = 7,
    ) -> None:
        super().__init__()
        missing = sorted(set(PYRAMID_STRIDES) - set(strides))
        if missing:
            problem = f"the FPN needs maps of strides {PYRAMID_STRIDES}; the backbone has {tuple(strides)}"
            raise InputError(problem, remedy="use --host.region_path map, or a backbone such as resnet50.")
        self.used = [strides.index(stride) for stride in PYRAMID_STRIDES]
        self.roi_size, self.out_features = roi_size, out_features
        self.pyramid = FeaturePyramidNetwork([channels[i] for i in self.used], width, norm_layer=nn.BatchNorm2d)
        convs = [
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True))
            for _ in range(4)
        ]
        self.head = nn.Sequential(
            *convs, nn.Flatten(), nn.Linear(width * roi_size * roi_size, out_features), nn.ReLU(inplace=True)
        )

    def forward(self, maps: list[Tensor], boxes: Float[Tensor, "B K 4"]) -> Float[Tensor, "N D"]:
        """Features of all regions, image by image.

        Args:
            maps: (B, C_i, h_i, w_i) each, in the order of ``channels``.
            boxes: xyxy, view px.
        """
        return self.head(self.region_maps(maps, boxes))

    def region_maps(self, maps: list[Tensor], boxes: Float[Tensor, "B K 4"]) -> Float[Tensor, "N C r r"]:
        """What the head reads: RoIAlign of every region from the pyramid level of its size."""
        named = OrderedDict((f"p{number + 2}", maps[i]) for number, i in enumerate(self.used))
        levels = list(self.pyramid(named).values())
        own = level_of(boxes).flatten()
        pooled = levels[0].new_zeros(())
        # Every level is read for every box, so that each takes part in the gradient in every process (DDP waits for
        # all of them) and no size depends on the data; reading is cheap beside the convolutions of the head.
        for number, (level, stride) in enumerate(zip(levels, PYRAMID_STRIDES, strict=True)):
            read = roi_align(level, boxes, 1.0 / stride, self.roi_size).flatten(0, 1)
            pooled = torch.where((own == number)[:, None, None, None], read, pooled)
        return pooled


def level_of(boxes: Float[Tensor, "*rows 4"]) -> Int64[Tensor, "*rows"]:
    """Pyramid level of each box (0 for P2 .. 3 for P5) by the root of its area; a limit belongs to the finer level."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    size = sides.prod(-1).sqrt()
    limits = torch.tensor(LEVEL_LIMITS, device=boxes.device, dtype=size.dtype)
    return torch.bucketize(size, limits)
