"""What every region operation has in common. A new one is a file beside this one."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots, View


class Operation:
    """A frozen dataclass: its fields are its options. It draws on the CPU, then applies on any device."""

    name: ClassVar[str]
    """Names the draw (see ``seeds.Draws``)."""

    @property
    def needs_masks(self) -> bool:
        """Whether it reads the label maps of its views."""
        return False

    @property
    def patch_size(self) -> int | None:
        """Side of the patches that it hides, px: that of the network; None: it hides none."""
        return None

    def sample(self, batch: CanvasBatch, slots: int, generator: torch.Generator) -> Any:
        """Everything random, for each image of the batch and each of its ``slots`` regions: tensors, or None."""
        raise NotImplementedError

    def apply(self, view: View, slots: Slots, drawn: Any, whole: Float[Tensor, "B C H W"]) -> View:
        """The view after the operation.

        Args:
            view: after the operations before this one.
            drawn: what ``sample`` gave, on the view's device.
            whole: the view's pixels before any operation, of which other images are mixed in.
        """
        raise NotImplementedError
