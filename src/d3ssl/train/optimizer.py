"""Optimisers: LARS (timm), SGD and AdamW (torch), with 1-D parameters left out of weight decay and LARS adaptation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.optim._param_groups import param_groups_layer_decay
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
    layer_decay: float = 1.0
    """Learning rate of a layer of a timm network ÷ that of the layer behind it (BEiT, arXiv 2106.08254; ViTs: 0.65 to
    0.9). 1: all the same. Heads learn at the full rate."""


def base_lr(config: OptimizerConfig, global_batch: int) -> float:
    """The learning rate at the top of the schedule, for ``global_batch`` images an optimiser step."""
    scale = config.scale_lr if config.scale_lr is not None else config.name != "adamw"
    return config.lr * global_batch / REFERENCE_BATCH if scale else config.lr


def make_optimizer(
    modules: nn.Module | Iterable[nn.Module], config: OptimizerConfig, global_batch: int
) -> torch.optim.Optimizer:
    """The optimiser of the parameters that need a gradient, each once, in two groups (two a layer with
    ``layer_decay``).

    Parameters with two dimensions or more are decayed (and adapted by LARS); the others (biases, scales of norms) are
    not (as in arXiv 2006.07733, 2106.02637). Each group carries ``base_lr``, the rate that the schedule multiplies.

    Args:
        modules: one or several, already on their device.
        global_batch: images an optimiser step, over all processes and accumulated parts.

    Raises:
        InputError: a value out of range, or rates by layer for a network that names no layers.
    """
    check_optimizer(config)
    modules = [modules] if isinstance(modules, nn.Module) else list(modules)
    trained = list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
    lr = base_lr(config, global_batch)
    scales = {} if config.layer_decay == 1 else _layer_scales(modules, config.layer_decay)
    groups: list[dict[str, Any]] = []
    for scale in sorted({scales.get(p, 1.0) for p in trained}, reverse=True):
        own = [p for p in trained if scales.get(p, 1.0) == scale]
        for decay, params in (
            (config.weight_decay, [p for p in own if p.ndim > 1]),
            (0.0, [p for p in own if p.ndim <= 1]),
        ):
            if params:
                groups.append({"params": params, "base_lr": lr * scale, "weight_decay": decay})
    if config.name == "adamw":  # fused: one pass over the memory, on CPUs too
        return torch.optim.AdamW(groups, lr=lr, betas=config.betas, eps=config.eps, fused=True)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=True)
    for group in groups:  # adaptation must not depend on weight decay being above 0
        group["always_adapt"] = group["params"][0].ndim > 1
        group["momentum"] = config.momentum
    return Lars(groups, lr=lr, trust_coeff=config.trust_coefficient)


def _layer_scales(modules: list[nn.Module], decay: float) -> dict[nn.Parameter, float]:
    """Parameter → its share of the learning rate, for every timm network in the modules."""
    nets = [net for module in modules for net in module.modules() if hasattr(net, "group_matcher")]
    if not nets:
        problem = f"optimizer.layer_decay is {decay}, but the network does not say what its layers are"
        raise InputError(problem, remedy="set --optimizer.layer_decay 1, or use a network of timm.")
    groups = [group for net in nets for group in param_groups_layer_decay(net, layer_decay=decay)]
    return {parameter: group["lr_scale"] for group in groups for parameter in group["params"]}


def scale_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Set each group's learning rate to a share (``schedule.lr_at``) of its ``base_lr``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * share


def check_optimizer(config: OptimizerConfig) -> None:
    """Raise InputError for a value out of range."""
    if config.name not in NAMES:
        raise InputError(f"there is no optimiser '{config.name}'", remedy=nearest(config.name, NAMES))
    ranges = {
        "lr": (config.lr > 0, "above 0"),
        "weight_decay": (config.weight_decay >= 0, "0 or more"),
        "momentum": (0 <= config.momentum < 1, "0 or more and below 1"),
        "trust_coefficient": (config.trust_coefficient > 0, "above 0"),
        "betas": (all(0 <= beta < 1 for beta in config.betas), "0 or more and below 1, both"),
        "eps": (config.eps > 0, "above 0"),
        "layer_decay": (0 < config.layer_decay <= 1, "above 0 and at most 1"),
    }
    for key, (fits, meaning) in ranges.items():
        if not fits:
            problem = f"optimizer.{key} is {getattr(config, key)}"
            raise InputError(problem, remedy=f"set --optimizer.{key} to a value {meaning}.")
