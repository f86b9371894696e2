"""The network that is trained: images and boxes in, one row a region out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from d3ssl.models.backbone import Backbone, RegionPath, create_backbone
from d3ssl.models.fpn import FpnPath
from d3ssl.models.heads import mlp


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Backbone, region path and projector."""

    backbone: str = "resnet50"
    """Name of a timm network (`timm.list_models()`): a CNN with feature maps or a ViT."""
    pretrained: bool = False
    """Start from timm's weights (downloads them) instead of random ones."""
    region_path: Literal["c3", "c4", "map", "fpn"] = "c4"
    """c4: RoIAlign before the last stage, which then runs on each region (SoCo's C4 variant; CNNs). c3: before the
    last two, for small images (decided here). map: RoIAlign on the last map (ViTs). fpn: feature pyramid and
    convolutional head (SoCo's FPN variant; CNNs)."""
    roi_size: int = 7
    """Cells a side of RoIAlign. SoCo's C4 uses 14; with 7 the region head costs a quarter (decided here)."""
    projector_hidden: int = 4096
    """Hidden units of the projector (SoCo, BYOL: 4096)."""
    projector_out: int = 256
    """Size of an embedding (SoCo, BYOL: 256)."""


def trained_backbone(config: ModelConfig, in_channels: int = 3) -> Backbone:
    """The backbone of a training, with what reads its regions; unused parameters need no gradient.

    Raises:
        InputError: unknown backbone, or one that does not offer the region path.
    """
    backbone = create_backbone(config.backbone, in_channels=in_channels, pretrained=config.pretrained)
    path: RegionPath = "map" if config.region_path == "fpn" else config.region_path
    backbone.require(path)
    for name in backbone.unused_parameters:
        backbone.net.get_parameter(name).requires_grad_(False)
    backbone.region_path, backbone.roi_size = path, config.roi_size
    return backbone


class RegionNetwork(nn.Module):
    """Backbone → region path → projector.

    Parameters that no region feature depends on (layers of the timm network behind its last map) need no gradient:
    they keep their initial values, and do not hold up gradient averaging between processes.

    Raises:
        InputError: unknown backbone, or one that does not offer the region path.
    """

    def __init__(self, config: ModelConfig, *, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.backbone = trained_backbone(config, in_channels)
        self.fpn: FpnPath | None = None
        size = self.backbone.num_features
        if config.region_path == "fpn":
            self.fpn = FpnPath(self.backbone.channels, self.backbone.strides, roi_size=config.roi_size)
            size = self.fpn.out_features
        self.projector = mlp(size, config.projector_hidden, config.projector_out)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(
        self, images: Float[Tensor, "B C H W"], boxes: Float[Tensor, "B K 4"], valid: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "N D"]:
        """Features of the valid regions before the projector, in the order of ``valid.nonzero()``."""
        if self.fpn is not None:
            return self.fpn(self.backbone.maps(images), boxes, valid)
        return self.backbone.pool_valid(images, boxes, valid, self.backbone.region_path, self.config.roi_size)

    def forward(
        self, images: Float[Tensor, "B C H W"], boxes: Float[Tensor, "B K 4"], valid: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "N E"]:
        """Embeddings of the valid regions.

        Args:
            images: normalised.
            boxes: xyxy, view px.
            valid: which boxes count.

        Returns:
            N = number of valid boxes, in the order of ``valid.nonzero()``.
        """
        return self.projector(self.features(images, boxes, valid))
