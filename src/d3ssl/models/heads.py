"""The heads of self-distillation: projector and predictor."""

from __future__ import annotations

from torch import nn


def mlp(in_features: int, hidden: int, out_features: int) -> nn.Sequential:
    """Linear → batch norm → ReLU → linear, on rows: (N, in_features) → (N, out_features).

    The first linear layer has no bias, since the batch norm behind it would cancel it. In training mode the batch
    norm needs two rows or more (over all processes, once it is synchronised).

    Source: BYOL's projector and predictor (arXiv 2006.07733, section 3.2); SoCo uses both with 4096 hidden and 256
    output features (arXiv 2106.02637).
    """
    return nn.Sequential(
        nn.Linear(in_features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out_features),
    )
