"""MMDetection: a ResNet by its keys.

The layout is that of MMDetection's ``mmdet/models/backbones/resnet.py``, behind ``backbone.`` as in its checkpoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

import d3ssl
from d3ssl.export.layouts import verify_layout
from d3ssl.export.resnets import Layer, refuse_others, resnet_of
from d3ssl.export.target import Origin, Target, Verified
from d3ssl.models.artifact import library_state
from d3ssl.models.backbone import Backbone

_PREFIX = "backbone."


class MMDetection(Target):
    """A checkpoint for ``init_cfg`` of a ResNet, and for ``load_from``."""

    what: ClassVar = "a ResNet by MMDetection's keys, for init_cfg"
    endings: ClassVar = (".pth",)

    def refuse(self, backbone: Backbone) -> str | None:
        return refuse_others(backbone)

    def write(self, backbone: Backbone, path: Path, origin: Origin) -> None:
        state = {f"{_PREFIX}{key}": value for key, value in library_state(backbone).items()}
        torch.save({"meta": {"d3ssl": d3ssl.__version__}, "state_dict": state}, path)

    def verify(self, path: Path, backbone: Backbone) -> Verified:
        return verify_layout(torch.load(path, weights_only=True)["state_dict"], backbone, _names, "MMDetection")

    def loading(self, backbone: Backbone, path: Path) -> str:
        net = resnet_of(backbone)
        is_plain = (net.groups, net.width) == (1, 64)
        kind = '"ResNet"' if is_plain else f'"ResNeXt", groups={net.groups}, base_width={net.width}'
        mean, std = ([round(255 * value, 3) for value in values] for values in (backbone.mean, backbone.std))
        return (
            f'backbone=dict(type={kind}, depth={net.depth}, in_channels={backbone.in_channels}, style="pytorch",\n'
            f'    init_cfg=dict(type="Pretrained", checkpoint="{path}", prefix="{_PREFIX}"))\n'
            f"data_preprocessor=dict(mean={mean}, std={std}, bgr_to_rgb={backbone.in_channels == 3})"
        )


def _names(layer: Layer) -> tuple[str, str]:
    if layer.stage == 0:
        return f"{_PREFIX}conv1", f"{_PREFIX}bn1"
    start = f"{_PREFIX}layer{layer.stage}.{layer.block}"
    if layer.place == "shortcut":
        return f"{start}.downsample.0", f"{start}.downsample.1"
    return f"{start}.conv{layer.place}", f"{start}.bn{layer.place}"
