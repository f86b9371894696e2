"""InfoNCE over regions: the other regions of the global batch are the negatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from d3ssl.contracts import RowInfo
from d3ssl.distributed import gather_rows, rank
from d3ssl.losses.objective import at_least_float32


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoNce:
    """ℓ_i = −log [ exp(s_i·t_i/T) / (exp(s_i·t_i/T) + Σ_j exp(s_i·t_j/T)) ], s and t of unit length.

    j runs over the rows of *all* processes, without i itself and without rows of the same image whose canvas box
    overlaps that of i: they may show the same object. Without any such j the loss is 0. The naive loop::

        for i in rows_of_this_process:
            positive, others = exp(cos(student[i], teacher[i]) / T), 0
            for j in rows_of_all_processes:
                if j is i or (image[j] == image[i] and iou(boxes[i], boxes[j]) > max_iou):
                    continue
                others += exp(cos(student[i], teacher[j]) / T)
            loss[i] = -log(positive / (positive + others))

    Only the student's rows of this process carry a gradient, so the gradient of the sum over processes is that of
    one process with all rows.

    Source: CPC, arXiv 1807.03748, equation 4; between regions DenseCL, arXiv 2011.09157, equation 2.
    """

    temperature: float = 0.2
    """T (DenseCL and MoCo v2: 0.2)."""
    max_iou: float = 0.0
    """Regions of one image that overlap more than this (IoU of their canvas boxes) are no negatives of each other
    (decided here)."""

    def __call__(
        self, student: Float[Tensor, "N D"], teacher: Float[Tensor, "N D"], rows: RowInfo
    ) -> Float[Tensor, "N"]:
        with torch.autocast(student.device.type, enabled=False):
            queries = F.normalize(at_least_float32(student), dim=1)
            keys = F.normalize(at_least_float32(teacher.detach()), dim=1)
            positive = (queries * keys).sum(1, keepdim=True) / self.temperature
            excluded = self._excluded(rows)
            negative = (queries @ gather_rows(keys).T / self.temperature).masked_fill(excluded, -torch.inf)
            return torch.logsumexp(torch.cat([positive, negative], 1), 1) - positive[:, 0]

    def _excluded(self, rows: RowInfo) -> Bool[Tensor, "N M"]:
        """True where a row of the global batch is no negative of a row of this process."""
        own = torch.arange(rows.image.shape[0], device=rows.image.device)
        process = torch.full_like(own, rank())
        # One message for everything that is known of a row; float64 holds the integers exactly.
        known = torch.cat([torch.stack([process, own, rows.image], 1).double(), rows.boxes.double()], 1)
        every = gather_rows(known)
        numbers: Int64[Tensor, "M 3"] = every[:, :3].long()
        is_itself = (numbers[:, 0] == rank()) & (numbers[:, 1] == own[:, None])
        is_same_image = numbers[:, 2] == rows.image[:, None]
        return is_itself | (is_same_image & overlaps(rows.boxes, every[:, 3:].to(rows.boxes.dtype), self.max_iou))


def overlaps(one: Float[Tensor, "N 4"], other: Float[Tensor, "M 4"], max_iou: float) -> Bool[Tensor, "N M"]:
    """True where the intersection over union of two xyxy boxes exceeds ``max_iou``."""
    x0, y0, x1, y1 = one[:, :, None].unbind(1)
    u0, v0, u1, v1 = other[None].unbind(2)
    shared = (torch.minimum(x1, u1) - torch.maximum(x0, u0)).clamp_(min=0)
    shared *= (torch.minimum(y1, v1) - torch.maximum(y0, v0)).clamp_(min=0)
    union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared
    return shared > max_iou * union
