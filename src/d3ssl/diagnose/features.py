"""Probe images through a backbone: the features of one object an image, by every way of reading it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from d3ssl.console import Ticker
from d3ssl.diagnose.sets import Probe
from d3ssl.evaluate.encode import encode_regions
from d3ssl.evaluate.features import frozen
from d3ssl.models import Backbone
from d3ssl.models.regions_by_layer import LayerRegions, layer_names, read_layers
from d3ssl.views.colour import normalise


class Way(NamedTuple):
    """How a region is read."""

    pooling: str
    """``region``: as the backbone does it itself; ``box``: RoIAlign on a layer's map, mean; ``mask``: mask pooling."""
    layer: str
    """Empty for ``region``."""


REGION = Way("region", "")


@contextmanager
def probed(backbone: Backbone, device: torch.device) -> Iterator[None]:
    """As ``frozen``, but gradients can be asked for inside: no tensor that is made here is an inference tensor."""
    with frozen(backbone, device), torch.inference_mode(False), torch.no_grad():
        yield


def read_probe(
    backbone: Backbone, probe: Probe, batch_size: int, ticker: Ticker, blocks: int | None
) -> dict[Way, Float32[Tensor, "O C _"]]:
    """The features of all objects under all conditions, on the CPU. Call it inside ``probed``.

    Args:
        blocks: read every layer too, of a ViT so many blocks; None: ``REGION`` only.
    """
    objects, conditions = probe.boxes.shape[:2]
    images, boxes = probe.images.reshape(-1, *probe.images.shape[2:]), probe.boxes.reshape(-1, 4)
    rows: dict[Way, list[Tensor]] = {}
    for start in range(0, len(images), batch_size):
        part = np.arange(start, min(start + batch_size, len(images)))
        if blocks is None or not layer_names(backbone):
            found = {REGION: encode_regions(backbone, images[part], list(boxes[part, None]))}
        else:
            masks = probe.masks(part)
            found = by_way(read_layers(backbone, *prepare(backbone, images[part], boxes[part], masks), blocks=blocks))
        for way, own in found.items():
            rows.setdefault(way, []).append(own.float().cpu())
        ticker.advance(len(part))
    return {way: torch.cat(own).unflatten(0, (objects, conditions)) for way, own in rows.items()}


def prepare(
    backbone: Backbone,
    images: UInt8[np.ndarray, "B S S ch"],
    boxes: Float32[np.ndarray, "B 4"],
    masks: Float32[np.ndarray, "B S S"] | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Normalised images (B, ch, S, S), boxes and masks on the backbone's device."""
    device = device_of(backbone)
    shown = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div_(255)
    shown = normalise(shown, backbone.mean, backbone.std)
    return shown, torch.from_numpy(boxes).to(device), None if masks is None else torch.from_numpy(masks).to(device)


def by_way(found: LayerRegions) -> dict[Way, Tensor]:
    """All features by the way they were read."""
    return (
        {REGION: found.region}
        | {Way("box", layer): own for layer, own in found.by_box.items()}
        | {Way("mask", layer): own for layer, own in found.by_mask.items()}
    )


def device_of(backbone: Backbone) -> torch.device:
    return next((p.device for p in backbone.parameters()), torch.device("cpu"))


def first_rows(objects: int, conditions: int) -> Int64[np.ndarray, "O"]:
    """The images of the first condition among those of ``objects`` × ``conditions``."""
    return np.arange(objects, dtype=np.int64) * conditions
