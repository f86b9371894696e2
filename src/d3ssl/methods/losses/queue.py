"""InfoNCE against a queue: the negatives are keys of earlier steps, one per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from d3ssl.contracts import Rows
from d3ssl.distributed import gather_equal
from d3ssl.errors import InputError
from d3ssl.methods.losses.loss import Loss, Memory, at_least_float32
from d3ssl.seeds import torch_generator


@dataclass(frozen=True, kw_only=True)
class QueueInfoNce(Loss):
    """ℓ_i = −log [ exp(s_i·t_i/T) / (exp(s_i·t_i/T) + Σ_q exp(s_i·k_q/T)) ], all of unit length.

    k_q are the keys of the last ``size`` images: the mean over the teacher's rows of an image, scaled to unit length.
    They enter the queue after the step, the oldest leave it. The queue starts with random directions. The naive loop::

        for i in range(N):
            positive = exp(cos(student[i], teacher[i]) / T)
            others = sum(exp(cos(student[i], key) / T) for key in queue)
            loss[i] = -log(positive / (positive + others))

    Source: MoCo, arXiv 1911.05722, equation 1; between cells with keys pooled per image DenseCL, arXiv 2011.09157,
    section 3.3.
    """

    temperature: float = 0.2
    """T (DenseCL and MoCo v2: 0.2)."""
    size: int = 65536
    """Keys in the queue (DenseCL and MoCo v2: 65,536)."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"the temperature is {self.temperature}", remedy="set it above 0, such as 0.2.")
        if self.size < 1:
            raise InputError(f"the queue holds {self.size} keys", remedy="give 1 or more, such as 65536.")

    def remember(self, size: int) -> Queue:
        return Queue(self, size)

    def check_batch(self, images: int) -> None:
        if images > self.size:
            problem = f"a step has {images} keys, but the queue holds {self.size}"
            raise InputError(problem, remedy="raise --host.queue, or lower --train.batch_size.")


class Queue(Memory):
    """See ``QueueInfoNce``."""

    keys: Float[Tensor, "Q D"]
    place: Int64[Tensor, ""]
    """Where the next key goes."""

    def __init__(self, config: QueueInfoNce, size: int) -> None:
        super().__init__()
        self.config = config
        keys = torch.randn(config.size, size, generator=torch_generator("queue"))
        self.register_buffer("keys", F.normalize(keys, dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def forward(
        self, student: Float[Tensor, "N D"], teacher: Float[Tensor, "N D"], rows: Rows, progress: float
    ) -> Float[Tensor, "N"]:
        with torch.autocast(student.device.type, enabled=False):
            queries = F.normalize(at_least_float32(student), dim=1)
            keys = F.normalize(at_least_float32(teacher.detach()), dim=1)
            positive = (queries * keys).sum(1, keepdim=True)
            logits = torch.cat([positive, queries @ self.keys.T], 1) / self.config.temperature
            return torch.logsumexp(logits, 1) - logits[:, 0]

    def carry(self, teacher: Float[Tensor, "N D"], images: int) -> Float[Tensor, "B D"]:
        return F.normalize(at_least_float32(teacher).unflatten(0, (images, -1)).mean(1), dim=1)

    def update(self, carries: list[Tensor]) -> None:
        new = gather_equal(torch.cat(carries))
        at = (self.place + torch.arange(len(new), device=new.device)) % self.config.size
        self.keys.index_copy_(0, at, new.to(self.keys.dtype))
        self.place.add_(len(new)).remainder_(self.config.size)
