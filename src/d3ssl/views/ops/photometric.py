"""Colour jitter, grey, blur and solarize: a separate draw for every image of a batch.

Parameters are drawn on the CPU first and then applied (to replay, test or draw them). An operation runs on the images
it applies to and on no others. Values equal ``torchvision.transforms.v2.functional`` on float images, image by image
(hue to rounding; blur with torchvision's reflected border).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from d3ssl.contracts import CanvasBatch
from d3ssl.errors import InputError
from d3ssl.views.colour import (
    REFERENCE_SIDE,
    adjust_brightness_,
    adjust_contrast_,
    adjust_hue_,
    adjust_saturation_,
    gaussian_blur_,
    solarize_,
    to_grey_,
)

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_INVISIBLE_SIGMA = 0.2  # px; the neighbour's weight is then below 4e-6


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """Strengths and probabilities; the defaults of jitter and grey are SoCo's and BYOL's."""

    name: ClassVar[str] = "photometric"

    jitter_p: float = 0.8
    """Probability that an image is jittered: brightness, contrast, saturation, hue, in an order of its own."""
    brightness: float = 0.4
    """Factor drawn from 1 ± this."""
    contrast: float = 0.4
    """Factor drawn from 1 ± this."""
    saturation: float = 0.2
    """Factor drawn from 1 ± this (three channels only)."""
    hue: float = 0.1
    """Shift drawn from ± this, in turns of the colour circle, at most 0.5 (three channels only)."""
    grey_p: float = 0.2
    """Probability of grey (three channels only)."""
    blur_p: float = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur in px of a 224 px view (BYOL); it scales with the view's shorter side."""
    solarize_p: float = 0.0
    """Probability of inverting all values from ``solarize_threshold`` up."""
    solarize_threshold: float = 0.5
    """0..1 (BYOL)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name.endswith("_p") and not 0 <= value <= 1:
                raise InputError(f"photometric.{name} is {value}", remedy="give a probability, 0..1.")
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise InputError(f"photometric.{name} is {getattr(self, name)}", remedy="give 0 or more.")
        if not 0 <= self.hue <= 0.5:
            raise InputError(f"photometric.hue is {self.hue}", remedy="give 0..0.5.")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise InputError(f"photometric.blur_sigma is {self.blur_sigma}", remedy="give 0 < low ≤ high.")

    def sample(self, batch: CanvasBatch, generator: torch.Generator) -> PhotometricParameters:
        return sample_photometric(len(batch.canvas), self, generator)

    def apply(self, images: Float[Tensor, "B C H W"], drawn: PhotometricParameters) -> Float[Tensor, "B C H W"]:
        """Of images in 0..1, before they are normalised."""
        return apply_photometric(images, drawn)


SOCO_X1 = Photometric(blur_p=1.0, solarize_p=0.0)
"""SoCo's V1 (facts: blur always, never solarized)."""
SOCO_X2 = Photometric(blur_p=0.1, solarize_p=0.2)
"""SoCo's V2 and V3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotometricParameters:
    """What was drawn for each image; tensors on the CPU, where they decide which images an operation touches."""

    jitter: Bool[Tensor, "B"]
    """Whether the next five apply."""
    order: Int64[Tensor, "B 4"]
    """A permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue."""
    brightness: Float[Tensor, "B"]
    contrast: Float[Tensor, "B"]
    saturation: Float[Tensor, "B"]
    """Factors; 1 changes nothing."""
    hue: Float[Tensor, "B"]
    """Turns, −0.5..0.5."""
    grey: Bool[Tensor, "B"]
    blur_sigma: Float[Tensor, "B"]
    """px of a 224 px view; 0: no blur."""
    solarize: Bool[Tensor, "B"]
    solarize_threshold: float


def sample_photometric(batch: int, config: Photometric, generator: torch.Generator) -> PhotometricParameters:
    """Draw the parameters of ``batch`` images. The number of draws does not depend on the configuration."""
    uniform = torch.rand(9, batch, generator=generator)
    order = torch.rand(batch, 4, generator=generator).argsort(dim=1)
    low, high = config.blur_sigma

    return PhotometricParameters(
        jitter=uniform[0] < config.jitter_p,
        order=order,
        brightness=_factor_range(uniform[1], config.brightness),
        contrast=_factor_range(uniform[2], config.contrast),
        saturation=_factor_range(uniform[3], config.saturation),
        hue=(2 * uniform[4] - 1) * config.hue,
        grey=uniform[5] < config.grey_p,
        blur_sigma=(low + (high - low) * uniform[6]) * (uniform[7] < config.blur_p),
        solarize=uniform[8] < config.solarize_p,
        solarize_threshold=config.solarize_threshold,
    )


def _factor_range(uniform: Float[Tensor, "B"], strength: float) -> Float[Tensor, "B"]:
    """Uniform in max(0, 1 − strength)..1 + strength, as torchvision's ColorJitter."""
    low = max(0.0, 1 - strength)
    return low + (1 + strength - low) * uniform


