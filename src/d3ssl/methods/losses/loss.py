"""What every loss of pairs of rows has in common."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d3ssl.contracts import Rows


class Loss:
    """ℓ(z_s, z_t): the loss of each row, not reduced. A frozen dataclass: its fields are its options."""

    contrasts: ClassVar[bool] = False
    """Whether rows are compared with those of other images: the teacher's rows then come from all processes."""

    def __call__(self, student: Float[Tensor, "N D"], teacher: Float[Tensor, "M D"], rows: Rows) -> Float[Tensor, "N"]:
        """One loss per row, in float32 also under autocast (float64 for float64 rows).

        Args:
            student: what the student (and its predictor) says of each row of this process; carries the gradient.
            teacher: what the teacher says of the same rows, from ``rows.start`` on; never gets a gradient. M = N, or
                the rows of all processes for a loss that contrasts.
            rows: where the teacher's rows come from, and what each counts. A row's own weight is applied afterwards.
        """
        raise NotImplementedError

    def remember(self, size: int) -> Memory | None:
        """What the loss remembers from step to step, for rows of this size; None: nothing."""
        return None

    def check_batch(self, images: int) -> None:
        """Refuse a step of this many images, each as often as the teacher sees it.

        Raises:
            InputError: the loss cannot be computed on so many.
        """


class Memory(nn.Module):
    """A loss with a memory: queues and centres are buffers, so they are part of every checkpoint."""

    def forward(
        self, student: Float[Tensor, "N D"], teacher: Float[Tensor, "N D"], rows: Rows, progress: float
    ) -> Float[Tensor, "N"]:
        """``Loss.__call__`` with what is remembered.

        Args:
            progress: share of the training that is done, 0..1.
        """
        raise NotImplementedError

    def carry(self, teacher: Float[Tensor, "N D"], images: int) -> Tensor:
        """What this part of a step adds to the memory.

        Args:
            teacher: its rows of this process, image by image, of all views that it sees.
            images: how many images they are of.
        """
        raise NotImplementedError

    def update(self, carries: list[Tensor]) -> None:
        """Remember a step: what ``carry`` gave for each of its parts. Every process comes to the same memory."""
        raise NotImplementedError


def at_least_float32(rows: Tensor) -> Tensor:
    """Half-precision rows as float32; float32 and float64 as they are."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
