"""timm: its state dict, in safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import timm

from d3ssl.export.resnets import find_resnet
from d3ssl.export.state import read_state, reading, write_state
from d3ssl.export.target import Origin, Sizes, Target, Verified, any_sizes, compare_maps
from d3ssl.models.artifact import library_state
from d3ssl.models.backbone import Backbone
from d3ssl.models.layout import own_size, run_intermediates


class Timm(Target):
    """A file for ``timm.create_model(NAME, num_classes=0, in_chans=C)``, with no key missing or left over."""

    what: ClassVar = "a state dict by timm's keys; loads with strict=True"
    endings: ClassVar = (".safetensors",)

    def refuse(self, backbone: Backbone) -> str | None:
        if backbone.library == "timm" or find_resnet(backbone) is not None:
            return None
        return f"timm has no network with the layers of {backbone.architecture}"

    def write(self, backbone: Backbone, path: Path, origin: Origin) -> None:
        write_state(library_state(backbone), path)

    def verify(self, path: Path, backbone: Backbone) -> Verified:
        net: Any = timm.create_model(backbone.timm_name, num_classes=0, in_chans=backbone.in_channels).eval()
        net.load_state_dict(read_state(path), strict=True)
        layout = backbone.layout
        return compare_maps(
            lambda images: run_intermediates(net, images, layout.is_grid, layout.strides[-1]),
            backbone,
            plain_sizes(backbone),
        )

    def loading(self, backbone: Backbone, path: Path) -> str:
        name, channels = backbone.timm_name, backbone.in_channels
        return (
            f'net = timm.create_model("{name}", num_classes=0, in_chans={channels})\n'
            f"net.load_state_dict({reading(path)})"
        )


def plain_sizes(backbone: Backbone) -> Sizes:
    """Sizes that timm's network takes without further options: CNNs any, others their own."""
    return any_sizes(backbone) if backbone.layout.chain else [(2, *own_size(backbone.net))]
