"""Watching for collapse: embeddings that become equal, or that use few of their dimensions.

And for drift: features that leave those of a frozen start.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from d3ssl.methods.losses import Regression
from d3ssl.methods.plan import Plan

DRIFT = "drift_cosine"
"""Its name in the log."""


def embedding_spread(z: Float[Tensor, "N D"]) -> float:
    """Standard deviation of the L2-normalised rows, averaged over the dimensions, times √D.

    About 1 for directions uniform on the sphere, 0 for rows that all point the same way (SimSiam, arXiv 2011.10566,
    figure 2). NaN for fewer than two rows.
    """
    if z.shape[0] < 2:
        return float("nan")
    return float(F.normalize(z.detach().float(), dim=1).std(0).mean() * z.shape[1] ** 0.5)


def effective_rank(z: Float[Tensor, "N D"]) -> float:
    """exp(−Σ p·log p) of p = σ/Σσ, the normalised singular values of z: within 1..min(N, D); 0 for a zero matrix.

    The number of dimensions that the rows use, weighted (Roy and Vetterli 2007; RankMe, arXiv 2210.02885, equation
    3, of rows as they are, not centred). NaN without rows or with values that are not finite.
    """
    z = z.detach().float()
    if z.numel() == 0 or not bool(z.isfinite().all()):
        return float("nan")
    singular = torch.linalg.svdvals(z).double()
    total = singular.sum()
    if total == 0:
        return 0.0
    return float(torch.special.entr(singular / total).sum().exp())


class CollapseWatch:
    """Speaks up once when the spread of the embeddings has stayed low for several checks in a row.

    Args:
        threshold: spread (see ``embedding_spread``) below which embeddings count as collapsed (decided here).
        patience: checks in a row before it warns (decided here).
    """

    def __init__(self, threshold: float = 0.1, patience: int = 5) -> None:
        self.threshold, self.patience = threshold, patience
        self.low_checks = 0
        self.has_warned = False

    def check(self, spread: float, step: int) -> str | None:
        """The warning with its remedy, the first time it is due; else None. A spread of NaN leaves all as it is."""
        if spread != spread:
            return None
        self.low_checks = self.low_checks + 1 if spread < self.threshold else 0
        if self.low_checks < self.patience or self.has_warned:
            return None
        self.has_warned = True
        return (
            f"the embeddings are collapsing: at step {step} their spread is {spread:.3f} (1 = uniform, 0 = all equal), "
            f"below {self.threshold} for {self.low_checks} checks in a row\n"
            "  What to do: stop, lower --optimizer.lr or lengthen --schedule.warmup_steps, raise the teacher's "
            "--host.momentum, keep the predictor; --host.loss info_nce, where the host has it, cannot collapse to one "
            "point."
        )


def drift_cosine(plan: Plan, parts: Mapping[str, float]) -> float | None:
    """Mean cosine between the student's rows and a frozen start's of the same views, −1..1; 1: nothing has changed.

    Read off the loss of the objectives without heads that compare a view with itself by cosine (2 − 2·cos per row),
    which a step computes anyway. None: the teacher moves, or there is no such objective.

    Args:
        parts: ``loss_NAME`` of every objective, the mean over the step.
    """
    found = []
    for name, objective in plan.objectives.items():
        weight = sum(pair.weight for pair in objective.pairs)
        is_same = all(pair.student == pair.teacher for pair in objective.pairs)
        is_headless = objective.projector is None and objective.predictor is None
        if plan.is_frozen and is_same and is_headless and weight and isinstance(objective.loss, Regression):
            found.append(1 - parts[f"loss_{name}"] / (2 * weight))
    return sum(found) / len(found) if found else None


class DriftWatch:
    """Speaks up once when the student's features have left those of a frozen start.

    Args:
        threshold: cosine (see ``drift_cosine``) below which it warns. Decided here: rows are compared without the
            start's mean, so rows that have nothing in common are near 0 (as they are, rows behind a ReLU are near .5
            whatever they show); at .3, less than a tenth (.3²) of a row's variance is still the start's, and weights
            between start and end can hardly be better than both.
    """

    def __init__(self, threshold: float = 0.3) -> None:
        self.threshold, self.has_warned = threshold, False

    def check(self, cosine: float | None, step: int) -> str | None:
        """The warning with its remedy, the first time it is due; else None. So too for NaN and where none is known."""
        if cosine is None or not cosine < self.threshold or self.has_warned:
            return None
        self.has_warned = True
        return (
            f"the features leave those of the start: at step {step} their mean cosine on the same views is "
            f"{cosine:.2f} (1 = as they were, 0 = nothing in common), below {self.threshold}\n"
            "  What to do: start a new run with a lower --optimizer.lr, a larger --host.keep or fewer --train.steps, "
            "or let this one finish and take less of it: d3ssl posttrain --out RUN --strength 0.25."
        )
