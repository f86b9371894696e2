"""detectron2: a ResNet by its keys.

The layout is that of detectron2's ``tools/convert-torchvision-to-d2.py`` and ``modeling/backbone/resnet.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import torch

from d3ssl.export.layouts import verify_layout
from d3ssl.export.resnets import Layer, refuse_others, resnet_of
from d3ssl.export.target import Origin, Target, Verified
from d3ssl.models.artifact import library_state
from d3ssl.models.backbone import Backbone

_RENAMED = (
    (r"^(?=conv1|bn1)", "stem."),
    (r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}"),
    (r"bn(\d)", r"conv\1.norm"),
    (r"downsample\.0", "shortcut"),
    (r"downsample\.1", "shortcut.norm"),
)


class Detectron2(Target):
    """A checkpoint for ``MODEL.WEIGHTS``; detectron2 finds the place by the ends of the names (C4, FPN, DC5 alike)."""

    what: ClassVar = "a ResNet by detectron2's keys, for MODEL.WEIGHTS"
    endings: ClassVar = (".pth",)

    def refuse(self, backbone: Backbone) -> str | None:
        return refuse_others(backbone)

    def write(self, backbone: Backbone, path: Path, origin: Origin) -> None:
        state = {}
        for key, value in library_state(backbone).items():
            for pattern, new in _RENAMED:
                key = re.sub(pattern, new, key)
            if not key.endswith("num_batches_tracked"):  # its frozen batch norms have none
                state[key] = value
        torch.save({"model": state, "__author__": "d3ssl", "matching_heuristics": True}, path)

    def verify(self, path: Path, backbone: Backbone) -> Verified:
        return verify_layout(torch.load(path, weights_only=True)["model"], backbone, _names, "detectron2")

    def loading(self, backbone: Backbone, path: Path) -> str:
        net = resnet_of(backbone)
        mean, std = ([round(255 * value, 3) for value in values] for values in (backbone.mean, backbone.std))
        widths = f"NUM_GROUPS = {net.groups}; cfg.MODEL.RESNETS.WIDTH_PER_GROUP = {net.width}"
        basic = "; cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64" if net.depth < 50 else ""
        return (
            f'cfg.MODEL.WEIGHTS = "{path}"; cfg.INPUT.FORMAT = "RGB"\n'
            f"cfg.MODEL.PIXEL_MEAN = {mean}; cfg.MODEL.PIXEL_STD = {std}\n"
            f"cfg.MODEL.RESNETS.DEPTH = {net.depth}; cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False; "
            f"cfg.MODEL.RESNETS.{widths}{basic}"
        )


def _names(layer: Layer) -> tuple[str, str]:
    if layer.stage == 0:
        convolution = "stem.conv1"
    else:
        place = "shortcut" if layer.place == "shortcut" else f"conv{layer.place}"
        convolution = f"res{layer.stage + 1}.{layer.block}.{place}"
    return convolution, f"{convolution}.norm"
