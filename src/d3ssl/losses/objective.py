"""What every pairwise loss of regions has in common."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import RowInfo


@runtime_checkable
class RegionObjective(Protocol):
    """ℓ(z_s, z_t): the loss of each region, not reduced.

    Args:
        student: what the student (and its predictor) says of each region of this process; carries the gradient.
        teacher: what the teacher says of the same regions; never gets a gradient.
        rows: which image and place each row comes from.

    Returns:
        One loss a row, in float32 also under autocast (float64 for float64 rows). N may be 0 in a process: the result
        is then empty, and every process still has to call the objective, since it may talk to the others.
    """

    def __call__(
        self, student: Float[Tensor, "N D"], teacher: Float[Tensor, "N D"], rows: RowInfo
    ) -> Float[Tensor, "N"]: ...


def at_least_float32(rows: Tensor) -> Tensor:
    """Half-precision rows as float32; float32 and float64 as they are."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
