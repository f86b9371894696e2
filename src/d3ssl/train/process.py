"""One process or many: the process group of torchrun, the device, and a polite end."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from d3ssl.distributed import is_active
from d3ssl.errors import D3sslError, InputError

PATIENCE_MIN = 20.0
"""Minutes. Others wait for the first process while it measures and writes what a run ends with."""
_LOST = ("Timed out waiting", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""What gloo says when another process does not answer or is gone."""
_ROLL_CALL_S = 10
_RANKS = re.compile(r"[Rr]anks? ([\d, ]+) failed to pass monitoredBarrier")


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
def process_group(device: torch.device, patience_min: float = PATIENCE_MIN) -> Iterator[None]:
    """Join torchrun's process group (NCCL on GPUs, gloo on CPUs), if there is one and it is not joined yet.

    Args:
        patience_min: minutes that the processes wait for one of them that does not answer.

    Raises:
        D3sslError: one is stopped, hangs or is gone; names it. (NCCL ends the program by itself, with a message of its
            own.)
    """
    if torchrun_rank()[1] == 1 or is_active():
        yield
        return
    patience = timedelta(minutes=patience_min)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    # Through connections of their own the others are asked who is there: those that failed cannot be used again.
    roll_call = dist.new_group(backend="gloo", timeout=patience)
    assert isinstance(roll_call, dist.ProcessGroup)  # all processes are in it
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _LOST):
            raise
        raise _lost(roll_call, patience_min) from error
    finally:
        dist.destroy_process_group()


def _lost(roll_call: dist.ProcessGroup, patience_min: float) -> D3sslError:
    """Who of the processes does not answer any more."""
    try:
        dist.monitored_barrier(roll_call, timeout=timedelta(seconds=_ROLL_CALL_S), wait_all_ranks=True)
        who = "one of the processes"  # back again, too late
    except RuntimeError as error:
        found = _RANKS.search(str(error))
        who = f"the process of rank {found[1].strip(' ,')}" if found else "one of the processes"
        if found is None and dist.get_rank() > 0 and "rank 0" in str(error).lower():
            who = "the process of rank 0"  # who calls the roll
    remedy = (
        "look at what its machine says (stopped, killed for memory, network); then go on with --resume. If it is only "
        "slow, raise --runtime.patience."
    )
    return D3sslError(f"{who} does not answer within {patience_min:g} minutes or is gone", remedy=remedy)


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
