"""Backbone → readers → projectors: what student and teacher have in common."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d3ssl.contracts import Slots, View
from d3ssl.methods.plan import Plan
from d3ssl.models.backbone import Backbone, Level
from d3ssl.models.readers import Reader
from d3ssl.models.tokens import PatchChange

_AS_READ = ".as_read"


def as_read(head: str) -> str:
    """The name of a head's rows before its projector."""
    return head + _AS_READ


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
                if o.projects_as is None
            }
        )
        self.projector_of = {name: o.projects_as or name for name, o in own.items()}
        hides = any(plan.views[view].hides_patches for view in plan.used_views)
        self.mask_token = nn.Parameter(torch.zeros(backbone.num_features)) if hides else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def reader(self, name: str) -> Reader:
        """That of an objective with heads of its own."""
        return self.readers[name]  # type: ignore[return-value]

    def forward(self, view: View, slots: Slots, heads: list[str]) -> dict[str, Float[Tensor, "N D"]]:
        """The rows of one view for the named heads. The backbone runs once, no deeper than their readers ask.

        Args:
            heads: names of objectives; with ``as_read``, the rows before the projector.
        """
        names = dict.fromkeys(head.removesuffix(_AS_READ) for head in heads)
        needs: set[Level] = {self.reader(name).needs for name in names}
        features = self.backbone.features(view.images, sorted(needs), self._change(view))
        read = {name: self.reader(name)(features, view, slots, self.backbone) for name in names}
        found = {name: self.projectors[self.projector_of[name]](rows) for name, rows in read.items() if name in heads}
        return found | {as_read(name): rows for name, rows in read.items() if as_read(name) in heads}

    def _change(self, view: View) -> PatchChange | None:
        """What the network sees in place of a view's hidden patches: the mask token (iBOT), or another image's patches,
        through which no gradient goes (D³SSL's public code)."""
        hidden, partner, token = view.hidden, view.partner, self.mask_token
        if hidden is None:
            return None

        def change(patches: Float[Tensor, "B h w D"]) -> Float[Tensor, "B h w D"]:
            assert token is not None  # some view hides patches
            shown = token.to(patches.dtype) if partner is None else patches[partner].detach()
            return torch.where(hidden[..., None], shown, patches)

        return change
