"""The few collectives the rest needs, each of which is also right with one process and no process group."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

T = TypeVar("T")


def is_active() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    return dist.get_world_size() if is_active() else 1


def collective_device() -> str:
    """Where a tensor has to be for the collectives."""
    return "cuda" if is_active() and dist.get_backend() == "nccl" else "cpu"


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum over the processes, without gradient; the input is left unchanged."""
    value = value.detach().clone()
    if is_active():
        dist.all_reduce(value)
    return value


def all_reduce_mean(value: Tensor) -> Tensor:
    """Mean over the processes, without gradient."""
    return all_reduce_sum(value) / world_size() if is_active() else value.detach()


def gather_rows(rows: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "M ..."]:
    """Concatenate the rows of all processes in rank order (numbers of rows may differ), without gradient."""
    rows = rows.detach()
    if not is_active():
        return rows
    counts = torch.zeros(world_size(), dtype=torch.int64, device=rows.device)
    counts[rank()] = rows.shape[0]
    dist.all_reduce(counts)
    sizes = counts.tolist()
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: rows.shape[0]] = rows
    gathered = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(gathered, padded)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])


def gather_equal(rows: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "M ..."]:
    """Concatenate the rows of all processes in rank order, as many of each, without gradient: one message."""
    rows = rows.detach()
    if not is_active():
        return rows
    gathered = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(gathered, rows.contiguous())
    return torch.cat(gathered)


def gather_list(values: list[T]) -> list[T]:
    """Concatenate the lists (of what can be pickled) of all processes in rank order."""
    if not is_active():
        return list(values)
    every: list[list[T]] = [[] for _ in range(world_size())]
    dist.all_gather_object(every, values)
    return [value for own in every for value in own]


def barrier() -> None:
    if is_active():
        dist.barrier()
