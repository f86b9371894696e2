"""The [CLS] token of a ViT: one row per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import Slots, View
from d3ssl.models.backbone import Backbone, Features
from d3ssl.models.readers.patch import TokensReader
from d3ssl.models.readers.reader import ReaderConfig, RowKind


@dataclass(frozen=True, kw_only=True)
class Token(ReaderConfig):
    """The [CLS] token behind the final norm (ViTs)."""

    rows: ClassVar[RowKind] = "image"

    def build(self, backbone: Backbone) -> TokenReader:
        return TokenReader(backbone)


class TokenReader(TokensReader):
    """See ``Token``."""

    def forward(self, features: Features, view: View, slots: Slots, backbone: Backbone) -> Float[Tensor, "N D"]:
        return features["tokens"][1]
