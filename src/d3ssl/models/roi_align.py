"""RoIAlign: the features of a region, read from a map at a fixed number of places."""

from __future__ import annotations

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor


def roi_align(
    features: Float[Tensor, "B C h w"], boxes: Float[Tensor, "B K 4"], scale: float, out: int, sampling: int = 2
) -> Float[Tensor, "B K C out out"]:
    """RoIAlign of K boxes per image (He et al., arXiv 1703.06870), with half-pixel alignment.

    Each box is divided into ``out`` × ``out`` cells; a cell is the mean of ``sampling`` × ``sampling`` bilinear
    readings. Equal to ``torchvision.ops.roi_align(..., sampling_ratio=sampling, aligned=True)`` to rounding; the
    gradient flows to the features only.

    On CPUs the readings are two batched matrix products, since bilinear weights are separable, and so are their
    means over a cell: ``cell[i, j] = Σ_y Σ_x rows[i, y] · columns[j, x] · features[y, x]``. On CUDA, torchvision's
    kernel.

    Args:
        features: the map, best in channels_last memory.
        boxes: xyxy, view px. A box of zero size reads one point; what lies outside the map counts as zero.
        scale: map px per view px, 1 / stride.
        out: cells a side.
        sampling: readings a cell and axis.

    Returns:
        Cells, of the features' dtype, laid out in memory such that flattening B and K gives channels_last.
    """
    if features.is_cuda:
        return _roi_align_cuda(features, boxes, scale, out, sampling)
    batch, channels, height, width = features.shape
    count = boxes.shape[1]
    rows, columns = roi_weights(boxes, scale, out, sampling, (height, width))
    rows, columns = rows.to(features.dtype), columns.to(features.dtype)
    lines = features.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    lines = torch.bmm(rows.reshape(batch, count * out, height), lines)
    lines = lines.reshape(batch * count * out, width, channels)
    columns = columns[:, :, None].expand(-1, -1, out, -1, -1).reshape(batch * count * out, out, width)
    cells = torch.bmm(columns, lines)
    return cells.reshape(batch, count, out, out, channels).permute(0, 1, 4, 2, 3)


@torch.no_grad()
def roi_weights(
    boxes: Float[Tensor, "B K 4"], scale: float, out: int, sampling: int, size: tuple[int, int]
) -> tuple[Float[Tensor, "B K out h"], Float[Tensor, "B K out w"]]:
    """How much each row and each column of a map of ``size`` (h, w) counts in each row and column of cells."""
    boxes = (
        boxes.to(torch.promote_types(boxes.dtype, torch.float32)) * scale - 0.5
    )  # aligned: the centre of map pixel 0 is at 0.5 px
    columns = _axis_weights(boxes[..., 0], boxes[..., 2], out, sampling, size[1])
    rows = _axis_weights(boxes[..., 1], boxes[..., 3], out, sampling, size[0])
    return rows, columns


def _axis_weights(
    start: Float[Tensor, "B K"], end: Float[Tensor, "B K"], out: int, sampling: int, length: int
) -> Float[Tensor, "B K out length"]:
    """Linear interpolation at out · sampling places between start and end, averaged by ``sampling``."""
    steps = (torch.arange(out * sampling, device=start.device, dtype=start.dtype) + 0.5) / (out * sampling)
    places = start[..., None] + (end - start)[..., None] * steps
    outside = (places < -1) | (places > length)  # torchvision's rule: up to one pixel beyond, the border is read
    places = places.clamp(0, length - 1)
    pixels = torch.arange(length, device=start.device, dtype=start.dtype)
    weights = (1 - (places[..., None] - pixels).abs()).clamp(min=0)
    weights = weights.masked_fill(outside[..., None], 0.0)
    return weights.unflatten(-2, (out, sampling)).mean(-2)


def _roi_align_cuda(
    features: Float[Tensor, "B C h w"], boxes: Float[Tensor, "B K 4"], scale: float, out: int, sampling: int
) -> Float[Tensor, "B K C out out"]:
    batch, count = boxes.shape[:2]
    image = torch.arange(batch, device=boxes.device, dtype=features.dtype).repeat_interleave(count)
    rois = torch.cat([image[:, None], boxes.reshape(-1, 4).to(features.dtype)], dim=1)
    cells = torchvision.ops.roi_align(features, rois, out, scale, sampling, aligned=True)
    cells = cells.contiguous(memory_format=torch.channels_last)
    return cells.permute(0, 2, 3, 1).unflatten(0, (batch, count)).permute(0, 1, 4, 2, 3)
