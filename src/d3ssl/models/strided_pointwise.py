"""A strided 1×1 convolution that does not meet a fault of oneDNN."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class _StridedPointwise(nn.Conv2d):
    """A 1×1 convolution with a stride, computed as a plain one on the pixels that the stride meets: the same values."""

    def forward(self, input: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias)


def make_safe(net: nn.Module) -> None:
    """Work around oneDNN 3.12 (torch 2.14): on CPUs with AVX2 and without AVX-512, the weight gradient of a strided
    1×1 convolution of 3 or 4 channels in channels_last writes beyond its memory (RepVGG's first layer). Names in the
    state dict stay as they are."""
    for module in net.modules():
        if type(module) is not nn.Conv2d or module.in_channels >= 8 or module.groups > 1:
            continue
        if module.kernel_size == (1, 1) and max(module.stride) > 1 and module.padding == (0, 0):
            module.__class__ = _StridedPointwise
