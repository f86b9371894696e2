"""Projector and predictor."""

import torch
from torch import nn

from d3ssl.models.heads import mlp


def test_it_is_linear_batch_norm_relu_linear() -> None:
    head = mlp(5, 7, 3)
    rows = torch.randn(6, 5)
    first, norm, last = head[0], head[1], head[3]
    assert isinstance(first, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(last, nn.Linear)
    hidden = rows @ first.weight.T
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(head(rows), hidden.clamp(min=0) @ last.weight.T + last.bias, atol=1e-6, rtol=1e-5)


def test_no_rows_in_evaluation() -> None:
    assert mlp(5, 7, 3).eval()(torch.zeros(0, 5)).shape == (0, 3)


def test_size_of_the_paper() -> None:
    head = mlp(2048, 4096, 256)
    assert sum(p.numel() for p in head.parameters()) == 2048 * 4096 + 2 * 4096 + 4096 * 256 + 256
