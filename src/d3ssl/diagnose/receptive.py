"""Receptive leakage: how much of what moves a region's feature lies outside the region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from d3ssl.console import Ticker
from d3ssl.diagnose.features import REGION, Way, by_way, device_of, first_rows, prepare
from d3ssl.diagnose.sets import Probe
from d3ssl.errors import InputError
from d3ssl.models import Backbone
from d3ssl.models.regions_by_layer import layer_names, read_layers

_AT_A_TIME = 8
"""Images whose activations are kept for their gradients: of a ResNet-50 at 224 px about 0.1 GB each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receptive:
    """Of the objects of one probe set."""

    share: dict[Way, Float64[np.ndarray, "O"]]
    maps: Float32[np.ndarray, "n S S"]
    """|∂‖φ‖² / ∂pixel|, summed over channels, of the first objects, as the backbone itself reads regions."""


def receptive_leakage(
    backbone: Backbone,
    probe: Probe,
    centres: dict[Way, Tensor],
    ticker: Ticker,
    *,
    margin: float = 0.0,
    blocks: int | None = None,
    keep: int = 0,
) -> Receptive:
    """Share of |∂‖φ − μ‖² / ∂pixel|, summed over channels, that falls outside the region, for each object under the
    first condition of a probe. Call it inside ``probed``.

    The pixels are those of the image before normalisation, so that all channels count in the same unit. A feature that
    does not depend on the pixels has the share 0.

    Args:
        centres: the mean feature μ of the probe set, (D,), by way; what is not in it is not measured.
        margin: width of the border around the box that counts as inside, px. For masks: not used; outside is where the
            mask is zero.
        keep: objects whose gradients are kept.
    """
    objects, conditions = probe.boxes.shape[:2]
    rows = first_rows(objects, conditions)
    images, boxes = probe.images.reshape(-1, *probe.images.shape[2:]), probe.boxes.reshape(-1, 4)
    share: dict[Way, list[np.ndarray]] = {way: [] for way in centres}
    maps: list[np.ndarray] = []
    for start in range(0, objects, _AT_A_TIME):
        part = rows[start : start + _AT_A_TIME]
        masks = probe.masks(part)
        inside = inside_boxes(boxes[part], images.shape[1], margin)
        for way, gradient in _gradients(backbone, images[part], boxes[part], masks, centres, blocks).items():
            within = masks > 0 if way.pooling == "mask" and masks is not None else inside
            share[way].append(outside_share(gradient, within))
            if way == REGION and start < keep:
                maps.append(gradient[: keep - start])
        ticker.advance(len(part))
    size = images.shape[1]
    kept = np.concatenate(maps) if maps else np.zeros((0, size, size), dtype=np.float32)
    return Receptive(share={way: np.concatenate(own) for way, own in share.items()}, maps=kept)


def inside_boxes(boxes: Float32[np.ndarray, "B 4"], size: int, margin: float) -> np.ndarray:
    """Which pixels (B, S, S) lie in a box widened by ``margin`` px: those whose middle does."""
    middle = np.arange(size) + 0.5
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    columns, rows = ((middle >= low[:, axis, None]) & (middle <= high[:, axis, None]) for axis in (0, 1))
    return rows[:, :, None] & columns[:, None, :]


def outside_share(gradient: Float32[np.ndarray, "B S S"], inside: np.ndarray) -> Float64[np.ndarray, "B"]:
    """Σ outside ÷ Σ everywhere; 0 where there is nothing."""
    values = gradient.astype(np.float64)
    total = values.sum(axis=(1, 2))
    return (values * ~inside).sum(axis=(1, 2)) / np.where(total > 0, total, 1.0)


def _gradients(
    backbone: Backbone,
    images: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | None,
    centres: dict[Way, Tensor],
    blocks: int | None,
) -> dict[Way, Float32[np.ndarray, "B S S"]]:
    shown, places, covered = prepare(backbone, images, boxes, masks)
    found: dict[Way, np.ndarray] = {}
    with torch.enable_grad():
        shown = shown.detach().requires_grad_()
        if blocks is None or not layer_names(backbone):
            features = {REGION: backbone.pool(shown, list(places[:, None]))}
        else:
            features = by_way(read_layers(backbone, shown, places, covered, blocks=blocks))
        features = {way: features[way] for way in centres}
        for way, own in features.items():
            if not own.requires_grad:
                remedy = "take torch.no_grad() and detach() out of the module and of maps=; or set gradient_objects=0."
                problem = "the backbone's features carry no gradient, so what moves them is not known"
                raise InputError(problem, remedy=remedy)
            power = (own.float() - centres[way].to(own.device)).square().sum()
            (gradient,) = torch.autograd.grad(power, shown, retain_graph=True, allow_unused=True)
            found[way] = _magnitude(torch.zeros_like(shown) if gradient is None else gradient, backbone)
    return found


def _magnitude(gradient: Tensor, backbone: Backbone) -> Float32[np.ndarray, "B S S"]:
    """Of the image in 0..1: the normalised one is (image − mean) / std."""
    std = torch.tensor(backbone.std, device=device_of(backbone)).clamp(min=1e-12)
    return (gradient.detach().float().abs() / std[:, None, None]).sum(dim=1).cpu().numpy()
