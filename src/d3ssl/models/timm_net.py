"""timm's networks without their classifiers, for images of any size where the family allows it."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from d3ssl.errors import InputError, nearest

_ANY_SIZE: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True},  # ViTs: position embeddings are interpolated
    {"strict_img_size": False},  # Swin
    {},
)
"""Options by which timm's families accept images of any size, tried in order; none changes a parameter."""


def create_timm_net(name: str, in_channels: int, *, pretrained: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    """Make a network with ``num_classes=0``.

    Args:
        name: in timm; also ``hf-hub:ORG/NAME`` and ``local-dir:PATH``, timm's own spellings.
        pretrained: load the weights, which downloads them unless they are in the cache.

    Returns:
        The network, and timm's state dict for it; of pretrained weights with the classifier they came with.

    Raises:
        InputError: the weights are not available.
    """
    if not pretrained:
        net = _create(name, in_channels, num_classes=0)
        return net, net.state_dict()
    try:
        whole = _create(name, in_channels, pretrained=True).state_dict()
        net = _create(name, in_channels, num_classes=0)
        own = net.state_dict().keys()
        if own <= whole.keys():
            net.load_state_dict({key: whole[key] for key in own})
            return net, whole
        net = _create(name, in_channels, pretrained=True, num_classes=0)  # without a classifier its layers differ
        return net, net.state_dict()
    except Exception as error:
        remedy = f"check the network connection, or load a local file with timm:{name}:FILE."
        raise InputError(f"timm's weights for '{name}' are not available ({error})", remedy=remedy) from error


def _create(name: str, in_channels: int, *, pretrained: bool = False, num_classes: int | None = None) -> nn.Module:
    for number, options in enumerate(_ANY_SIZE):
        try:
            return timm.create_model(
                name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **options
            )
        except TypeError as error:  # a family without these options
            if number + 1 == len(_ANY_SIZE) or "unexpected keyword argument" not in str(error):
                raise
    raise AssertionError("unreachable: the last options are none")


def check_name(name: str) -> None:
    """Raise InputError for a name or a tag of weights that timm does not know."""
    architecture, _, tag = name.partition(".")
    if ":" in name or "/" in name or not timm.is_model(architecture):
        raise InputError(f"unknown timm network '{name}'", remedy=nearest(architecture, timm.list_models()))
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")] if tag else []
    if tag and tag not in tags:
        raise InputError(f"'{architecture}' has no weights tagged '{tag}'", remedy=nearest(tag, tags))