def apply_photometric(images: Float[Tensor, "B C H W"], parameters: PhotometricParameters) -> Float[Tensor, "B C H W"]:
    """Apply jitter, grey, blur and solarize, in this order, to a batch.

    Images that do not have three channels have no colour: of the jitter they get brightness and contrast (about the
    mean of all channels), and no grey.

    Args:
        images: 0..1, on any device; not modified.

    Returns:
        New images, 0..1.
    """
    images = images.clone(memory_format=torch.contiguous_format)
    colour = images.shape[1] == 3
    jitters: list[tuple[int, Callable[..., None], Tensor]] = [
        (_BRIGHTNESS, adjust_brightness_, parameters.brightness),
        (_CONTRAST, adjust_contrast_, parameters.contrast),
        (_SATURATION, adjust_saturation_, parameters.saturation),
        (_HUE, adjust_hue_, parameters.hue),
    ]
    if not colour:
        jitters = jitters[:_SATURATION]
    for turn in parameters.order.unbind(1):
        for number, operation, amount in jitters:
            _apply_where(images, parameters.jitter & (turn == number), operation, amount)
    if colour:
        _apply_where(images, parameters.grey, to_grey_)
    sigma = parameters.blur_sigma * (min(images.shape[2:]) / REFERENCE_SIDE)
    _apply_where(images, sigma >= _INVISIBLE_SIGMA, gaussian_blur_, sigma)
    _apply_where(images, parameters.solarize, solarize_, torch.full_like(sigma, parameters.solarize_threshold))
    return images


def _apply_where(
    images: Float[Tensor, "B C H W"],
    where: Bool[Tensor, "B"],
    operation: Callable[..., None],
    *amounts: Float[Tensor, "B"],
) -> None:
    """Run an in-place operation on the chosen images only."""
    chosen = where.nonzero()[:, 0]
    if len(chosen):
        apply = _apply_one_by_one if images.device.type == "cpu" else _apply_gathered
        apply(images, chosen, operation, amounts)


def _apply_one_by_one(
    images: Float[Tensor, "B C H W"],
    chosen: Int64[Tensor, "N"],
    operation: Callable[..., None],
    amounts: Sequence[Float[Tensor, "B"]],
) -> None:
    """For CPUs: an image stays in the cache and nothing is copied (3.5 times faster than gathering, measured)."""
    for i in chosen.tolist():
        operation(images[i : i + 1], *(amount[i : i + 1] for amount in amounts))


def _apply_gathered(
    images: Float[Tensor, "B C H W"],
    chosen: Int64[Tensor, "N"],
    operation: Callable[..., None],
    amounts: Sequence[Float[Tensor, "B"]],
) -> None:
    """For accelerators: few kernels, whatever the number of images."""
    index = chosen.to(images.device, non_blocking=True)
    gathered = images[index]
    operation(gathered, *(amount[chosen].to(images.device, non_blocking=True) for amount in amounts))
    images[index] = gathered
