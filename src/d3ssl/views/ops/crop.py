"""Crop, flip and resize: the window of the image that a view shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from d3ssl.contracts import CanvasBatch
from d3ssl.errors import InputError
from d3ssl.views.geometry import sample_windows


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Inception's random crop, inside the window of the view's source (or the whole image)."""

    name: ClassVar[str] = "crop"
    area: tuple[float, float] = (0.6, 1.0)
    """Area of the window as a share of the source's window; (1, 1) is that window itself, whatever its aspect."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of the window, measured in pixels of the original image."""
    flip: float = 0.5
    """Probability of a horizontal mirror, drawn for every view by itself."""

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise InputError(f"the area of a crop is {self.area}", remedy="give 0 < low ≤ high ≤ 1.")
        if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise InputError(f"the aspect of a crop is {self.aspect}", remedy="give 0 < low ≤ high.")
        if not 0 <= self.flip <= 1:
            raise InputError(f"the flip of a crop is {self.flip}", remedy="give a probability, 0..1.")

    def sample(
        self, batch: CanvasBatch, within: Float[Tensor, "B 4"] | None, generator: torch.Generator
    ) -> tuple[Float[Tensor, "B 4"], Bool[Tensor, "B"]]:
        """The windows (xyxy in 0..1 of the image, inside ``within``) and which images are mirrored; on the CPU."""
        windows = sample_windows(batch.image_size, self.area, self.aspect, generator, within=within)
        return windows, torch.rand(len(windows), generator=generator) < self.flip
