"""torchvision: the state dict of its classification networks, and of the backbone in its detectors."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from torch import nn
from torchvision.models import get_model
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from d3ssl.export.resnets import find_resnet, refuse_others
from d3ssl.export.state import ENDINGS, load_part, reading, write_state
from d3ssl.export.target import Origin, Target, Verified, any_sizes, compare_maps
from d3ssl.models.artifact import library_state
from d3ssl.models.backbone import Backbone
from d3ssl.models.layout import run_intermediates
from d3ssl.models.torchvision_net import BEHIND, wrap_torchvision

_BODY = "backbone.body."


class Torchvision(Target):
    """A file for ``torchvision.models.get_model(NAME)``; only its classifier is missing."""

    what: ClassVar = "a state dict by torchvision's keys: ResNets of timm too"
    endings: ClassVar = ENDINGS

    def refuse(self, backbone: Backbone) -> str | None:
        if backbone.library != "torchvision" and find_resnet(backbone) is None:
            return f"torchvision has no network with the layers of {backbone.architecture}"
        return _refuse_channels(backbone)

    def write(self, backbone: Backbone, path: Path, origin: Origin) -> None:
        write_state(library_state(backbone), path)

    def verify(self, path: Path, backbone: Backbone) -> Verified:
        name = _name(backbone)
        model = get_model(name)
        load_part(model, path, tuple(f"{own}." for own in BEHIND))
        net, layout = wrap_torchvision(model.eval(), name), backbone.layout
        read = lambda images: run_intermediates(net, images, layout.is_grid, layout.strides[-1])  # noqa: E731
        return compare_maps(read, backbone, any_sizes(backbone))

    def loading(self, backbone: Backbone, path: Path) -> str:
        return (
            f'net = torchvision.models.get_model("{_name(backbone)}")\n'
            f"net.load_state_dict({reading(path)}, strict=False)  # only the classifier is missing"
        )


class TorchvisionDetector(Target):
    """A file for torchvision's detectors on a feature pyramid: Faster R-CNN, Mask R-CNN, Keypoint R-CNN, RetinaNet."""

    what: ClassVar = "the ResNet inside torchvision's detectors with an FPN (keys backbone.body.…)"
    endings: ClassVar = ENDINGS

    def refuse(self, backbone: Backbone) -> str | None:
        return refuse_others(backbone) or _refuse_channels(backbone)

    def write(self, backbone: Backbone, path: Path, origin: Origin) -> None:
        write_state({f"{_BODY}{key}": value for key, value in library_state(backbone).items()}, path)

    def verify(self, path: Path, backbone: Backbone) -> Verified:
        body = resnet_fpn_backbone(backbone_name=_name(backbone), weights=None, norm_layer=nn.BatchNorm2d)
        detector = FasterRCNN(body, num_classes=2)
        load_part(detector, path, ("backbone.fpn.", "rpn.", "roi_heads."))
        read = detector.eval().backbone.body  # type: ignore[union-attr]
        return compare_maps(lambda images: list(read(images).values()), backbone, any_sizes(backbone))  # type: ignore

    def loading(self, backbone: Backbone, path: Path) -> str:
        return (
            f'body = resnet_fpn_backbone(backbone_name="{_name(backbone)}", weights=None)\n'
            "detector = FasterRCNN(body, num_classes=91)\n"
            f"detector.load_state_dict({reading(path)}, strict=False)  # pyramid and heads are missing"
        )


def _name(backbone: Backbone) -> str:
    """torchvision's; timm's has the tag of its weights behind a dot."""
    return backbone.timm_name.partition(".")[0]


def _refuse_channels(backbone: Backbone) -> str | None:
    if backbone.in_channels == 3:
        return None
    return f"torchvision's networks take images of 3 channels, not {backbone.in_channels}"
