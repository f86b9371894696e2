"""Optimisers: LARS (timm), SGD and AdamW (torch), with 1-D parameters left out of weight decay and LARS adaptation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.optim.lars import Lars
from torch import nn

from d3ssl.errors import InputError, nearest

REFERENCE_BATCH = 256
"""Images: the batch for which learning rates are given."""
NAMES = ("lars", "sgd", "adamw")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Which optimiser, and its parameters. What an optimiser does not know, it ignores (as said below)."""

    name: Literal["lars", "sgd", "adamw"] = "lars"
    """lars (arXiv 2106.02637), sgd (arXiv 2011.09157), adamw (ViTs, small batches)."""
    lr: float = 1.0
    """Learning rate, for a batch of 256 images if ``scale_lr`` (LARS: 1.0, arXiv 2106.02637; SGD: 0.3, arXiv
    2011.09157; AdamW: 1e-3)."""
    scale_lr: bool | None = None
    """Multiply ``lr`` by batch/256 (arXiv 1706.02677). None: for lars and sgd, not for adamw."""
    weight_decay: float = 1.0e-5
    """Of parameters with two dimensions or more (LARS: 1e-5; SGD: 1e-4; AdamW: 0.05, decoupled)."""
    momentum: float = 0.9
    """Of lars and sgd."""
    trust_coefficient: float = 0.001
    """Of lars (arXiv 1708.03888; 0.001 in arXiv 2106.02637)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of adamw (MAE, arXiv 2111.06377)."""
    eps: float = 1.0e-8
    """Of adamw."""


def base_lr(config: OptimizerConfig, global_batch: int) -> float:
    """The learning rate at the top of the schedule, for ``global_batch`` images an optimiser step."""
    scale = config.scale_lr if config.scale_lr is not None else config.name != "adamw"
    return config.lr * global_batch / REFERENCE_BATCH if scale else config.lr


def make_optimizer(
    modules: nn.Module | Iterable[nn.Module], config: OptimizerConfig, global_batch: int
) -> torch.optim.Optimizer:
    """The optimiser of the parameters that need a gradient, each once, in two groups.

    Parameters with two dimensions or more are decayed (and adapted by LARS); the others (biases, scales of norms) are
    not (as in arXiv 2006.07733, 2106.02637). Each group carries ``base_lr``, the rate that the schedule multiplies.

    Args:
        modules: one or several, already on their device.
        global_batch: images an optimiser step, over all processes and accumulated parts.

    Raises:
        InputError: a value out of range.
    """
    _check(config)
    modules = [modules] if isinstance(modules, nn.Module) else list(modules)
    trained = list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
    lr = base_lr(config, global_batch)
    split = [
        ([p for p in trained if p.ndim > 1], {"weight_decay": config.weight_decay}),
        ([p for p in trained if p.ndim <= 1], {"weight_decay": 0.0}),
    ]
    groups: list[dict[str, Any]] = [{"params": params, "base_lr": lr, **options} for params, options in split if params]
    if config.name == "adamw":  # fused: one pass over the memory, on CPUs too
        return torch.optim.AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=True)
    for group in groups:  # adaptation must not depend on weight decay being above 0
        group["always_adapt"] = group["params"][0].ndim > 1
        group["momentum"] = config.momentum
    return Lars(groups, lr=lr, trust_coeff=config.trust_coefficient)


def scale_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set each group's learning rate to a share (``schedule.lr_at``) of its ``base_lr``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * share


def _check(config: OptimizerConfig) -> None:
    if config.name not in NAMES:
        raise InputError(f"there is no optimiser '{config.name}'", remedy=nearest(config.name, NAMES))
    ranges = {
        "lr": (config.lr > 0, "above 0"),
        "weight_decay": (config.weight_decay >= 0, "0 or more"),
        "momentum": (0 <= config.momentum < 1, "0 or more and below 1"),
        "trust_coefficient": (config.trust_coefficient > 0, "above 0"),
        "betas": (all(0 <= beta < 1 for beta in config.betas), "0 or more and below 1, both"),
        "eps": (config.eps > 0, "above 0"),
    }
    for key, (fits, meaning) in ranges.items():
        if not fits:
            problem = f"optimizer.{key} is {getattr(config, key)}"
            raise InputError(problem, remedy=f"set --optimizer.{key} to a value {meaning}.")
