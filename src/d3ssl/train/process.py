"""One process or many: the process group of torchrun, the device, and a polite end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from d3ssl.distributed import is_active
from d3ssl.errors import InputError


def torchrun_rank() -> tuple[int, int]:
    """(rank, number of processes) as torchrun tells them; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def choose_device(wanted: str) -> torch.device:
    """The device of this process: under torchrun, GPU number LOCAL_RANK."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("runtime.device is cuda, but torch sees no GPU", remedy="check the driver, or use cpu.")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join torchrun's process group (NCCL on GPUs, gloo on CPUs), if there is one and it is not joined yet."""
    if torchrun_rank()[1] == 1 or is_active():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


class StopSignal:
    """Turns SIGTERM and SIGINT into a flag that the next step tells all processes; a second signal ends at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._previous[number] = signal.signal(number, self._receive)
            except ValueError:  # not in the main thread: the embedding program handles signals itself
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, _: object) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
