"""torch.export: the whole computation in one file, which runs without timm and without d3ssl."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import ClassVar

import torch

from d3ssl.export.target import Origin, Target, Verified, compare_maps
from d3ssl.export.traced import size_note, trace, traced_sizes
from d3ssl.models.backbone import Backbone


class TorchExport(Target):
    """A program of ``torch.export``. Any number of images, and any size that the network takes."""

    what: ClassVar = "a program of torch.export (.pt2); runs without timm and d3ssl"
    endings: ClassVar = (".pt2",)

    def refuse(self, backbone: Backbone) -> str | None:
        return None

    def write(self, backbone: Backbone, path: Path, origin: Origin) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No complete tensor found")  # of views that share storage, on the CPU
            torch.export.save(trace(backbone), path)

    def verify(self, path: Path, backbone: Backbone) -> Verified:
        return compare_maps(torch.export.load(path).module(), backbone, traced_sizes(backbone))

    def loading(self, backbone: Backbone, path: Path) -> str:
        return f'net = torch.export.load("{path}").module()\nmaps = net(images)  # {size_note(backbone)}'
