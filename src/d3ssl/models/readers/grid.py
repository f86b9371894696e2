"""The cells of a grid over the view, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import Slots, View
from d3ssl.errors import InputError
from d3ssl.models.backbone import Backbone, Features
from d3ssl.models.readers.box import require_level
from d3ssl.models.readers.reader import Reader, ReaderConfig, RowKind


@dataclass(frozen=True, kw_only=True)
class Grid(ReaderConfig):
    """A map averaged to S × S cells (DenseCL, arXiv 2011.09157, section 3.2: adaptive average pooling).

    In a view that is cut, a cell counts by the share of it that shows its own image.
    """

    rows: ClassVar[RowKind] = "cell"
    side: int = 7
    """S (DenseCL: 7, the last map of a view of 224 px)."""
    level: int = -1
    """Which of the backbone's maps; −1 the last, −2 the one before."""

    def __post_init__(self) -> None:
        if self.side < 1:
            raise InputError(f"a grid has {self.side} cells per side", remedy="give 1 or more (DenseCL: 7).")

    def build(self, backbone: Backbone) -> GridReader:
        return GridReader(self, backbone)


class GridReader(Reader):
    """See ``Grid``."""

    needs = "map"

    def __init__(self, config: Grid, backbone: Backbone) -> None:
        super().__init__()
        self.side, self.level = config.side, require_level(backbone, config.level)
        self.out_features, self.stride = backbone.channels[self.level], backbone.strides[self.level]

    def forward(self, features: Features, view: View, slots: Slots, backbone: Backbone) -> Float[Tensor, "N D"]:
        cells = F.adaptive_avg_pool2d(features["map"][self.level], self.side)
        return cells.permute(0, 2, 3, 1).flatten(0, 2)

    def weigh(self, view: View) -> Float[Tensor, "N"] | None:
        if view.keep is None:
            return None
        return F.adaptive_avg_pool2d(view.keep.to(view.images.dtype), self.side).flatten()

    def check_view(self, size: int) -> None:
        if size < self.side * self.stride:
            problem = (
                f"a view of {size} px has {size // self.stride} cells of {self.stride} px per side, not {self.side}"
            )
            remedy = "lower --host.grid, choose a finer map with --host.level -2, or raise --views.size."
            raise InputError(problem, remedy=remedy)
