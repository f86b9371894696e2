"""ultralytics: a YOLO on a plain ResNet. The tool is AGPL-3.0: it is no dependency, and nothing of it is copied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from d3ssl.export.resnets import refuse_others, resnet_of
from d3ssl.export.target import Origin, Target, Verified, any_sizes, compare_maps
from d3ssl.files import write_text
from d3ssl.models.artifact import library_state
from d3ssl.models.backbone import Backbone

_EPS = 1e-3
"""Of every batch norm in ultralytics."""
_CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_MAPS = (3, 5, 6, 7, 8)
"""Of our maps in what its module for torchvision's networks returns: the input, then what comes out of each child."""


class Ultralytics(Target):
    """yolo.yaml and yolo.pt: normalisation, the ResNet, a path-aggregating pyramid (random), a detection head (random).

    The normalisation is the first layer, a batch norm, because ultralytics gives images in 0..1. Its batch norms have
    another ε than torchvision's, so their weights are scaled by √((σ² + ε') / (σ² + ε)): the maps stay the same.
    """

    what: ClassVar = "a YOLO of ultralytics with this ResNet (AGPL-3.0: not installed with d3ssl)"
    packages: ClassVar = ("ultralytics",)
    install: ClassVar = "pip install ultralytics"

    def refuse(self, backbone: Backbone) -> str | None:
        if backbone.in_channels != 3:
            return f"its module for ResNets takes images of 3 channels, not {backbone.in_channels}"
        if min(backbone.std) ** 2 <= _EPS:
            return f"a standard deviation of {min(backbone.std):g} is too small for its batch norm"
        return refuse_others(backbone)

    def write(self, backbone: Backbone, path: Path, origin: Origin) -> None:
        path.mkdir()
        write_text(path / "yolo.yaml", _yaml(backbone))
        yolo = _open(path / "yolo.yaml")
        found = yolo.model.load_state_dict(_state(backbone), strict=False)
        assert not found.unexpected_keys
        assert not [key for key in found.missing_keys if key.startswith(("model.0.", "model.1."))]
        torch.save({"model": yolo.model, "train_args": {}}, path / "yolo.pt")  # its own save() rounds to half precision

    def verify(self, path: Path, backbone: Backbone) -> Verified:
        layers = _open(path / "yolo.pt").model.float().eval().model
        mean, std = (torch.tensor(values)[:, None, None] for values in (backbone.mean, backbone.std))

        def read(images: Tensor) -> list[Tensor]:
            found = layers[1](layers[0](images * std + mean))
            return [found[number] for number in _MAPS]

        return compare_maps(read, backbone, any_sizes(backbone))

    def loading(self, backbone: Backbone, path: Path) -> str:
        return f'yolo = ultralytics.YOLO("{path}/yolo.pt")\nyolo.train(data="data.yaml")'


def _open(path: Path) -> Any:
    os.environ.setdefault("YOLO_OFFLINE", "true")  # loading a local file asks no server
    from ultralytics import YOLO  # pyright: ignore[reportMissingImports]

    return YOLO(path, verbose=False)


def _state(backbone: Backbone) -> dict[str, Tensor]:
    """Its names: the network's children by their numbers."""
    own, state = library_state(backbone), {}
    for name, module in backbone.net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            variance = own[f"{name}.running_var"].double()
            factor = ((variance + _EPS) / (variance + module.eps)).sqrt()
            own[f"{name}.weight"] = (own[f"{name}.weight"] * factor).float()
    for key, value in own.items():
        child, _, rest = key.partition(".")
        state[f"model.1.m.{_CHILDREN.index(child)}.{rest}"] = value
    first = {"weight": torch.ones(3), "bias": torch.zeros(3), "running_mean": torch.tensor(backbone.mean)}
    first["running_var"] = torch.tensor(backbone.std) ** 2 - _EPS
    first["num_batches_tracked"] = torch.tensor(0)
    return state | {f"model.0.{key}": value for key, value in first.items()}


def _yaml(backbone: Backbone) -> str:
    """Top down and bottom up again (PANet, arXiv 1803.01534), 128, 256 and 512 channels at strides 8, 16 and 32."""
    small, middle, large = backbone.channels[-3:]
    rows = (
        "backbone:",
        "  - [-1, 1, nn.BatchNorm2d, []] # 0: minus mean, divided by standard deviation",
        f"  - [-1, 1, TorchVision, [{large}, {resnet_of(backbone).name}, null, True, 2, True]] # 1",
        f"  - [1, 1, Index, [{small}, 6]] # 2: stride 8",
        f"  - [1, 1, Index, [{middle}, 7]] # 3: stride 16",
        f"  - [1, 1, Index, [{large}, 8]] # 4: stride 32",
        "head:",
        "  - [4, 1, Conv, [512, 1, 1]] # 5",
        "  - [-1, 1, nn.Upsample, [null, 2, nearest]]",
        "  - [[-1, 3], 1, Concat, [1]]",
        "  - [-1, 1, C2f, [256]] # 8",
        "  - [-1, 1, nn.Upsample, [null, 2, nearest]]",
        "  - [[-1, 2], 1, Concat, [1]]",
        "  - [-1, 1, C2f, [128]] # 11: detects at stride 8",
        "  - [-1, 1, Conv, [128, 3, 2]]",
        "  - [[-1, 8], 1, Concat, [1]]",
        "  - [-1, 1, C2f, [256]] # 14: detects at stride 16",
        "  - [-1, 1, Conv, [256, 3, 2]]",
        "  - [[-1, 5], 1, Concat, [1]]",
        "  - [-1, 1, C2f, [512]] # 17: detects at stride 32",
        "  - [[11, 14, 17], 1, Detect, [nc]]",
    )
    return "\n".join(["nc: 80 # training sets it by the data", *rows]) + "\n"
