"""Masks read from a map: the mean over its cells, each weighted by the share of it that the region covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import Slots, View
from d3ssl.models.backbone import Backbone, Features
from d3ssl.models.readers.box import require_level
from d3ssl.models.readers.reader import Reader, ReaderConfig, RowKind
from d3ssl.models.regions_by_layer import cell_shares


@dataclass(frozen=True, kw_only=True)
class Mask(ReaderConfig):
    """Mask pooling (DetCon, arXiv 2103.10957, section 3)."""

    rows: ClassVar[RowKind] = "region"
    needs_masks: ClassVar[bool] = True
    level: int = -1
    """Which of the backbone's maps; −1 the last, −2 the one before."""

    def build(self, backbone: Backbone) -> MaskReader:
        return MaskReader(self, backbone)


class MaskReader(Reader):
    """See ``Mask``. A region that shows no pixel of its mask in a view is read by its box."""

    needs = "map"

    def __init__(self, config: Mask, backbone: Backbone) -> None:
        super().__init__()
        self.level = require_level(backbone, config.level)
        self.out_features, self.stride = backbone.channels[self.level], backbone.strides[self.level]

    def forward(self, features: Features, view: View, slots: Slots, backbone: Backbone) -> Float[Tensor, "N D"]:
        found = features["map"][self.level]
        pixels = slot_pixels(view, slots)
        shares = cell_shares(pixels.flatten(0, 1), self.stride, (found.shape[2], found.shape[3]))
        shares = shares.unflatten(0, pixels.shape[:2]).to(found.dtype)
        shares = shares / shares.sum((2, 3), keepdim=True).clamp(min=torch.finfo(found.dtype).tiny)
        return torch.bmm(shares.flatten(2), found.flatten(2).transpose(1, 2)).flatten(0, 1)


def slot_pixels(view: View, slots: Slots) -> Float[Tensor, "B K H W"]:
    """1 for the pixels of each slot's region: of its mask where the view shows any, else of its box."""
    height, width = view.images.shape[2:]
    x0, y0, x1, y1 = view.boxes[..., None].unbind(2)
    row = torch.arange(height, device=view.boxes.device) + 0.5
    column = torch.arange(width, device=view.boxes.device) + 0.5
    inside_rows, inside_columns = (row >= y0) & (row < y1), (column >= x0) & (column < x1)
    boxed = (inside_rows[..., :, None] & inside_columns[..., None, :]).float()
    if view.labels is None:
        return boxed
    is_whole = view.boxes.shape[:2] == slots.source.shape
    number = slots.source + 1 if is_whole else torch.ones_like(view.boxes[..., 0], dtype=torch.int64)
    masked = (view.labels[:, None] == number[..., None, None]).float()
    return torch.where(masked.flatten(2).amax(2)[..., None, None] > 0, masked, boxed)
