"""d3ssl's command line with the table's networks in a second form, which blurs before every stride.

    python -m benchmarks.scenes_table.blurred diagnose --backbone timm:blurred_test_resnet:random:0 ...

A strided network changes what it says of an object when the object moves by a pixel, whatever it was trained for; with
a low-pass filter before its strides it does so less (R. Zhang, Making Convolutional Networks Shift-Invariant Again,
arXiv 1904.11486). timm blurs at the pooling and in the blocks (its ``resnetblur`` networks); here the stem is blurred
too: its first convolution is computed at every pixel. The filters are fixed: weights and their names are those of the
plain network.
"""

from __future__ import annotations

import sys
from typing import Any

import timm
from timm.layers.blur_pool import BlurPool2d
from timm.models import register_model
from timm.models.resnet import ResNet
from torch import nn

from d3ssl.cli.main import main


def _blur(name: str, **options: Any) -> ResNet:
    """A ResNet of timm with a blur before every stride, and the same maps' sizes."""
    net = timm.create_model(name, aa_layer=BlurPool2d, **options)
    assert isinstance(net, ResNet)
    first = net.conv1[0] if isinstance(net.conv1, nn.Sequential) else net.conv1
    assert isinstance(first, nn.Conv2d) and first.stride == (2, 2)
    first.stride = (1, 1)
    blurred = nn.Sequential(nn.ReLU(), BlurPool2d(first.out_channels))
    if isinstance(net.conv1, nn.Sequential):
        net.conv1[2] = blurred
    else:
        net.act1 = blurred
    return net


@register_model
def blurred_test_resnet(pretrained: bool = False, **options: Any) -> ResNet:
    """The network of the budgets ``smoke``, ``cpu`` and ``study``."""
    return _blur("test_resnet", pretrained=pretrained, **options)


@register_model
def blurred_resnet50(pretrained: bool = False, **options: Any) -> ResNet:
    """The network of the budget ``gpu``."""
    return _blur("resnet50", pretrained=pretrained, **options)


if __name__ == "__main__":
    sys.exit(main())
