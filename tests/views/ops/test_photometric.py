"""Photometric operations equal torchvision's on single images; every image has its own draw."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from d3ssl.errors import InputError
from d3ssl.seeds import torch_generator
from d3ssl.views.ops import photometric
from d3ssl.views.ops.photometric import (
    SOCO_X1,
    SOCO_X2,
    Photometric,
    PhotometricParameters,
    apply_photometric,
    sample_photometric,
)

NOTHING = Photometric(jitter_p=0.0, grey_p=0.0, blur_p=0.0, solarize_p=0.0)
EVERYTHING = Photometric(jitter_p=1.0, grey_p=0.5, blur_p=1.0, solarize_p=0.5)


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


@pytest.mark.parametrize(("side", "taps"), [(224, 23), (112, 13), (64, 7)])
def test_kernel_size_and_sigma_scale_with_the_view(side, taps):
    image = torch.zeros(1, 1, side, side)
    image[..., side // 2, side // 2] = 1
    drawn = dataclasses.replace(sample_photometric(1, NOTHING, torch_generator(0)), blur_sigma=torch.tensor([2.0]))
    blurred = apply_photometric(image, drawn)[0, 0]
    assert (blurred[side // 2] > 0).sum() == taps
    place = torch.arange(side).float() - side // 2
    deviation = (blurred.sum(0) * place**2).sum().sqrt()
    assert abs(deviation - 2.0 * side / 224) < 0.02


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), channels=st.sampled_from([1, 2, 3, 4]))
def test_pipeline_equals_torchvision_image_by_image(seed, channels):
    images = pictures(6, channels, seed=seed)
    drawn = sample_photometric(6, EVERYTHING, torch_generator(seed))
    untouched = images.clone()
    result = apply_photometric(images, drawn)
    assert torch.equal(images, untouched)
    expected = torch.stack([_reference(image, drawn, b) for b, image in enumerate(images)])
    unsure = _near_threshold(images, drawn)
    torch.testing.assert_close(result[~unsure], expected[~unsure], atol=2e-5, rtol=0)
    assert unsure.float().mean() < 0.02


def _near_threshold(images: torch.Tensor, drawn: PhotometricParameters) -> torch.Tensor:
    """Pixels whose value before solarizing lies so close to the threshold that rounding decides."""
    before = apply_photometric(images, dataclasses.replace(drawn, solarize=torch.zeros(len(images), dtype=torch.bool)))
    return ((before - drawn.solarize_threshold).abs() < 1e-4) & drawn.solarize[:, None, None, None]


def _reference(image: torch.Tensor, drawn: PhotometricParameters, b: int) -> torch.Tensor:
    colour = len(image) == 3
    for operation in drawn.order[b].tolist() if drawn.jitter[b] else []:
        if operation == 0:
            image = (image * drawn.brightness[b]).clamp(0, 1)
        elif operation == 1 and colour:
            image = tv.adjust_contrast(image, drawn.contrast[b].item())
        elif operation == 1:
            factor = drawn.contrast[b]
            image = (factor * image + (1 - factor) * image.mean()).clamp(0, 1)
        elif operation == 2 and colour:
            image = tv.adjust_saturation(image, drawn.saturation[b].item())
        elif operation == 3 and colour:
            image = tv.adjust_hue(image, drawn.hue[b].item())
    if drawn.grey[b] and colour:
        image = tv.rgb_to_grayscale(image, num_output_channels=3)
    sigma = drawn.blur_sigma[b].item() * 40 / 224
    if sigma > 0:
        image = tv.gaussian_blur(image, [5, 5], [sigma, sigma])  # 5 taps at 40 px
    return tv.solarize(image, drawn.solarize_threshold) if drawn.solarize[b] else image


def test_gathering_path_equals_the_cpu_path(monkeypatch):
    """Elsewhere than on the CPU images are gathered; the same numbers come out."""
    images = pictures(7)
    drawn = sample_photometric(7, EVERYTHING, torch_generator(3))
    one_by_one = apply_photometric(images, drawn)

    monkeypatch.setattr(photometric, "_apply_one_by_one", photometric._apply_gathered)
    torch.testing.assert_close(apply_photometric(images, drawn), one_by_one, atol=1e-6, rtol=0)


def test_nothing_applies_nothing():
    images = pictures()
    assert torch.equal(apply_photometric(images, sample_photometric(5, NOTHING, torch_generator(0))), images)


def test_frequencies_and_ranges_of_the_draws():
    drawn = sample_photometric(20_000, SOCO_X2, torch_generator(0))
    for share, expected in ((drawn.jitter, 0.8), (drawn.grey, 0.2), (drawn.blur_sigma > 0, 0.1), (drawn.solarize, 0.2)):
        assert abs(share.float().mean() - expected) < 0.015
    for values, low, high in (
        (drawn.brightness, 0.6, 1.4),
        (drawn.contrast, 0.6, 1.4),
        (drawn.saturation, 0.8, 1.2),
        (drawn.hue, -0.1, 0.1),
        (drawn.blur_sigma[drawn.blur_sigma > 0], 0.1, 2.0),
    ):
        assert low - 1e-6 <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high + 1e-6
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
    orders, counts = drawn.order.unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert (counts.float() / 20_000 - 1 / 24).abs().max() < 0.008
    assert (sample_photometric(1000, SOCO_X1, torch_generator(0)).blur_sigma > 0).all()


def test_draws_are_deterministic_and_separate():
    first, again, other = (sample_photometric(8, EVERYTHING, torch_generator(s)) for s in (1, 1, 2))
    for field in dataclasses.fields(first):
        if isinstance(value := getattr(first, field.name), torch.Tensor):
            assert torch.equal(value, getattr(again, field.name))
    assert not torch.equal(first.brightness, other.brightness)
    assert len(first.brightness.unique()) == 8


@pytest.mark.parametrize(
    "options",
    [{"jitter_p": 1.1}, {"grey_p": -0.1}, {"brightness": -1.0}, {"hue": 0.6}, {"blur_sigma": (0.0, 1.0)}],
)
def test_impossible_configuration_is_a_clear_error(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Photometric(**options)
