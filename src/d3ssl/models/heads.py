"""The heads of self-distillation: projectors, predictors, prototypes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from d3ssl.errors import InputError

MOST_PROTOTYPES = 65536
"""DINO's (arXiv 2104.14294), the most in use."""


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


@dataclass(frozen=True, kw_only=True)
class PrototypeHead:
    """Rows are compared with prototypes: an MLP of three layers, unit length, cosine with each prototype.

    Linear → GELU → linear → GELU → linear → unit length → prototypes (DINO, arXiv 2104.14294, section 3.1; iBOT, arXiv
    2111.07832). The result is one logit per prototype.
    """

    hidden: int = 2048
    """Hidden units of the MLP (DINO, iBOT: 2048)."""
    bottleneck: int = 256
    """What is compared with the prototypes (DINO, iBOT: 256)."""
    out: int = 8192
    """Prototypes (iBOT: 8192)."""
    fixed_length: bool = False
    """Prototypes keep unit length, which is steadier; else their lengths are learned (iBOT with a ViT-S)."""

    def __post_init__(self) -> None:
        if not 2 <= self.out <= MOST_PROTOTYPES:
            remedy = f"give 2 to {MOST_PROTOTYPES} (iBOT: 8192)."
            raise InputError(f"the head has {self.out} prototypes", remedy=remedy)
        if self.hidden < 1 or self.bottleneck < 2:
            problem = f"a prototype head of {self.hidden} hidden units and a bottleneck of {self.bottleneck}"
            raise InputError(problem, remedy="give 1 and 2 or more.")

    def build(self, in_features: int) -> Prototypes:
        return Prototypes(self, in_features)


class Prototypes(nn.Module):
    """See ``PrototypeHead``."""

    def __init__(self, config: PrototypeHead, in_features: int) -> None:
        super().__init__()
        sizes = (in_features, config.hidden, config.hidden, config.bottleneck)
        layers = [nn.Linear(size, following) for size, following in pairwise(sizes)]
        for layer in layers:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.mlp = nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])
        self.prototypes = nn.Parameter(F.normalize(torch.randn(config.out, config.bottleneck), dim=1))
        self.fixed_length = config.fixed_length

    def forward(self, rows: Float[Tensor, "N D"]) -> Float[Tensor, "N P"]:
        prototypes = F.normalize(self.prototypes, dim=1) if self.fixed_length else self.prototypes
        return F.linear(F.normalize(self.mlp(rows), dim=1), prototypes)


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
