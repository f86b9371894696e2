"""Rows of a step: where they come from, and what each counts in a mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from d3ssl.contracts import Rows, Slots, ViewSet
from d3ssl.distributed import gather_equal, rank
from d3ssl.models.readers import RowKind


def origin_of(slots: Slots, kind: RowKind) -> Rows:
    """Where this process's rows come from. An image that is twice in the batch (at the end of an epoch) counts as one,
    so that nothing is its own negative."""
    if kind != "region":  # of cells, which are compared with themselves only, just as little is asked
        whole = slots.boxes.new_tensor([0.0, 0.0, 1.0, 1.0]).expand(len(slots.index), 4)
        return Rows(image=slots.index, boxes=whole, weight=torch.ones_like(whole[:, 0]))
    count = slots.source.shape[1]
    image = slots.index.repeat_interleave(count)
    return Rows(image=image, boxes=slots.boxes.flatten(0, 1), weight=slots.weight.flatten())


def gather_origin(rows: Rows) -> Rows:
    """The rows of all processes, in one message: float64 holds the integers exactly."""
    known = torch.cat([torch.stack([rows.image.double(), rows.weight.double()], 1), rows.boxes.double()], 1)
    every = gather_equal(known)
    return Rows(
        image=every[:, 0].long(),
        weight=every[:, 1].to(rows.weight.dtype),
        boxes=every[:, 2:].to(rows.boxes.dtype),
        start=rank() * len(known),
    )


def mean_loss(losses: Float[Tensor, "N"], kind: RowKind, views: ViewSet) -> Float[Tensor, ""]:
    """Mean over the rows of all processes, times their number; every process has as many images."""
    if kind != "region":
        return losses.mean()
    return (losses * views.slots.weight.flatten()).sum() * views.scale


def mean_row(rows: Float[Tensor, "M D"], origin: Rows, kind: RowKind) -> Float[Tensor, "D"]:
    """Mean of the teacher's rows, each as it counts."""
    if kind != "region":
        return rows.mean(0)
    weight = origin.weight.to(rows.dtype)
    return weight @ rows / weight.sum().clamp(min=torch.finfo(rows.dtype).tiny)


def most_similar(student: Float[Tensor, "N C"], teacher: Float[Tensor, "N C"], images: int) -> Int64[Tensor, "N"]:
    """For each of the student's rows the number of the teacher's row of the same image with the highest cosine.

    Args:
        student, teacher: the backbones' features of as many rows of each image, image by image.
    """
    one, other = (F.normalize(rows.unflatten(0, (images, -1)), dim=2) for rows in (student, teacher))
    best = torch.bmm(one, other.transpose(1, 2)).argmax(2)
    first = torch.arange(images, device=best.device)[:, None] * best.shape[1]
    return (first + best).flatten()
