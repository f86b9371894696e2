"""Background mixing: never the image itself, nothing of it where it is not kept."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3ssl.errors import InputError
from d3ssl.seeds import torch_generator
from d3ssl.views.ops.mixing import mix_background, sample_partners


@given(batch=st.integers(2, 40), seed=st.integers(0, 10**6))
def test_partners_are_others_and_each_is_used_once(batch, seed):
    partners = sample_partners(batch, torch_generator(seed))
    assert (partners != torch.arange(batch)).all()
    assert sorted(partners.tolist()) == list(range(batch))


def test_every_other_image_is_a_partner_equally_often():
    generator, draws = torch_generator(0), 4000
    seen = torch.stack([sample_partners(5, generator) for _ in range(draws)])
    for image in range(5):
        counts = seen[:, image].bincount(minlength=5)
        assert counts[image] == 0
        assert (counts[torch.arange(5) != image] - draws / 4).abs().max() < 5 * (draws * 3 / 16) ** 0.5


@given(batch=st.integers(2, 6), channels=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_outside_the_kept_pixels_nothing_of_the_image_remains(batch, channels, seed):
    """Image b is painted with the value b, so that every pixel tells where it comes from."""
    generator = torch_generator(seed)
    images = torch.arange(batch).float()[:, None, None, None].expand(batch, channels, 9, 7)
    keep = torch.rand(batch, 1, 9, 7, generator=generator) < 0.5
    mixed = mix_background(images, keep, generator=generator)
    own = mixed == images
    assert torch.equal(own, keep.expand_as(own))
    for b in range(batch):
        assert len(mixed[b][:, ~keep[b, 0]].unique()) <= 1  # of one other image


def test_given_backgrounds_are_used_in_place_and_the_input_is_untouched():
    images, backgrounds = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    keep = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    keep[..., :4] = True
    before = images.clone()
    mixed = mix_background(images, keep, backgrounds)
    assert torch.equal(mixed[..., :4], images[..., :4])
    assert torch.equal(mixed[..., 4:], backgrounds[..., 4:])
    assert torch.equal(images, before)


def test_same_generator_same_partners():
    first, again, other = (sample_partners(30, torch_generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_image_cannot_be_mixed_with_itself():
    with pytest.raises(InputError, match="another image"):
        mix_background(torch.rand(1, 3, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool))


def test_an_image_that_is_twice_in_the_batch_is_not_its_own_partner():
    index = torch.tensor([7, 3, 7, 7, 5])
    for seed in range(200):
        partners = sample_partners(5, torch.Generator().manual_seed(seed), index)
        assert (index[partners] != index).all()
    with pytest.raises(InputError, match="one image only"):
        sample_partners(3, torch.Generator().manual_seed(0), torch.tensor([1, 1, 1]))
