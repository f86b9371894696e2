"""The learning rate as a pure function of the step: linear warm-up, then half a cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass

from d3ssl.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate changes during a run."""

    warmup_steps: int | None = None
    """Optimiser steps of linear warm-up; None: from ``warmup_share``."""
    warmup_share: float = 0.025
    """Share of all steps, when ``warmup_steps`` is None (arXiv 2106.02637: 10 of 400 epochs)."""
    final_lr_share: float = 0.0
    """Learning rate after the last step, as a share of the base rate (arXiv 2106.02637: 0)."""


def num_warmup_steps(steps: int, config: ScheduleConfig) -> int:
    """Steps of warm-up in a run of ``steps``.

    Raises:
        InputError: a warm-up that leaves no step for training, or a share out of 0..1.
    """
    share, final = config.warmup_share, config.final_lr_share
    if not (0.0 <= share < 1.0 and 0.0 <= final <= 1.0):
        problem = f"schedule.warmup_share {share} or schedule.final_lr_share {final} is no share"
        raise InputError(problem, remedy="set them to 0 or more and below 1.")
    warmup = config.warmup_steps if config.warmup_steps is not None else math.floor(share * steps)
    if not 0 <= warmup < steps:
        problem = f"schedule.warmup_steps is {warmup}, the run has {steps} steps"
        raise InputError(problem, remedy="train longer, or lower --schedule.warmup_steps.")
    return warmup


def lr_at(step: int, steps: int, config: ScheduleConfig, base: float = 1.0) -> float:
    """Learning rate of step ``step`` (0-based, below ``steps``), for a base rate of ``base``.

    Warm-up over w steps: base·(step + 1)/(w + 1), so that no step is lost at rate 0. Then, with
    p = (step − w)/(steps − w) and f = ``final_lr_share``: base·[f + (1 − f)·(1 + cos(π·p))/2]
    (SGDR, arXiv 1608.03983, equation 5, one period).

    Raises:
        InputError: see ``num_warmup_steps``.
    """
    warmup = num_warmup_steps(steps, config)
    if step < warmup:
        return base * (step + 1) / (warmup + 1)
    progress = (step - warmup) / (steps - warmup)
    final = config.final_lr_share
    return base * (final + (1.0 - final) * (1.0 + math.cos(math.pi * progress)) / 2.0)
