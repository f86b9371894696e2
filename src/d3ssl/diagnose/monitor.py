"""A small diagnosis while a backbone is trained: cheap enough to be taken every so many steps."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float32
from torch import Tensor

from d3ssl.data.image_set import ImageSet
from d3ssl.diagnose.config import DiagnoseConfig
from d3ssl.diagnose.cutouts import open_probe_images, procedural_images
from d3ssl.diagnose.probes import Probe, ProbeSet, build_probes
from d3ssl.diagnose.sensitivity import sensitivity
from d3ssl.evaluate.encode import encode_regions
from d3ssl.evaluate.features import frozen
from d3ssl.models import Backbone


class Monitor:
    """Context and position sensitivity of a backbone on one small probe set, always the same one.

    For curves: with few objects and no interval, a figure of its own is no result; ``diagnose`` gives those.

    Args:
        size: side of the probe images, px: the views' side.
        data: COCO data with masks; None: procedural scenes.
        objects: in the probe set; each is seen in 5 contexts and at 9 places.
        channels: of the images.
        seed: decides the probes.

    Raises:
        InputError: unusable data, no masks, too few objects.
    """

    def __init__(
        self, size: int, data: str | Path | None = None, *, objects: int = 16, channels: int = 3, seed: int = 0
    ) -> None:
        self.config = DiagnoseConfig(
            size=size, objects=objects, seeds=1, seed=seed, neighbour_classes=0, other_sides=()
        )
        self.channels = channels
        self.images = None if data is None else open_probe_images(data)
        if data is not None:  # what is wrong with it is said now
            _ = self.probes

    @cached_property
    def probes(self) -> ProbeSet:
        """The probe set. Of procedural scenes it is made when it is first needed, as that takes seconds."""
        if self.images is not None:
            return self._build(self.images)
        with procedural_images(self.config.seed) as images:
            return self._build(images)

    def _build(self, images: ImageSet) -> ProbeSet:
        return build_probes(images, self.config, 0, channels=self.channels)

    def __call__(self, backbone: Backbone) -> dict[str, float]:
        """``context_sensitivity`` and ``position_sensitivity``; the backbone's mode and place are restored.

        Raises:
            D3sslError: features are not finite or all the same.
        """
        device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
        with frozen(backbone, device):
            context, position = (_features(backbone, own) for own in (self.probes.context, self.probes.position))
        return {
            "context_sensitivity": sensitivity(context, others="any"),
            "position_sensitivity": sensitivity(position),
        }


def _features(backbone: Backbone, probe: Probe) -> Float32[Tensor, "O C D"]:
    images, boxes = probe.images.reshape(-1, *probe.images.shape[2:]), probe.boxes.reshape(-1, 1, 4)
    rows = [
        encode_regions(backbone, images[start : start + 64], list(boxes[start : start + 64]))
        for start in range(0, len(images), 64)
    ]
    return torch.cat(rows).unflatten(0, probe.boxes.shape[:2])
