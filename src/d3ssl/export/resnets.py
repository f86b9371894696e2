"""Plain ResNets, which several tools hold: their names, their weights, and the layers that each has by its depth."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torchvision
from torchvision.models import get_model_builder, list_models

from d3ssl.models.backbone import Backbone

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Number of blocks of each stage (arXiv 1512.03385, table 1)."""
_WIDTHS = {
    "resnext50_32x4d": (32, 4),
    "resnext101_32x8d": (32, 8),
    "resnext101_64x4d": (64, 4),
    "wide_resnet50_2": (1, 128),
    "wide_resnet101_2": (1, 128),
}
"""Groups and width of a group, where they are not 1 and 64 (arXiv 1611.05431, arXiv 1605.07146)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet:
    """What sets a plain ResNet apart from others."""

    name: str
    depth: int
    groups: int
    width: int
    """Channels of a group in the first stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution without bias and the batch norm behind it."""

    stage: int
    """1 to 4; 0: the layer before them."""
    block: int
    place: str
    """``1``, ``2`` or ``3``: in the block's order; ``shortcut``: beside them."""
    shape: tuple[int, int, int, int]
    """Of the convolution's weight."""


def find_resnet(backbone: Backbone) -> ResNet | None:
    """The plain ResNet (ResNeXt, wide ResNet) that the backbone is; None: it is none.

    timm and torchvision call them by the same names, and so they do their layers.
    """
    return resnet_named(backbone.timm_name.partition(".")[0]) if backbone.library != "module" else None


def resnet_named(name: str) -> ResNet | None:
    """A plain ResNet by its name; None: there is none."""
    if name not in list_models(torchvision.models):
        return None
    if get_model_builder(name).__module__ != torchvision.models.resnet.__name__:
        return None
    depth = int(re.findall(r"resne[xt]+(\d+)", name)[0])
    groups, width = _WIDTHS.get(name, (1, 64))
    return ResNet(name=name, depth=depth, groups=groups, width=width)


def refuse_others(backbone: Backbone) -> str | None:
    """Why it is no plain ResNet; None: it is one."""
    is_one = find_resnet(backbone) is not None
    return None if is_one else f"it takes plain ResNets (18 to 152, ResNeXt, wide), not {backbone.architecture}"


def resnet_of(backbone: Backbone) -> ResNet:
    """``find_resnet``, of a backbone that is one."""
    found = find_resnet(backbone)
    assert found is not None, backbone.architecture
    return found


def layers(net: ResNet, in_channels: int) -> Iterator[Layer]:
    """All layers by the definition of the architecture, in their order."""
    yield Layer(stage=0, block=0, place="1", shape=(64, in_channels, 7, 7))
    has_bottleneck, inside = net.depth >= 50, 64
    for stage, count in enumerate(_BLOCKS[net.depth], start=1):
        factor = 2 ** (stage - 1)
        out = 64 * factor * (4 if has_bottleneck else 1)
        wide = net.groups * net.width * factor
        for block in range(count):
            shapes = [(out, inside, 3, 3), (out, out, 3, 3)]
            if has_bottleneck:
                shapes = [(wide, inside, 1, 1), (wide, wide // net.groups, 3, 3), (out, wide, 1, 1)]
            for number, shape in enumerate(shapes, start=1):
                yield Layer(stage=stage, block=block, place=str(number), shape=shape)
            if inside != out:
                yield Layer(stage=stage, block=block, place="shortcut", shape=(out, inside, 1, 1))
            inside = out
