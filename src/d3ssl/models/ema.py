"""The teacher: an exponential moving average of the student."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Network = TypeVar("Network", bound=nn.Module)


def make_teacher(student: Network) -> Network:
    """A copy of the student that needs no gradient and shares no tensor with it."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher ← momentum · teacher + (1 − momentum) · student, for every parameter, in place.

    Buffers: the running statistics of batch norms in training mode stay the teacher's own, because its forward
    passes keep them up to date for *its* weights and for what *it* sees (whole views). Those of batch norms in
    evaluation mode are averaged like parameters. All other buffers are copied.

    Args:
        momentum: 0 (teacher = student) .. 1 (teacher unchanged).

    Raises:
        ValueError: momentum out of range, or the two networks differ in structure.

    Source: BYOL, arXiv 2006.07733, equation 1.
    """
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum is {momentum}, not within 0..1")
    averaged = _pairs(dict(teacher.named_parameters()), dict(student.named_parameters()))
    copied: list[tuple[Tensor, Tensor]] = []
    for (name, owner), (other_name, other) in zip(teacher.named_modules(), student.named_modules(), strict=True):
        if name != other_name:
            raise ValueError(f"teacher and student differ: module '{name}' against '{other_name}'")
        pairs = _pairs(dict(owner.named_buffers(recurse=False)), dict(other.named_buffers(recurse=False)))
        if not isinstance(owner, _BatchNorm):
            copied += pairs
        elif not owner.training:
            averaged += [pair for pair in pairs if pair[0].is_floating_point()]
            copied += [pair for pair in pairs if not pair[0].is_floating_point()]
    if averaged:
        targets, sources = [pair[0] for pair in averaged], [pair[1] for pair in averaged]
        torch._foreach_lerp_(targets, sources, 1.0 - momentum)  # pyright: ignore[reportPrivateImportUsage]
    for target, source in copied:
        target.copy_(source)


def _pairs(teacher: dict[str, Tensor], student: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    if teacher.keys() != student.keys():
        raise ValueError(f"teacher and student differ in {sorted(teacher.keys() ^ student.keys())}")
    return [(teacher[name], student[name]) for name in teacher]


def momentum_at(progress: float, base: float = 0.99, end: float = 1.0) -> float:
    """The teacher's momentum: from ``base`` to ``end`` along half a cosine; constant where they are equal.

    m = end − (end − base)·(cos(π·progress) + 1)/2   (BYOL, arXiv 2006.07733, section 3.2; SoCo: 0.99 to 1)

    Args:
        progress: share of the training that is done, 0..1.
    """
    return end - (end - base) * (math.cos(math.pi * progress) + 1.0) / 2.0
