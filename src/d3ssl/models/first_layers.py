"""The first layers of a network, which post-training may leave as they are."""

from __future__ import annotations

from typing import Any, cast

from timm.models import group_parameters

from d3ssl.models.backbone import Backbone


def first_parameters(backbone: Backbone, stride: int) -> list[str]:
    """Names (in ``backbone.net``) of the parameters of all layers up to the map of a stride, px.

    Where the maps are not between one layer and the next (Swin), the first layers are counted as timm counts them, as
    large a share of all as the maps up to that stride are. None, if no map has so small a stride (a ViT's), or if the
    network does not say what its layers are.
    """
    layout, names = backbone.layout, [name for name, _ in backbone.net.named_parameters()]
    count = sum(own <= stride for own in backbone.strides)
    if count and layout.chain:
        first = layout.chain[: layout.chain.index(layout.ends[count - 1]) + 1]
        return [name for name in names if name.startswith(tuple(f"{own}." for own in first))]
    if count and hasattr(backbone.net, "group_matcher"):
        net: Any = backbone.net
        layers = cast(dict[str, int], group_parameters(net, net.group_matcher(coarse=False), reverse=True))
        limit = (max(layers.values()) + 1) * count / len(backbone.strides)
        return [name for name in names if layers[name] < limit]
    return []
