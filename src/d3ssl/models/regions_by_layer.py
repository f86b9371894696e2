"""The features of a region layer by layer: from every map of a network, beside the backbone's own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from d3ssl.models.backbone import HEAD_STAGES, Backbone, check_size
from d3ssl.models.roi_align import roi_align, roi_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRegions:
    """The features of one region an image."""

    region: Float[Tensor, "B D"]
    """As ``Backbone.pool`` reads them."""
    by_box: dict[str, Float[Tensor, "B _"]]
    """Layer → the mean over RoIAlign's cells in that layer's map."""
    by_mask: dict[str, Float[Tensor, "B _"]]
    """Layer → the mean over the map's cells weighted by the mask's share of each; empty if no masks are given."""


def layer_names(backbone: Backbone, blocks: int = 4) -> tuple[str, ...]:
    """The layers that ``read_layers`` reads, the shallowest first, by the names of timm's modules.

    None for a subclass with a ``pool`` of its own: its regions need not come from maps.

    Args:
        blocks: of a ViT, how many of its blocks: evenly spaced, the last among them.
    """
    if _pools_by_itself(backbone):
        return ()
    layout, names = backbone.layout, [str(stage.get("module", "")) for stage in _feature_info(backbone)]
    if layout.is_grid:
        return tuple(names[number] or f"block{number}" for number in _block_numbers(backbone, blocks))
    if len(set(names)) != len(layout.channels) or "" in names:
        names = [f"map{number}" for number in range(len(layout.channels))]
    return tuple(names)


def read_layers(
    backbone: Backbone,
    images: Float[Tensor, "B C H W"],
    boxes: Float[Tensor, "B 4"],
    masks: Float[Tensor, "B H W"] | None = None,
    *,
    blocks: int = 4,
) -> LayerRegions:
    """Read one region an image from every layer, with one pass through the network.

    Args:
        images: normalised by ``backbone.mean`` and ``std``.
        boxes: xyxy, view px.
        masks: 0..1, the share of each pixel that is the region's.
        blocks: of a ViT (see ``layer_names``).

    Returns:
        ``region`` equals ``backbone.pool(images, boxes)``; with ``region_path`` ``map``, it equals ``by_box`` of the
        last layer.
    """
    names = layer_names(backbone, blocks)
    if not names:
        return LayerRegions(region=backbone.pool(images, list(boxes[:, None])), by_box={}, by_mask={})
    maps = layer_maps(backbone, images, blocks)
    stride = dict(zip(names, layer_strides(backbone, blocks), strict=True))
    by_box = {
        name: pool_box(found, boxes, stride[name], backbone.roi_size) for name, found in zip(names, maps, strict=True)
    }
    by_mask = {}
    if masks is not None:
        by_mask = {name: pool_mask(found, masks, stride[name]) for name, found in zip(names, maps, strict=True)}
    return LayerRegions(region=_own_way(backbone, maps, boxes), by_box=by_box, by_mask=by_mask)


def layer_strides(backbone: Backbone, blocks: int = 4) -> tuple[int, ...]:
    """View px per map px of every layer of ``layer_names``."""
    names = layer_names(backbone, blocks)
    return tuple(backbone.strides[-1:] * len(names)) if backbone.layout.is_grid else tuple(backbone.strides)


def layer_maps(backbone: Backbone, images: Float[Tensor, "B C H W"], blocks: int = 4) -> list[Tensor]:
    """The maps of the layers of ``layer_names``: those of ``Backbone.maps``; of a ViT those of several blocks, each
    through the final norm."""
    if not backbone.layout.is_grid:
        return backbone.maps(images)
    height, width = images.shape[2:]
    check_size(backbone, (height, width))
    stride = backbone.strides[-1]
    images = F.pad(images, (0, -width % stride, 0, -height % stride))
    function: Any = backbone.net.forward_intermediates
    numbers = _block_numbers(backbone, blocks)
    return list(function(images, indices=numbers, norm=True, output_fmt="NCHW", intermediates_only=True))


def pool_box(
    features: Float[Tensor, "B C h w"], boxes: Float[Tensor, "B 4"], stride: int, roi_size: int
) -> Float[Tensor, "B C"]:
    """``roi_align(...).mean()`` over the cells of one box an image, without making the cells."""
    row, column = box_weights(boxes, stride, roi_size, (features.shape[2], features.shape[3]))
    return torch.einsum("bh,bw,bchw->bc", row.to(features.dtype), column.to(features.dtype), features)


def box_weights(
    boxes: Float[Tensor, "N 4"], stride: int, roi_size: int, size: tuple[int, int]
) -> tuple[Float[Tensor, "N h"], Float[Tensor, "N w"]]:
    """Weights of a map's rows and columns in the mean of the cells that ``roi_align`` makes of each box: bilinear
    weights are separable, and so is their mean.

    Args:
        boxes: xyxy, px of the view.
        stride: px of the view per cell of the map.
        size: of the map, (h, w).
    """
    rows, columns = roi_weights(boxes[:, None], 1.0 / stride, roi_size, 2, size)
    return rows[:, 0].mean(dim=1), columns[:, 0].mean(dim=1)


def pool_mask(features: Float[Tensor, "B C h w"], masks: Float[Tensor, "B H W"], stride: int) -> Float[Tensor, "B C"]:
    """Mean over the map's cells, each weighted by how much of its ``stride`` × ``stride`` px the mask covers (as in
    DetCon, arXiv 2103.10957). A mask that covers nothing gives zeros."""
    share = cell_shares(masks, stride, (features.shape[2], features.shape[3])).to(features.dtype)
    total = share.sum(dim=(1, 2)).clamp(min=torch.finfo(features.dtype).tiny)
    return torch.einsum("bhw,bchw->bc", share, features) / total[:, None]


def cell_shares(masks: Float[Tensor, "B H W"], stride: int, size: tuple[int, int]) -> Float[Tensor, "B h w"]:
    """Share of every cell's ``stride`` × ``stride`` px that the mask covers, for a map of ``size``."""
    height, width = size[0] * stride, size[1] * stride
    whole = F.pad(masks, (0, max(width - masks.shape[2], 0), 0, max(height - masks.shape[1], 0)))
    return F.avg_pool2d(whole[:, None, :height, :width], stride)[:, 0]


def _own_way(backbone: Backbone, maps: list[Tensor], boxes: Float[Tensor, "B 4"]) -> Float[Tensor, "B D"]:
    """``Backbone.pool`` from maps that are there already: the map before the head's stages is one of them."""
    head_stages = HEAD_STAGES[backbone.region_path]
    source, stride = maps[-1 - head_stages], backbone.strides[-1 - head_stages]
    if not head_stages:
        return pool_box(source, boxes, stride, backbone.roi_size)
    cells = roi_align(source, boxes[:, None], 1.0 / stride, backbone.roi_size)[:, 0]
    return backbone.tail(cells, backbone.region_path).mean(dim=(2, 3))


def _pools_by_itself(backbone: Backbone) -> bool:
    kind = type(backbone)
    return kind.pool is not Backbone.pool or kind.pool_valid is not Backbone.pool_valid


def _block_numbers(backbone: Backbone, blocks: int) -> list[int]:
    depth = len(_feature_info(backbone))
    count = max(1, min(blocks, depth))
    return sorted({round((number + 1) * depth / count) - 1 for number in range(count)})


def _feature_info(backbone: Backbone) -> list[dict[str, Any]]:
    info: Any = getattr(backbone.net, "feature_info", None) or []
    return [dict(stage) for stage in getattr(info, "info", info)]
