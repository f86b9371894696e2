"""Colour operations on a batch against torchvision's on each image."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from d3ssl.errors import InputError
from d3ssl.seeds import torch_generator
from d3ssl.views import colour
from d3ssl.views.colour import normalise


def pictures(batch: int = 5, channels: int = 3, height: int = 40, width: int = 56, seed: int = 0) -> torch.Tensor:
    """Smooth colour fields with noise and with exact black, white, grey and pure colours in one corner."""
    generator = torch_generator("pictures", seed)
    coarse = torch.rand(batch, channels, 5, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    images = (smooth + 0.2 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
    if channels == 3:
        special = [[0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0.3, 0.3, 0.7]]
        images[:, :, 0, : len(special)] = torch.tensor(special).T
    return images


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (colour.adjust_brightness_, tv.adjust_brightness, 0.0, 2.0),
        (colour.adjust_contrast_, tv.adjust_contrast, 0.0, 2.0),
        (colour.adjust_saturation_, tv.adjust_saturation, 0.0, 2.0),
        (colour.adjust_hue_, tv.adjust_hue, -0.5, 0.5),
        (colour.solarize_, tv.solarize, 0.0, 1.0),
    ],
)
def test_operation_equals_torchvision_on_each_image(ours, theirs, low, high):
    images = pictures()
    amount = torch.linspace(low, high, len(images))
    result = images.clone()
    ours(result, amount)
    expected = torch.stack([theirs(image, value) for image, value in zip(images, amount.tolist(), strict=True)])
    torch.testing.assert_close(result, expected, atol=2e-6, rtol=0)
    assert (result - images).abs().max() > 0.1


def test_grey_equals_torchvision():
    images = pictures()
    result = images.clone()
    colour.to_grey_(result)
    torch.testing.assert_close(result, tv.rgb_to_grayscale(images, num_output_channels=3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("height", "width", "radius"), [(40, 56, 3), (33, 33, 11), (12, 12, 11)])
def test_blur_equals_torchvision_including_borders(height, width, radius):
    images = pictures(4, 2, height, width)
    sigma = torch.tensor([0.3, 0.8, 1.5, 4.0])
    result = images.clone()
    colour.gaussian_blur_(result, sigma, radius)
    size = [2 * radius + 1] * 2
    expected = [tv.gaussian_blur(i, size, [s, s]) for i, s in zip(images, sigma.tolist(), strict=True)]
    torch.testing.assert_close(result, torch.stack(expected), atol=2e-6, rtol=0)


def test_normalise():
    images = pictures()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    torch.testing.assert_close(normalise(images, mean, std), tv.normalize(images, list(mean), list(std)))
    with pytest.raises(InputError, match="3 channels"):
        normalise(images, (0.5,), (0.5,))
