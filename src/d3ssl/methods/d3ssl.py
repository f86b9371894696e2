"""The D³SSL training step: student and teacher, the host's loss and the two modules' (design, section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from d3ssl.contracts import RowInfo, View, ViewSet
from d3ssl.distributed import all_reduce_sum, world_size
from d3ssl.errors import D3sslError
from d3ssl.losses import RegionObjective, make_objective
from d3ssl.methods.config import MethodConfig
from d3ssl.models.ema import make_teacher, update_teacher
from d3ssl.models.heads import mlp
from d3ssl.models.network import ModelConfig, RegionNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """What one forward pass gives."""

    loss: Float[Tensor, ""]
    """Mean over the rows of all processes, times the number of processes over those (see ``_mean``)."""
    parts: dict[str, Tensor]
    """The loss of each branch, detached: ``loss_base`` and, with de-positioning, ``loss_deposition``."""
    embeddings: Float[Tensor, "N D"]
    """The student's projections of x1 (before the predictor), detached: for watching collapse."""


class D3ssl(nn.Module):
    """A dense SSL host with the de-coupling and the de-positioning module.

    With z_s the student's rows (projector, predictor) and z_t the teacher's (projector, no gradient)::

        L_base = ½ [ℓ(z_s(x1), z_t(x2)) + ℓ(z_s(x2-small), z_t(x1))]
        L_dp   = ½ [ℓ(z_s(x3), z_t(x1)) + ℓ(z_s(x3), z_t(x2))]
        L      = L_base + λ L_dp

    The teacher normalises with the statistics of its own batch, as in BYOL. De-coupling changes what the student sees
    (the views carry the cuts), not the formula. Symmetric branches follow BYOL (arXiv 2006.07733) and SoCo
    (arXiv 2106.02637), the modules D³SSL (arXiv 2303.16947).
    """

    def __init__(self, config: MethodConfig, model: ModelConfig, in_channels: int = 3) -> None:
        super().__init__()
        if config.objective == "regression" and not config.predictor:
            remedy = "set --method.predictor true, or --method.objective info_nce."
            raise D3sslError("cosine regression without a predictor collapses", remedy=remedy)
        self.config = config
        self.student = RegionNetwork(model, in_channels=in_channels)
        self.teacher = make_teacher(self.student)
        size = model.projector_out
        self.predictor = mlp(size, model.projector_hidden, size) if config.predictor else nn.Identity()
        self.objective: RegionObjective = make_objective(config.objective, config.temperature)

    def forward(self, views: ViewSet) -> StepOutput:
        rows = row_info(views)
        self._check_rows(rows)
        projected_x1 = self._project(self.student, views.student_x1, views)
        student_x1 = self.predictor(projected_x1)
        student_x2 = self.predictor(self._project(self.student, views.student_x2_small, views))
        with torch.no_grad():
            teacher_x1 = self._project(self.teacher, views.teacher_x1, views)
            teacher_x2 = self._project(self.teacher, views.teacher_x2, views)
        base = 0.5 * (self._mean(student_x1, teacher_x2, rows) + self._mean(student_x2, teacher_x1, rows))
        loss, parts = base, {"loss_base": base.detach()}
        if views.student_x3 is not None:
            student_x3 = self.predictor(self._project(self.student, views.student_x3, views))
            shifted = 0.5 * (self._mean(student_x3, teacher_x1, rows) + self._mean(student_x3, teacher_x2, rows))
            loss = base + self.config.deposition_weight * shifted
            parts["loss_deposition"] = shifted.detach()
        return StepOutput(loss=loss, parts=parts, embeddings=projected_x1.detach())

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """teacher ← momentum · teacher + (1 − momentum) · student."""
        update_teacher(self.teacher, self.student, momentum)

    def _project(self, network: nn.Module, view: View, views: ViewSet) -> Float[Tensor, "N D"]:
        return network(view.images, view.boxes, views.valid)

    def _mean(self, student: Float[Tensor, "N D"], teacher: Float[Tensor, "N D"], rows: RowInfo) -> Float[Tensor, ""]:
        """Mean of ℓ over the rows of all processes, times their number: DDP averages gradients over processes, so
        the gradient is that of one process with the whole batch, also when the numbers of rows differ."""
        losses = self.objective(student, teacher, rows)
        total = all_reduce_sum(torch.tensor(float(losses.shape[0]), device=losses.device))
        return losses.sum() * (world_size() / total)

    def _check_rows(self, rows: RowInfo) -> None:
        total = all_reduce_sum(torch.tensor(float(rows.image.shape[0]), device=rows.image.device))
        if total < 2:
            remedy = "look at `d3ssl views`; start a new run with a lower --views.min_visible or a larger batch."
            raise D3sslError("fewer than two regions of the batch survive in all views", remedy=remedy)


def row_info(views: ViewSet) -> RowInfo:
    """Image and canvas box of every valid region. An image that is twice in the batch (at the end of an epoch) counts
    as one, so that a region is never its own negative."""
    image, slot = views.valid.nonzero(as_tuple=True)
    return RowInfo(image=views.index[image], boxes=views.canvas_boxes[image, slot])
