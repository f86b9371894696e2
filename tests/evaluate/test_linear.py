"""The linear probe: what it can read, what it cannot, and how it chooses its L2 strength."""

from __future__ import annotations

import pytest
import torch

from d3ssl.errors import InputError
from d3ssl.evaluate import linear_probe
from d3ssl.evaluate.linear import STRENGTHS
from d3ssl.seeds import torch_generator


def clusters(count: int, noise: float, dimensions: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch_generator("clusters", count)
    y = torch.arange(count) % 4
    centres = torch.eye(4, dimensions)
    x = centres[y] + noise * torch.randn(count, dimensions, generator=generator)
    return x, y, torch.arange(count) // 3


def test_separable_classes_are_read_whatever_scale_and_offset() -> None:
    x, y, image = clusters(240, 0.1)
    assert torch.equal(linear_probe(x, y, image).predict(x), y)
    scale = torch.logspace(-4, 4, 8)
    assert torch.equal(linear_probe(x * scale + 1000 * scale, y, image).predict(x * scale + 1000 * scale), y)


def test_noise_is_not_read_on_other_objects_and_gets_strong_regularisation() -> None:
    generator = torch_generator("noise")
    x, y = torch.randn(400, 64, generator=generator), torch.randint(0, 4, (400,), generator=generator)
    other, truth = torch.randn(2000, 64, generator=generator), torch.randint(0, 4, (2000,), generator=generator)
    probe = linear_probe(x, y, torch.arange(400))
    assert 0.2 < float((probe.predict(other) == truth).float().mean()) < 0.3


def test_the_strength_is_chosen_across_images_not_objects() -> None:
    """Objects of one image share a class and a feature that names the image. Held out one by one they would be
    recognised by their image, whatever its weight; held out by image the class itself must be read."""
    generator = torch_generator("images")
    y, image = torch.arange(200) // 4 % 2, torch.arange(200) // 4
    names = 5 * torch.eye(50)[image]
    x = torch.cat([names, (2 * y[:, None] - 1) + 0.7 * torch.randn(200, 1, generator=generator)], dim=1)
    probe = linear_probe(x, y, image)
    new = torch.cat([torch.zeros(200, 50), x[:, -1:]], dim=1)
    assert float((probe.predict(new) == y).float().mean()) > 0.85
    assert probe.strength in STRENGTHS


def test_a_constant_feature_counts_for_nothing() -> None:
    x, y, image = clusters(120, 0.3)
    padded = torch.cat([x, torch.full((120, 1), 3.0)], dim=1)
    assert torch.equal(linear_probe(x, y, image).predict(x), linear_probe(padded, y, image).predict(padded))


def test_too_little_to_learn_from() -> None:
    x, y, image = clusters(12, 0.1)
    with pytest.raises(InputError, match="too few"):
        linear_probe(x, torch.zeros_like(y), torch.arange(12))
    with pytest.raises(InputError, match="too few"):
        linear_probe(x, y, image)
