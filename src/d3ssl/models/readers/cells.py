"""All cells of a map, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import Slots, View
from d3ssl.models.backbone import Backbone, Features
from d3ssl.models.readers.box import require_level
from d3ssl.models.readers.reader import Reader, ReaderConfig, RowKind


@dataclass(frozen=True, kw_only=True)
class Cells(ReaderConfig):
    """The map as it is: for comparing two networks on the same view, cell by cell."""

    rows: ClassVar[RowKind] = "cell"
    level: int = -1
    """Which of the backbone's maps; −1 the last, −2 the one before."""

    def build(self, backbone: Backbone) -> CellsReader:
        return CellsReader(self, backbone)


class CellsReader(Reader):
    """See ``Cells``."""

    needs = "map"

    def __init__(self, config: Cells, backbone: Backbone) -> None:
        super().__init__()
        self.level = require_level(backbone, config.level)
        self.out_features = backbone.channels[self.level]

    def forward(self, features: Features, view: View, slots: Slots, backbone: Backbone) -> Float[Tensor, "N D"]:
        return features["map"][self.level].permute(0, 2, 3, 1).flatten(0, 2)
