"""Feature pyramids on a backbone: of its maps, or of its only map resized."""

from __future__ import annotations

import copy
from collections import OrderedDict
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FeaturePyramidNetwork

from d3ssl.models import Backbone

FINEST, COARSEST = 4, 32
"""Strides of the maps that a pyramid is made of (P2–P5 of Lin et al., arXiv 1612.03144)."""
MIN_CELLS = 6
"""A level with fewer cells a side than this is no use for finding objects, whose places it cannot tell apart: it only
gives its content to the finer levels. At 800 px all levels have more."""


def trained_copy(backbone: Backbone, frozen_norm: bool, freeze: bool = False) -> Backbone:
    """A copy whose parameters are to be trained, except those that no map depends on and, if so wished, the norms'; or
    none of them."""
    backbone = copy.deepcopy(backbone)
    unused = set(backbone.unused_parameters)
    for name, parameter in backbone.net.named_parameters():
        parameter.requires_grad_(not freeze and name not in unused)
    if frozen_norm:
        for norm in (module for module in backbone.modules() if isinstance(module, _BatchNorm)):
            for parameter in norm.parameters():
                parameter.requires_grad_(False)
    return backbone


class Trunk(nn.Module):
    """A backbone inside a detector. One that is not trained, and frozen batch norms, stay in evaluation mode."""

    def __init__(self, backbone: Backbone, frozen_norm: bool) -> None:
        super().__init__()
        self.backbone, self.frozen_norm = backbone, frozen_norm

    def train(self, mode: bool = True) -> Trunk:
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        if self.frozen_norm:
            for module in self.backbone.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


class StageTrunk(Trunk):
    """The map before the last stage (c4) or the last two (c3)."""

    def __init__(self, backbone: Backbone, path: str, frozen_norm: bool) -> None:
        super().__init__(backbone, frozen_norm)
        self.path = path
        stages = 1 if path == "c4" else 2
        self.strides, self.out_channels = [float(backbone.strides[-1 - stages])], backbone.channels[-1 - stages]

    def forward(self, images: Float[Tensor, "B C S S"]) -> OrderedDict[str, Tensor]:
        return OrderedDict([("p0", self.backbone.trunk(images, self.path))])  # type: ignore[arg-type]


class PyramidTrunk(Trunk):
    """Levels ``p0`` (the finest), ``p1``, … of ``width`` channels.

    Args:
        size: side of the images, px: decides which levels have enough cells (``MIN_CELLS``).
    """

    strides: list[float]
    """Of the levels, px; each is twice that of the one before."""

    def __init__(self, backbone: Backbone, size: int, width: int, frozen_norm: bool) -> None:
        super().__init__(backbone, frozen_norm)
        self.used = pyramid_maps(backbone)
        self.out_channels = width
        norm = None if frozen_norm else nn.BatchNorm2d
        if len(self.used) > 1:
            strides = [float(backbone.strides[place]) for place in self.used]
            self.strides = _useful(strides, size)
            pyramid = FeaturePyramidNetwork([backbone.channels[place] for place in self.used], width, norm_layer=norm)
            for place in range(len(self.strides), len(strides)):
                pyramid.layer_blocks[place] = nn.Identity()  # without output: its convolution would never be trained
            self.pyramid: nn.Module = pyramid
        else:
            stride = backbone.strides[-1]
            self.strides = _useful([stride / 4, stride / 2, float(stride), 2.0 * stride], size)
            self.pyramid = ResizedPyramid(backbone.channels[-1], width, len(self.strides), norm)

    def forward(self, images: Float[Tensor, "B C S S"]) -> OrderedDict[str, Tensor]:
        maps = self.backbone.maps(images)
        levels = self.pyramid(OrderedDict((f"p{number}", maps[place]) for number, place in enumerate(self.used)))
        return OrderedDict((f"p{number}", levels[f"p{number}"]) for number in range(len(self.strides)))


def pyramid_maps(backbone: Backbone) -> list[int]:
    """Places of the maps that a pyramid is made of: the last one of each stride within limits, or only the last."""
    last = {stride: place for place, stride in enumerate(backbone.strides)}
    used = [place for stride, place in sorted(last.items()) if FINEST <= stride <= COARSEST]
    doubling = all(backbone.strides[b] == 2 * backbone.strides[a] for a, b in pairwise(used))
    return used if len(used) > 1 and doubling else [len(backbone.strides) - 1]


def _useful(strides: list[float], size: int) -> list[float]:
    return [stride for number, stride in enumerate(strides) if number == 0 or size >= MIN_CELLS * stride]


class ResizedPyramid(nn.Module):
    """A pyramid from one map of stride s: levels of stride s/4, s/2, s and 2s.

    Like the simple feature pyramid of ViTDet (Li et al., arXiv 2203.16527), but resized by interpolation (bilinear)
    and max-pooling instead of learned (transposed) convolutions, so that less is new.
    """

    def __init__(self, channels: int, width: int, levels: int, norm: type[nn.Module] | None) -> None:
        super().__init__()
        has_bias = norm is None

        def block(inside: int, kernel: int) -> nn.Sequential:
            conv = nn.Conv2d(inside, width, kernel, padding=kernel // 2, bias=has_bias)
            return nn.Sequential(conv, *([] if norm is None else [norm(width)]))

        self.inner = block(channels, 1)
        self.outer = nn.ModuleList([block(width, 3) for _ in range(levels)])

    def forward(self, maps: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
        (only,) = maps.values()
        inner = self.inner(only)
        levels = OrderedDict()
        for number, outer in enumerate(self.outer):
            power = 2 - number  # the finest level has four times as many cells a side as the map
            if power > 0:
                resized = F.interpolate(inner, scale_factor=2**power, mode="bilinear", align_corners=False)
            else:
                resized = inner if power == 0 else F.max_pool2d(inner, 2, ceil_mode=True)
            levels[f"p{number}"] = outer(resized)
        return levels
