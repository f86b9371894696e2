"""What every reader has in common: feature maps and a view's regions in, a fixed number of rows out."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from d3ssl.contracts import Slots, View
from d3ssl.models.backbone import Backbone, Features, Level

RowKind = Literal["region", "image", "cell"]
"""Whether a reader gives a row per slot of every image (B·K, image by image), one per image (B), or one per cell of the
map (B·h·w)."""
ROW_KINDS: tuple[RowKind, ...] = get_args(RowKind)


class ReaderConfig:
    """A reader as data: a frozen dataclass. A new one is a file beside this one."""

    rows: ClassVar[RowKind]
    needs_masks: ClassVar[bool] = False
    """Whether it reads the label maps of the views."""

    def build(self, backbone: Backbone) -> Reader:
        """The reader for a backbone.

        Raises:
            InputError: the backbone does not offer what the reader reads.
        """
        raise NotImplementedError


class Reader(nn.Module):
    """Reads rows from the maps of a whole view. It may have parameters of its own, as a feature pyramid has."""

    needs: Level
    """How deep the backbone has to be run."""
    out_features: int
    stride: int = 0
    """Of the map that regions are read from: view px per map px; 0: there is not one such map."""

    def forward(self, features: Features, view: View, slots: Slots, backbone: Backbone) -> Float[Tensor, "N D"]:
        raise NotImplementedError

    def weigh(self, view: View) -> Float[Tensor, "N"] | None:
        """What each row of a view that the student sees counts in the mean of the losses; None: 1 each."""
        return None

    def check_view(self, size: int) -> None:
        """Refuse views of this side, px.

        Raises:
            InputError: the reader's rows cannot be read from them.
        """
