"""Watching for collapse: embeddings that become equal, or that use few of their dimensions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


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
