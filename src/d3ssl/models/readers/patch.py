"""The patches of a ViT, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from d3ssl.contracts import Slots, View
from d3ssl.errors import InputError
from d3ssl.models.backbone import Backbone, Features
from d3ssl.models.modes import evaluating
from d3ssl.models.readers.reader import Reader, ReaderConfig, RowKind
from d3ssl.models.tokens import run_tokens
from d3ssl.seeds import torch_generator


@dataclass(frozen=True, kw_only=True)
class Patch(ReaderConfig):
    """The patches behind the final norm (ViTs).

    In a view with hidden patches those count that the student has to tell: the ones behind the mask token (iBOT, arXiv
    2111.07832); where another image's patches are shown in their place, the image's own. Every image counts the same.
    """

    rows: ClassVar[RowKind] = "cell"

    def build(self, backbone: Backbone) -> PatchReader:
        return PatchReader(backbone)


class TokensReader(Reader):
    """Reads the tokens of a plain ViT, whose views divide into patches."""

    needs = "tokens"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        _require_tokens(backbone)
        self.out_features, self.stride = backbone.channels[-1], backbone.strides[-1]

    def check_view(self, size: int) -> None:
        if size % self.stride:
            problem = f"a view of {size} px does not divide into patches of {self.stride} px"
            remedy = f"set --views.size (or the size of local crops) to a multiple of {self.stride}."
            raise InputError(problem, remedy=remedy)


class PatchReader(TokensReader):
    """See ``Patch``."""

    def forward(self, features: Features, view: View, slots: Slots, backbone: Backbone) -> Float[Tensor, "N D"]:
        return features["tokens"][0].permute(0, 2, 3, 1).flatten(0, 2)

    def weigh(self, view: View) -> Float[Tensor, "N"] | None:
        if view.hidden is None:
            return None
        told = (view.hidden if view.partner is None else ~view.hidden).to(view.images.dtype)
        mean = told.mean((1, 2), keepdim=True).clamp(min=1 / told[0].numel())
        return (told / mean).flatten()


def _require_tokens(backbone: Backbone) -> None:
    """Refuse a network that is no plain ViT with a [CLS] token, whose tokens ``run_tokens`` gives.

    Raises:
        InputError: with networks that are.
    """
    net, stride = backbone.net, backbone.strides[-1]
    known = isinstance(net, VisionTransformer) and backbone.layout.is_grid and net.cls_token is not None
    if not (known and _gives_the_maps(backbone, stride)):
        problem = f"'{backbone.timm_name}' is no plain ViT with a [CLS] token, so its patches cannot be hidden"
        remedy = "choose one of timm's, such as vit_small_patch16_224, or another --method.host."
        raise InputError(problem, remedy=remedy)


@torch.no_grad()
def _gives_the_maps(backbone: Backbone, stride: int) -> bool:
    """Whether the tokens are those of the network's own pass, on a tiny image."""
    size = backbone.layout.fixed_size or (2 * stride, 3 * stride)
    images = torch.randn(1, backbone.in_channels, *size, generator=torch_generator("probe"))
    images = images.to(next(backbone.parameters()).device)
    try:
        with evaluating(backbone):
            grid, _ = run_tokens(backbone.net, images, stride)
            return torch.allclose(grid, backbone.maps(images)[-1], rtol=1e-4, atol=1e-5)
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return False
