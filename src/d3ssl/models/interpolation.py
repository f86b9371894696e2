"""Between two states of one network: how much of a training is kept is one dial, turned after it."""

from __future__ import annotations

import torch
from torch import Tensor

from d3ssl.errors import InputError, first_names


def interpolate(start_state: dict[str, Tensor], end_state: dict[str, Tensor], strength: float) -> dict[str, Tensor]:
    """Weights between the start and the end of a training (WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903)::

        w = start + strength·(end − start)

    computed in float64 and rounded once to the start's dtype. Strength 0 gives the start's bits and 1 the end's.
    Integer buffers (counts of batches, indices) are the start's.

    Args:
        start_state, end_state: state dicts of the same names and shapes.
        strength: 0 to 1.

    Returns:
        New tensors, in the start's order.

    Raises:
        InputError: a strength outside of 0 to 1, or states of two networks.
    """
    if not 0.0 <= strength <= 1.0:
        raise InputError(f"the strength {strength} is not between 0 and 1", remedy="give 0.5, for example.")
    differing = sorted(
        {*(start_state.keys() ^ end_state.keys())}
        | {key for key in start_state.keys() & end_state.keys() if start_state[key].shape != end_state[key].shape}
    )
    if differing:
        problem = f"the two states are not of one network: they differ in {first_names(differing)}"
        raise InputError(problem, remedy="give the state dicts of the same backbone before and after training.")
    return {key: _between(value, end_state[key], strength) for key, value in start_state.items()}


def _between(start: Tensor, end: Tensor, strength: float) -> Tensor:
    if strength == 0.0 or not start.is_floating_point():
        return start.detach().clone()
    if strength == 1.0:
        return end.detach().to(start.dtype, copy=True)
    one, other = start.detach().double(), end.detach().to(start.device, torch.float64)
    return (one + strength * (other - one)).to(start.dtype)
