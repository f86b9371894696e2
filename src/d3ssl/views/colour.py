"""Photometric operations on batches of images in 0..1, in place: one amount per image.

Values equal ``torchvision.transforms.v2.functional`` on float images, image by image (hue to rounding; blur with
torchvision's reflected border).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from d3ssl.errors import InputError

REFERENCE_SIDE = 224
"""px: the view that blurs are given for."""
_REFERENCE_RADIUS = 11  # SoCo, BYOL: a 23 px kernel at 224 px
_GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # torchvision's rgb_to_grayscale


def adjust_brightness_(images: Float[Tensor, "N C H W"], factor: Float[Tensor, "N"]) -> None:
    """factor·x, clamped to 0..1, in place."""
    images.mul_(_per_image(factor, images)).clamp_(0, 1)


def adjust_contrast_(images: Float[Tensor, "N C H W"], factor: Float[Tensor, "N"]) -> None:
    """factor·x + (1 − factor)·(mean of the grey image), clamped to 0..1, in place; without colour the mean of all."""
    mean = images.mean(dim=(2, 3))
    mean = mean @ mean.new_tensor(_GREY_WEIGHTS) if images.shape[1] == 3 else mean.mean(dim=1)
    images.mul_(_per_image(factor, images)).add_(_per_image((1 - factor) * mean, images)).clamp_(0, 1)


def adjust_saturation_(images: Float[Tensor, "N 3 H W"], factor: Float[Tensor, "N"]) -> None:
    """factor·x + (1 − factor)·(grey image), clamped to 0..1, in place."""
    grey = _grey(images).mul_(_per_image(1 - factor, images))
    images.mul_(_per_image(factor, images)).add_(grey).clamp_(0, 1)


def adjust_hue_(images: Float[Tensor, "N 3 H W"], turns: Float[Tensor, "N"]) -> None:
    """Rotate the hue of HSV by a share of the colour circle, in place; greatest and least channel value stay.

    With h in 0..6 the hue, a channel is least + chroma·w(h): red's w is clamp(|h − 3| − 1), green's and blue's are
    clamp(2 − |h − 2|) and clamp(2 − |h − 4|), which is torchvision's way through HSV without its six cases.
    """
    red, green, blue = images.unbind(1)
    most = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = most - least
    of_green = torch.add(blue - red, chroma, alpha=2)
    of_blue = torch.add(red - green, chroma, alpha=4)
    hue = of_blue.lerp_(of_green, _at_least(green, most)).lerp_(green - blue, _at_least(red, most))
    hue.div_(chroma.clamp(min=torch.finfo(images.dtype).tiny)).add_((6 * turns)[:, None, None])
    hue.sub_((hue / 6).floor_(), alpha=6)
    torch.addcmul(least, chroma, (hue - 3).abs_().sub_(1).clamp_(0, 1), out=red)
    torch.addcmul(least, chroma, (hue - 2).abs_().neg_().add_(2).clamp_(0, 1), out=green)
    torch.addcmul(least, chroma, (hue - 4).abs_().neg_().add_(2).clamp_(0, 1), out=blue)


def to_grey_(images: Float[Tensor, "N 3 H W"]) -> None:
    """0.2989 R + 0.587 G + 0.114 B in all three channels, in place."""
    images.copy_(_grey(images))


def gaussian_blur_(images: Float[Tensor, "N C H W"], sigma: Float[Tensor, "N"], radius: int | None = None) -> None:
    """Blur in place, borders reflected (the border pixel not repeated), as torchvision's ``gaussian_blur``.

    Each side is one product with a banded matrix that has the reflection folded in: 5 times faster on a CPU than a
    convolution a channel at 112 px.

    Args:
        sigma: standard deviation, px of these images.
        radius: the kernel has 2·radius + 1 taps; None: 11 at 224 px, in proportion to the shorter side.
    """
    height, width = images.shape[2:]
    if radius is None:
        radius = max(1, round(_REFERENCE_RADIUS * min(height, width) / REFERENCE_SIDE))
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    kernel *= kernel > 1e-12  # denormal weights would slow the product tenfold
    kernel /= kernel.sum(dim=1, keepdim=True)
    rows = _band_matrix(kernel, height)
    columns = rows if width == height else _band_matrix(kernel, width)
    across = torch.bmm(images.flatten(1, 2), columns.transpose(1, 2)).view_as(images)
    torch.matmul(rows[:, None], across, out=images)


def solarize_(images: Float[Tensor, "N C H W"], threshold: Float[Tensor, "N"]) -> None:
    """Replace x by 1 − x from the threshold up, in place."""
    images.lerp_(1 - images, _at_least(images, _per_image(threshold, images)))


def normalise(
    images: Float[Tensor, "B C H W"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "B C H W"]:
    """(x − mean) / std, channel by channel.

    Args:
        mean, std: a value a channel, in the range of ``images`` (0..1).

    Raises:
        InputError: their number is not the number of channels.
    """
    channels = images.shape[1]
    if not len(mean) == len(std) == channels:
        problem = f"the images have {channels} channels, the normalisation {len(mean)} means and {len(std)} deviations"
        raise InputError(problem, remedy="give one mean and one standard deviation a channel.")
    scale = 1 / images.new_tensor(std)
    shift = -images.new_tensor(mean) * scale
    return torch.addcmul(shift[:, None, None], images, scale[:, None, None])


def _per_image(value: Float[Tensor, "N"], images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N 1 1 1"]:
    return value.to(images.dtype)[:, None, None, None]


def _grey(images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 1 H W"]:
    red, green, blue = images.split(1, dim=1)
    return (red * _GREY_WEIGHTS[0]).add_(green, alpha=_GREY_WEIGHTS[1]).add_(blue, alpha=_GREY_WEIGHTS[2])


def _at_least(value: Float[Tensor, "..."], bound: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """1.0 where value ≥ bound, else 0.0; on CPUs several times faster than a comparison and ``torch.where``."""
    return (value - bound).mul_(1e30).add_(1).clamp_(0, 1)


def _band_matrix(kernel: Float[Tensor, "N taps"], side: int) -> Float[Tensor, "N side side"]:
    """The matrix of a convolution with ``kernel`` over a side with reflected borders."""
    count, taps = kernel.shape
    radius = taps // 2
    if radius >= side:
        raise ValueError(f"a blur radius of {radius} px does not fit into a side of {side} px")
    wide = kernel.new_zeros(count, side, side + 2 * radius)
    stride = side + 2 * radius
    wide.as_strided((count, side, taps), (side * stride, stride + 1, 1)).copy_(kernel[:, None].expand(-1, side, -1))
    matrix = wide[:, :, radius : radius + side]
    matrix[:, :, 1 : radius + 1] += wide[:, :, :radius].flip(2)
    matrix[:, :, side - 1 - radius : side - 1] += wide[:, :, radius + side :].flip(2)
    return matrix
