"""What is trained: the host's objective and the two modules, each switched by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """The loss of the method. With both modules off it is the host alone (SoCo)."""

    decouple: bool = True
    """De-coupling (DC): the student sees x1 and x2-small with region collaborative cutout."""
    deposition: bool = True
    """De-positioning (DP): the student also sees x3, its foreground shifted onto another image."""
    deposition_weight: float = 1.0
    """λ, the weight of the de-positioning loss (decided here)."""
    objective: Literal["regression", "info_nce"] = "regression"
    """Pairwise loss of regions: cosine regression (SoCo, BYOL) or InfoNCE over the regions of the batch."""
    temperature: float = 0.2
    """Temperature of InfoNCE (DenseCL: 0.2); unused by regression."""
    predictor: bool = True
    """Pass the student's rows through a predictor (needed by regression, or it collapses)."""
    teacher_momentum: float = 0.99
    """EMA momentum of the teacher at the first step; rises to 1 along a half cosine (SoCo)."""
