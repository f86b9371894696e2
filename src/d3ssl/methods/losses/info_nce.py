"""InfoNCE over rows: the other rows of the global batch are the negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from d3ssl.contracts import Rows
from d3ssl.errors import InputError
from d3ssl.methods.losses.loss import Loss, at_least_float32


@dataclass(frozen=True, kw_only=True)
class InfoNce(Loss):
    """ℓ_i = −log [ exp(s_i·t_i/T) / (exp(s_i·t_i/T) + Σ_j w_j·exp(s_i·t_j/T)) ], s and t of unit length.

    j runs over the rows of *all* processes, without i itself and without rows of the same image whose canvas box
    overlaps that of i: they may show the same object. Without any such j the loss is 0. A region that fills several
    slots counts once (w_j). The naive loop::

        for i in rows_of_this_process:
            positive, others = exp(cos(student[i], teacher[i]) / T), 0
            for j in rows_of_all_processes:
                if j is i or (image[j] == image[i] and iou(boxes[i], boxes[j]) > max_iou):
                    continue
                others += weight[j] * exp(cos(student[i], teacher[j]) / T)
            loss[i] = -log(positive / (positive + others))

    Only the student's rows of this process carry a gradient, so the gradient of the sum over processes is that of
    one process with all rows.

    Source: CPC, arXiv 1807.03748, equation 4; between regions DenseCL, arXiv 2011.09157, equation 2.
    """

    contrasts: ClassVar[bool] = True
    temperature: float = 0.2
    """T (DenseCL and MoCo v2: 0.2)."""
    max_iou: float = 0.0
    """Regions of one image that overlap more than this (IoU of their canvas boxes) are no negatives of each other
    (decided here)."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"the temperature is {self.temperature}", remedy="set it above 0, such as 0.2.")

    def __call__(self, student: Float[Tensor, "N D"], teacher: Float[Tensor, "M D"], rows: Rows) -> Float[Tensor, "N"]:
        own = slice(rows.start, rows.start + len(student))
        with torch.autocast(student.device.type, enabled=False):
            queries = F.normalize(at_least_float32(student), dim=1)
            keys = F.normalize(at_least_float32(teacher.detach()), dim=1)
            positive = (queries * keys[own]).sum(1, keepdim=True) / self.temperature
            counted = rows.weight.to(queries.dtype).log()  # −inf for rows of no weight
            negative = queries @ keys.T / self.temperature + counted
            negative = negative.masked_fill(self._excluded(rows, own), -torch.inf)
            return torch.logsumexp(torch.cat([positive, negative], 1), 1) - positive[:, 0]

    def _excluded(self, rows: Rows, own: slice) -> Bool[Tensor, "N M"]:
        """True where a row of the global batch is no negative of a row of this process."""
        number = torch.arange(rows.image.shape[0], device=rows.image.device)
        is_same_image = rows.image[own, None] == rows.image
        return (number[own, None] == number) | (is_same_image & overlaps(rows.boxes[own], rows.boxes, self.max_iou))


def overlaps(one: Float[Tensor, "N 4"], other: Float[Tensor, "M 4"], max_iou: float) -> Bool[Tensor, "N M"]:
    """True where the intersection over union of two xyxy boxes exceeds ``max_iou``."""
    x0, y0, x1, y1 = one[:, :, None].unbind(1)
    u0, v0, u1, v1 = other[None].unbind(2)
    shared = (torch.minimum(x1, u1) - torch.maximum(x0, u0)).clamp(min=0)
    shared = shared * (torch.minimum(y1, v1) - torch.maximum(y0, v0)).clamp(min=0)
    union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared
    return shared > max_iou * union
