"""The [CLS] token of a ViT: one row per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import Slots, View
from d3ssl.models.backbone import Backbone, Features
from d3ssl.models.readers.patch import require_tokens, require_whole_patches
from d3ssl.models.readers.reader import Reader, ReaderConfig, RowKind


@dataclass(frozen=True, kw_only=True)
class Token(ReaderConfig):
    """The [CLS] token behind the final norm (ViTs)."""

    rows: ClassVar[RowKind] = "image"

    def build(self, backbone: Backbone) -> TokenReader:
        return TokenReader(backbone)


class TokenReader(Reader):
    """See ``Token``."""

    needs = "tokens"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        require_tokens(backbone)
        self.out_features, self.stride = backbone.channels[-1], backbone.strides[-1]

    def forward(self, features: Features, view: View, slots: Slots, backbone: Backbone) -> Float[Tensor, "N D"]:
        return features["tokens"][1]

    def check_view(self, size: int) -> None:
        require_whole_patches(size, self.stride)
