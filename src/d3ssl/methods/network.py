"""Backbone → readers → projectors: what student and teacher have in common."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d3ssl.contracts import Slots, View
from d3ssl.methods.plan import Plan
from d3ssl.models.backbone import Backbone
from d3ssl.models.readers import Reader


class Network(nn.Module):
    """The backbone, and for every objective with heads of its own a reader and a projector."""

    def __init__(self, plan: Plan, backbone: Backbone) -> None:
        super().__init__()
        own = {name: o for name, o in plan.objectives.items() if o.shares is None}
        self.backbone = backbone
        self.readers = nn.ModuleDict({name: o.reader.build(backbone) for name, o in own.items()})  # type: ignore[misc]
        self.projectors = nn.ModuleDict(
            {
                name: o.projector.build(self.reader(name).out_features) if o.projector else nn.Identity()
                for name, o in own.items()
            }
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def reader(self, name: str) -> Reader:
        """That of an objective with heads of its own."""
        return self.readers[name]  # type: ignore[return-value]

    def forward(self, view: View, slots: Slots, heads: list[str]) -> dict[str, Float[Tensor, "N D"]]:
        """The rows of one view for the named heads. The backbone runs once, no deeper than their readers ask."""
        readers = {name: self.reader(name) for name in heads}
        features = self.backbone.features(view.images, sorted({reader.needs for reader in readers.values()}))
        return {
            name: self.projectors[name](reader(features, view, slots, self.backbone))
            for name, reader in readers.items()
        }
