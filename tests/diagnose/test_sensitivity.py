"""The sensitivity ratio against a naive loop, its invariants and its known answers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from d3ssl.diagnose import sensitivity
from d3ssl.diagnose.sensitivity import Others, distances, estimate
from d3ssl.errors import D3sslError, InputError
from d3ssl.seeds import numpy_generator, torch_generator


def naive(features: Tensor, others: str, weights: list[int] | None = None) -> float:
    """The definition, pair by pair."""
    count, conditions, _ = features.shape
    phi = features.double() - features.double().mean(dim=(0, 1))
    phi = phi / phi.norm(dim=2, keepdim=True)
    weights = weights or [1] * count
    drawn = [o for o in range(count) for _ in range(weights[o])]
    same, other = [], []
    for o in drawn:
        same += [1 - float(phi[o, a] @ phi[o, b]) for a, b in product(range(conditions), repeat=2) if a != b]
    for o, p in product(drawn, repeat=2):
        if o != p:
            pairs = product(range(conditions), repeat=2)
            other += [1 - float(phi[o, a] @ phi[p, b]) for a, b in pairs if others == "any" or a == b]
    return float(np.mean(same) / np.mean(other))


def mixture(seed: int, count: int, conditions: int, size: int, of_object: float, shared: float) -> Tensor:
    """Features with a part of the object, a part of the condition that all objects share, and a rest."""
    generator = torch_generator("mixture", seed)
    one = of_object * torch.randn(count, 1, size, generator=generator)
    two = shared * torch.randn(1, conditions, size, generator=generator)
    return one + two + torch.randn(count, conditions, size, generator=generator) + 3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 5), st.sampled_from(["same", "any"]), st.floats(0, 3))
def test_equals_the_naive_loop(seed: int, count: int, conditions: int, others: Others, shared: float) -> None:
    features = mixture(seed, count, conditions, 7, 1.0, shared)
    assert sensitivity(features, others=others) == pytest.approx(naive(features, others), rel=1e-6)


@pytest.mark.parametrize("others", ["same", "any"])
def test_scale_and_offset_do_not_matter_and_arrays_do(others: Others) -> None:
    features = mixture(0, 8, 4, 5, 1.0, 0.5)
    expected = sensitivity(features, others=others)
    assert sensitivity(250 * features - 40, others=others) == pytest.approx(expected, rel=1e-3)
    assert sensitivity(features.numpy(), others=others) == pytest.approx(expected, rel=1e-6)
    assert sensitivity(features.flip(0), others=others) == pytest.approx(expected, rel=1e-6)
    assert sensitivity(features.flip(1), others=others) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("others", ["same", "any"])
def test_known_answers(others: Others) -> None:
    generator = torch_generator("known")
    of_object = torch.randn(40, 1, 16, generator=generator).expand(-1, 6, -1)
    assert sensitivity(of_object, others=others) == pytest.approx(0, abs=1e-6)
    of_nothing = torch.randn(40, 6, 16, generator=generator)
    assert sensitivity(of_nothing, others=others) == pytest.approx(1, abs=0.03)


def test_features_that_are_only_the_place_are_far_above_one() -> None:
    """On a grid that all objects share, up to objects' own size and centre; exactly the place: unbounded, yet finite.
    Comparing different objects at any two places instead could never exceed C / (C − 1)."""
    generator = torch_generator("places")
    place = torch.tensor(list(product((0.2, 0.5, 0.8), repeat=2)))[None].expand(30, -1, -1)
    jittered = place + 0.01 * torch.randn(30, 1, 2, generator=generator)
    assert sensitivity(jittered) > 5
    assert sensitivity(jittered, others="any") < 9 / 8 + 1e-9
    assert 1e3 < sensitivity(place) < float("inf")


def test_features_that_do_not_vary_or_are_not_finite_are_an_error() -> None:
    with pytest.raises(D3sslError, match="same feature"):
        sensitivity(torch.full((5, 3, 4), 0.1))
    with pytest.raises(D3sslError, match="same feature"):
        sensitivity(torch.zeros(5, 3, 4))
    broken = torch.randn(5, 3, 4)
    broken[0, 0, 0] = float("nan")
    with pytest.raises(D3sslError, match="not finite"):
        sensitivity(broken)
    for shape in ((1, 3, 4), (5, 1, 4)):
        with pytest.raises(InputError, match="no sensitivity"):
            sensitivity(torch.randn(shape))


@pytest.mark.parametrize("others", ["same", "any"])
def test_an_object_drawn_twice_is_not_two_objects(others: Others) -> None:
    """The bootstrap's ratio for a draw equals the naive loop over the drawn objects (centred as before)."""
    from d3ssl.diagnose.sensitivity import _weighted

    features = mixture(1, 5, 3, 6, 1.0, 1.0)
    weights = [2, 0, 1, 3, 0]
    found = _weighted(distances(features, others), np.array([weights], dtype=np.float64))
    assert found[0] == pytest.approx(naive(features, others, weights), rel=1e-6)


def test_the_interval_covers_the_truth() -> None:
    """The ratio of a large population lies in the intervals of most samples of it."""
    population = mixture(2, 3000, 4, 8, 1.0, 0.0)
    truth, hits = sensitivity(population), 0
    for number in range(60):
        sample = population[50 * number : 50 * number + 50]
        found = estimate([distances(sample, "same")], [np.arange(50)], 300, numpy_generator(number))
        assert found.low < found.value < found.high
        hits += found.low <= truth <= found.high
    assert hits >= 51


def test_probe_sets_are_averaged_and_the_same_objects_drawn_together() -> None:
    features = mixture(3, 20, 4, 8, 1.0, 0.0)
    parts, ids = distances(features, "any"), np.arange(20)
    one = estimate([parts], [ids], 400, numpy_generator(0))
    twice = estimate([parts, parts], [ids, ids], 400, numpy_generator(0))
    assert (one.low, one.high) == pytest.approx((twice.low, twice.high))  # no new objects: no narrower
    apart = estimate([parts, parts], [ids, ids + 20], 400, numpy_generator(0))
    assert apart.high - apart.low < 0.85 * (one.high - one.low)
    assert one.by_seed == (pytest.approx(one.value),) and twice.value == pytest.approx(one.value)
