"""Copy-paste (Ghiasi et al., arXiv 2012.07177): objects of another image are pasted beside the regions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots, View
from d3ssl.views.masks import own_pixels
from d3ssl.views.ops.mixing import sample_partners
from d3ssl.views.ops.operation import Operation


@dataclass(frozen=True, kw_only=True)
class PasteObjects(Operation):
    """Paste the regions of another image of the batch, by their masks, at their places; never over the own regions."""

    name: ClassVar[str] = "paste_objects"

    @property
    def needs_masks(self) -> bool:
        return True

    def sample(self, batch: CanvasBatch, slots: int, generator: torch.Generator) -> Int64[Tensor, "B"]:
        """The partner of every image."""
        return sample_partners(len(batch.canvas), generator, batch.index)

    def apply(self, view: View, slots: Slots, drawn: Int64[Tensor, "B"], whole: Tensor) -> View:
        own = own_pixels(view, slots, "mask")
        pasted = own[drawn] & ~own
        keep = ~pasted if view.keep is None else view.keep & ~pasted
        return dataclasses.replace(view, images=torch.where(pasted, whole[drawn], view.images), keep=keep)
