"""Cosine regression: the student's prediction points where the teacher's projection does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from d3ssl.contracts import Rows
from d3ssl.methods.losses.loss import Loss, at_least_float32


@dataclass(frozen=True, kw_only=True)
class Regression(Loss):
    """ℓ = 2 − 2·cos(z_s, z_t) = ‖z_s/‖z_s‖ − z_t/‖z_t‖‖², within 0..4.

    The naive loop::

        for i in range(N):
            s, t = student[i] / norm(student[i]), teacher[i] / norm(teacher[i])
            loss[i] = sum((s - t) ** 2)

    Without negatives it collapses unless the student has a predictor and the teacher is an EMA. ``rows`` is unused.

    Source: BYOL, arXiv 2006.07733, equation 2; for regions SoCo, arXiv 2106.02637 (which drops the constant 2).
    """

    def __call__(self, student: Float[Tensor, "N D"], teacher: Float[Tensor, "M D"], rows: Rows) -> Float[Tensor, "N"]:
        with torch.autocast(student.device.type, enabled=False):
            student = F.normalize(at_least_float32(student), dim=1)
            teacher = F.normalize(at_least_float32(teacher.detach()), dim=1)
            return 2.0 - 2.0 * (student * teacher).sum(1)
