"""What if a network's convolutions padded differently? Padding with zeros shows a network where the border is."""

from __future__ import annotations

import copy

from torch import nn

from d3ssl.diagnose.config import PaddingMode
from d3ssl.errors import InputError
from d3ssl.models import Backbone


def with_padding(backbone: Backbone, mode: PaddingMode) -> Backbone:
    """A deep copy whose convolutions pad their input by ``mode`` (see ``torch.nn.Conv2d``); weights are the same.

    Pooling layers keep their own padding, which for maxima never wins against a pixel.

    Raises:
        InputError: the network has no convolutions that pad, or some that pad in a way of their own (TensorFlow's
            ``SAME``, standardised weights).
    """
    changed = copy.deepcopy(backbone)
    padding = [module for module in changed.modules() if isinstance(module, nn.Conv2d) and _pads(module)]
    own = sorted({type(module).__name__ for module in padding if type(module).forward is not nn.Conv2d.forward})
    if own or not padding:
        what = f"pads in a way of its own ({', '.join(own)})" if own else "has no convolutions that pad"
        remedy = "leave --padding out for this backbone."
        raise InputError(f"'{backbone.timm_name}' {what}, so its padding cannot be changed", remedy=remedy)
    for module in padding:
        module.padding_mode = mode
    return changed


def _pads(module: nn.Conv2d) -> bool:
    if type(module).__name__.startswith("Conv2dSame"):  # pads in its forward pass, outside of what torch knows
        return max(module.kernel_size) > 1
    return any(amount > 0 for amount in module._reversed_padding_repeated_twice)
