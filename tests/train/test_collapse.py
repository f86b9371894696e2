"""Figures that tell of collapse and drift."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3ssl.methods.losses import InfoNce, Regression
from d3ssl.methods.plan import Objective, Pair, Plan
from d3ssl.models.heads import Mlp
from d3ssl.models.readers import Cells
from d3ssl.train.collapse import CollapseWatch, DriftWatch, drift_cosine, effective_rank, embedding_spread


def test_spread_of_uniform_directions_is_one() -> None:
    z = torch.randn(20_000, 32) * torch.rand(20_000, 1) * 50
    assert embedding_spread(z) == pytest.approx(1.0, abs=0.01)


def test_spread_of_equal_directions_is_zero() -> None:
    z = torch.randn(1, 16) * torch.rand(50, 1).add(0.1)
    assert embedding_spread(z) == pytest.approx(0.0, abs=1e-4)


def test_spread_equals_its_definition() -> None:
    z = torch.randn(9, 5)
    unit = [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in z.tolist()]
    deviations = []
    for column in zip(*unit, strict=True):
        mean = sum(column) / 9
        deviations.append(math.sqrt(sum((value - mean) ** 2 for value in column) / 8))
    assert embedding_spread(z) == pytest.approx(sum(deviations) / 5 * math.sqrt(5), rel=1e-5)


@settings(deadline=None)
@given(st.integers(1, 12), st.floats(0.01, 100))
def test_effective_rank_of_k_equal_directions_is_k(k: int, scale: float) -> None:
    basis = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(k)))[0][:k]
    assert effective_rank(basis.repeat(3, 1) * scale) == pytest.approx(k, rel=1e-3)


def test_effective_rank_of_known_singular_values() -> None:
    z = torch.diag(torch.tensor([3.0, 1.0, 0.0]))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(z) == pytest.approx(math.exp(entropy), rel=1e-5)
    assert effective_rank(torch.ones(20, 8)) == pytest.approx(1.0, abs=1e-3)
    assert effective_rank(torch.zeros(20, 8)) == 0.0


def test_too_few_rows_and_infinities() -> None:
    assert math.isnan(embedding_spread(torch.zeros(0, 4)))
    assert math.isnan(embedding_spread(torch.ones(1, 4)))
    assert math.isnan(effective_rank(torch.zeros(0, 4)))
    assert math.isnan(effective_rank(torch.tensor([[1.0, float("inf")]])))


def test_the_watch_warns_once_after_patience() -> None:
    watch = CollapseWatch(threshold=0.1, patience=3)
    figures = [0.05, 0.05, 0.5, 0.05, float("nan"), 0.05, 0.04, 0.01, 0.5, 0.01, 0.01, 0.01]
    messages = [watch.check(figure, step) for step, figure in enumerate(figures)]
    assert [step for step, message in enumerate(messages) if message] == [6]
    assert "step 6" in str(messages[6])
    assert "0.040" in str(messages[6])
    assert "What to do" in str(messages[6])


def test_a_healthy_run_is_left_in_peace() -> None:
    watch = CollapseWatch()
    assert not any(watch.check(0.1 + step / 100, step) for step in range(50))


def plan(**changes: Any) -> Plan:
    """A frozen teacher; a loss between two views, and one that compares a view with itself."""
    whole = Objective(reader=Cells(), loss=Regression(), pairs=(Pair(student="x1", teacher="x1", weight=0.25),))
    moved = Objective(reader=Cells(), loss=Regression(), pairs=(Pair(student="x1", teacher="x2"),))
    found = Plan(name="own", views={}, objectives={"moved": moved, "whole": whole}, momentum=1.0)
    return dataclasses.replace(found, **changes)


def test_drift_is_read_off_the_loss_that_compares_a_view_with_itself() -> None:
    parts = {"loss_moved": 1.7, "loss_whole": 0.25 * (2 - 2 * 0.6)}
    assert drift_cosine(plan(), parts) == pytest.approx(0.6)
    assert drift_cosine(plan(momentum=0.99), parts) is None
    own = plan().objectives
    assert drift_cosine(plan(objectives={"moved": own["moved"]}), parts) is None
    headed = dataclasses.replace(own["whole"], predictor=Mlp(hidden=4, out=4))
    assert drift_cosine(plan(objectives={"whole": headed}), parts) is None
    contrast = dataclasses.replace(own["whole"], loss=InfoNce())
    assert drift_cosine(plan(objectives={"whole": contrast}), parts) is None


def test_drift_is_told_once_with_what_to_do() -> None:
    watch = DriftWatch()
    figures = [1.0, 0.31, None, float("nan"), 0.29, 0.1, 0.9, 0.2]
    messages = [watch.check(figure, step) for step, figure in enumerate(figures)]
    assert [step for step, message in enumerate(messages) if message] == [4]
    told = str(messages[4])
    assert "step 4" in told and "0.29" in told
    assert all(word in told for word in ("--optimizer.lr", "--host.keep", "--train.steps", "--strength"))
