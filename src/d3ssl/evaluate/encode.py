"""Images through a backbone, on its device: one row for an image, a box or a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from d3ssl.models import Backbone
from d3ssl.models.regions_by_layer import box_weights
from d3ssl.views.colour import normalise


def to_images(
    backbone: Backbone, canvases: UInt8[np.ndarray, "B S S C"] | Sequence[UInt8[np.ndarray, "S S C"]]
) -> Float32[Tensor, "B C S S"]:
    """Canvases as the backbone wants them, on its device."""
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    images = torch.from_numpy(np.asarray(canvases)).to(device).permute(0, 3, 1, 2).float().div_(255)
    return normalise(images, backbone.mean, backbone.std)


def encode_images(
    backbone: Backbone, canvases: UInt8[np.ndarray, "B S S C"], level: int = -1
) -> Float32[Tensor, "B D"]:
    """The mean of a map over each image, on the CPU. Call it inside ``frozen``.

    Args:
        level: which of the maps; −1 the last.
    """
    return backbone.maps(to_images(backbone, canvases))[level].float().mean(dim=(2, 3)).cpu()


def encode_regions(
    backbone: Backbone,
    canvases: UInt8[np.ndarray, "B S S C"],
    boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    level: int | None = None,
) -> Float32[Tensor, "N D"]:
    """The features of some boxes of some images, image by image, on the CPU. Call it inside ``frozen``.

    Args:
        boxes: for every image (K, 4) xyxy, px of the canvas.
        level: None: as the backbone reads regions (``Backbone.pool``). Else RoIAlign on one of the maps, and the mean
            of its cells; −1 is the last map.
    """
    images = to_images(backbone, canvases)
    if level is None:
        return backbone.pool(images, [torch.from_numpy(own).to(images.device) for own in boxes]).float().cpu()
    maps, stride = backbone.maps(images)[level].float(), backbone.strides[level]
    rows = []
    for own, found in zip(boxes, maps, strict=True):
        size = (found.shape[1], found.shape[2])
        down, across = box_weights(torch.from_numpy(own).to(found), stride, backbone.roi_size, size)
        rows.append(torch.einsum("kh,kw,chw->kc", down, across, found))
    return torch.cat(rows).cpu()


def encode_masks(
    backbone: Backbone,
    canvases: UInt8[np.ndarray, "B S S C"],
    masks: Sequence[Bool[np.ndarray, "_ _ _"]],
    level: int = -1,
) -> Float32[Tensor, "N D"]:
    """The mean of a map over some masks of some images, image by image, on the CPU. Call it inside ``frozen``.

    Args:
        masks: for every image (K, H, W), of any size; stretched to the map, so that a cell of the map counts by the
            share of it that the mask covers.
        level: which of the maps; −1 the last.
    """
    maps = backbone.maps(to_images(backbone, canvases))[level].float()
    rows = []
    for own, found in zip(masks, maps, strict=True):
        planes = torch.from_numpy(own).to(found)[:, None]
        share = torch.nn.functional.interpolate(planes, found.shape[1:], mode="area")[:, 0]
        share = share / share.sum(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        rows.append(torch.einsum("khw,chw->kc", share, found))
    return torch.cat(rows).cpu()
