"""The heads of self-distillation: projector and predictor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from d3ssl.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """A head as data: ``mlp`` of these sizes."""

    hidden: int = 4096
    """Hidden units (SoCo, BYOL: 4096)."""
    out: int = 256
    """Size of a row (SoCo, BYOL: 256)."""
    norm: bool = True
    """A batch norm behind the first layer (SoCo, BYOL); else none (MoCo v2, DenseCL)."""

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.out < 2:
            raise InputError(
                f"a head of {self.hidden} hidden units and {self.out} outputs", remedy="give 1 and 2 or more."
            )

    def build(self, in_features: int) -> nn.Sequential:
        return mlp(in_features, self.hidden, self.out, norm=self.norm)


def mlp(in_features: int, hidden: int, out_features: int, *, norm: bool = True) -> nn.Sequential:
    """Linear → batch norm → ReLU → linear, on rows: (N, in_features) → (N, out_features).

    The first linear layer has no bias, since the batch norm behind it would cancel it. In training mode the batch
    norm needs two rows or more (over all processes, once it is synchronised). Without ``norm``: linear → ReLU → linear.

    Source: BYOL's projector and predictor (arXiv 2006.07733, section 3.2); SoCo uses both with 4096 hidden and 256
    output features (arXiv 2106.02637). Without a norm MoCo v2 (arXiv 2003.04297) and, as 1×1 convolutions on the cells
    of a map, DenseCL (arXiv 2011.09157): 2048 and 128.
    """
    if not norm:
        return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out_features))
    return nn.Sequential(
        nn.Linear(in_features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out_features),
    )
