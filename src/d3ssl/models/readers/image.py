"""Whole images read from the last map: global average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import Slots, View
from d3ssl.models.backbone import Backbone, Features
from d3ssl.models.readers.reader import Reader, ReaderConfig, RowKind


@dataclass(frozen=True, kw_only=True)
class Image(ReaderConfig):
    """The mean of the last map."""

    rows: ClassVar[RowKind] = "image"

    def build(self, backbone: Backbone) -> ImageReader:
        return ImageReader(backbone)


class ImageReader(Reader):
    """See ``Image``."""

    needs = "map"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.out_features = backbone.channels[-1]

    def forward(self, features: Features, view: View, slots: Slots, backbone: Backbone) -> Float[Tensor, "N D"]:
        return features["map"][-1].mean(dim=(2, 3))
