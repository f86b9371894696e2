"""O-KNN against a naive loop, and its known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from d3ssl.errors import InputError
from d3ssl.evaluate import object_knn


def naive(train_x: Tensor, train_y: Tensor, val_x: Tensor, k: int, temperature: float) -> list[int]:
    found = []
    for x in val_x.double():
        near = []
        for other, label in zip(train_x.double(), train_y.tolist(), strict=True):
            near.append((float(x @ other / (x.norm() * other.norm())), label))
        votes: dict[int, float] = {}
        for similarity, label in sorted(near, reverse=True)[:k]:
            votes[label] = votes.get(label, 0.0) + math.exp(similarity / temperature)
        found.append(max(votes, key=lambda label: votes[label]))
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([0.07, 0.5, 5.0]))
def test_equals_the_naive_loop(seed: int, k: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    train_x = torch.randn(30, 5, generator=generator)
    train_y = torch.randint(-3, 9, (30,), generator=generator)
    val_x = torch.randn(7, 5, generator=generator)
    assert object_knn(train_x, train_y, val_x, k, temperature).tolist() == naive(
        train_x, train_y, val_x, k, temperature
    )


def test_weights_decide_where_numbers_would_not() -> None:
    """One neighbour at cosine 1 outvotes two at cosine 0.6 if the temperature is low, and not if it is high."""
    train_x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    train_y = torch.tensor([7, 3, 3])
    val_x = torch.tensor([[5.0, 0.0]])
    assert object_knn(train_x, train_y, val_x, k=3, temperature=0.07).tolist() == [7]
    assert object_knn(train_x, train_y, val_x, k=3, temperature=10.0).tolist() == [3]


def test_many_objects_are_labelled_as_in_small_parts() -> None:
    generator = torch.Generator().manual_seed(3)
    train_x, val_x = torch.randn(50, 6, generator=generator), torch.randn(2500, 6, generator=generator)
    train_y = torch.randint(0, 4, (50,), generator=generator)
    whole = object_knn(train_x, train_y, val_x)
    parts = [label for part in val_x.split(100) for label in object_knn(train_x, train_y, part).tolist()]
    assert whole.tolist() == parts


def test_arrays_give_arrays_and_low_temperatures_do_not_overflow() -> None:
    x = np.eye(3, dtype=np.float32)
    labels = np.array([2, 0, 1])
    found = object_knn(x, labels, x, k=2, temperature=1e-4)
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [2, 0, 1]


def test_bad_input() -> None:
    x, y = torch.ones(2, 3), torch.tensor([0, 1])
    with pytest.raises(InputError, match="no training objects"):
        object_knn(x[:0], y[:0], x)
    for k, temperature in ((0, 0.07), (5, 0.0)):
        with pytest.raises(InputError, match="impossible"):
            object_knn(x, y, x, k, temperature)
