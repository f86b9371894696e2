"""Boxes read from a map by RoIAlign, before or behind the last stages of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import Slots, View
from d3ssl.errors import InputError
from d3ssl.models.backbone import HEAD_STAGES, Backbone, Features, RegionPath
from d3ssl.models.readers.reader import Reader, ReaderConfig, RowKind


@dataclass(frozen=True, kw_only=True)
class Box(ReaderConfig):
    """RoIAlign of every region, then the mean of its cells (see ``Backbone.pool_valid``)."""

    rows: ClassVar[RowKind] = "region"
    path: RegionPath = "c4"
    """c4: before the last stage, which then runs on each region (SoCo's C4 variant; CNNs). c3: before the last two, for
    small images (decided here). map: on a map as it is."""
    roi_size: int = 7
    """Cells per side. SoCo's C4 uses 14; with 7 the region head costs a quarter (decided here)."""
    level: int = -1
    """With path ``map``: which of the backbone's maps; −1 the last, −2 the one before."""

    def __post_init__(self) -> None:
        if self.roi_size < 1:
            raise InputError(f"roi_size is {self.roi_size}", remedy="set it to 1 or more.")

    def build(self, backbone: Backbone) -> BoxReader:
        return BoxReader(self, backbone)


class BoxReader(Reader):
    """See ``Box``."""

    def __init__(self, config: Box, backbone: Backbone) -> None:
        super().__init__()
        backbone.require(config.path)
        self.config, self.needs = config, config.path
        level = require_level(backbone, config.level) if config.path == "map" else -1
        self.out_features = backbone.channels[level]
        self.stride = backbone.strides[level - HEAD_STAGES[config.path]]

    def forward(self, features: Features, view: View, slots: Slots, backbone: Backbone) -> Float[Tensor, "N D"]:
        config = self.config
        maps = features[config.path]
        found = maps[config.level] if config.path == "map" else maps[-1]
        return backbone.pool_cells(found, view.boxes, 1.0 / self.stride, config.path, config.roi_size)


def require_level(backbone: Backbone, level: int) -> int:
    """The level itself, if the backbone has such a map."""
    if not -len(backbone.channels) <= level < 0:
        problem = f"'{backbone.timm_name}' has {len(backbone.channels)} maps, so none is number {level}"
        raise InputError(problem, remedy=f"give a level from −{len(backbone.channels)} to −1.")
    return level
