"""Cross-entropy over prototypes: the student tells which of them the teacher chooses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import Rows
from d3ssl.distributed import all_reduce_mean
from d3ssl.errors import InputError
from d3ssl.methods.losses.loss import Loss, Memory, at_least_float32


@dataclass(frozen=True, kw_only=True)
class PrototypeCrossEntropy(Loss):
    """ℓ = −Σ_p softmax((t − c)/T_t)_p · log softmax(s/T_s)_p over the prototypes' logits of both.

    The centre c, a running mean of the teacher's logits, keeps one prototype from winning everywhere; it starts at 0
    and takes in each step after it. T_t rises linearly at the beginning of the training. The naive loop::

        for i in range(N):
            target = softmax((teacher[i] - centre) / teacher_temperature)
            loss[i] = -sum(target * log(softmax(student[i] / student_temperature)))

    Source: DINO, arXiv 2104.14294, equations 2 and 4; between patches iBOT, arXiv 2111.07832, equation 2.
    """

    student_temperature: float = 0.1
    """T_s (DINO, iBOT: .1)."""
    teacher_temperature: float = 0.07
    """T_t after the warm-up (iBOT: .07)."""
    first_temperature: float = 0.04
    """T_t at the first step (DINO, iBOT: .04)."""
    warmup_share: float = 0.1
    """Share of the training in which T_t rises (D³SSL's public code: 80 of 800 epochs)."""
    centre_momentum: float = 0.9
    """Share of the old centre in the new one (DINO, iBOT: .9)."""

    def __post_init__(self) -> None:
        temperatures = (self.student_temperature, self.teacher_temperature, self.first_temperature)
        if not all(value > 0 for value in temperatures):
            raise InputError(f"the temperatures are {temperatures}", remedy="set them above 0, such as 0.1 and 0.07.")
        if not (0 <= self.warmup_share <= 1 and 0 <= self.centre_momentum < 1):
            problem = f"warmup_share {self.warmup_share}, centre_momentum {self.centre_momentum}"
            raise InputError(problem, remedy="give shares, 0..1, and a momentum below 1.")

    def remember(self, size: int) -> PrototypeCentre:
        return PrototypeCentre(self, size)

    def temperature_at(self, progress: float) -> float:
        """T_t when this share of the training is done."""
        done = min(progress / self.warmup_share, 1.0) if self.warmup_share else 1.0
        return self.first_temperature + (self.teacher_temperature - self.first_temperature) * done


class PrototypeCentre(Memory):
    """See ``PrototypeCrossEntropy``."""

    centre: Float[Tensor, "P"]

    def __init__(self, config: PrototypeCrossEntropy, size: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("centre", torch.zeros(size))

    def forward(
        self, student: Float[Tensor, "N D"], teacher: Float[Tensor, "N D"], rows: Rows, progress: float
    ) -> Float[Tensor, "N"]:
        with torch.autocast(student.device.type, enabled=False):
            centred = at_least_float32(teacher.detach()) - self.centre
            target = F.softmax(centred / self.config.temperature_at(progress), dim=1)
            return -(target * F.log_softmax(at_least_float32(student) / self.config.student_temperature, dim=1)).sum(1)

    def carry(self, teacher: Float[Tensor, "N D"], images: int) -> Float[Tensor, "D"]:
        return at_least_float32(teacher).mean(0)

    def update(self, carries: list[Tensor]) -> None:
        step = all_reduce_mean(torch.stack(carries).mean(0))
        self.centre.lerp_(step.to(self.centre.dtype), 1 - self.config.centre_momentum)
