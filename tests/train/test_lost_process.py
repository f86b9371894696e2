"""A process that is stopped does not make the others wait forever: they end with an error that names it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from multiprocessing.connection import Connection

import pytest
import torch
import torch.distributed as dist

from d3ssl.errors import D3sslError
from d3ssl.train.process import process_group


def work(rank: int, world: int, port: int, lost: int, how: int, pipe: Connection) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        with process_group(torch.device("cpu"), patience_min=0.05):
            dist.all_reduce(torch.ones(3))
            if rank == lost:
                os.kill(os.getpid(), how)
            for _ in range(50):
                dist.all_reduce(torch.ones(3))
        pipe.send("all is well")
    except D3sslError as error:
        pipe.send(str(error))
    except Exception as error:
        pipe.send(repr(error))


def end_of(world: int, lost: int, how: int) -> dict[int, str]:
    """What the processes end with, but for the one that is lost."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    processes = [
        context.Process(target=work, args=(rank, world, port, lost, how, pipes[rank][1])) for rank in range(world)
    ]
    for process in processes:
        process.start()
    try:
        deadline = time.monotonic() + 120
        ends = {}
        for rank in range(world):
            if rank != lost:
                assert pipes[rank][0].poll(max(0.0, deadline - time.monotonic())), f"rank {rank} still waits"
                ends[rank] = pipes[rank][0].recv()
        return ends
    finally:
        for process in processes:
            process.kill()
            process.join()


@pytest.mark.slow
@pytest.mark.parametrize(("world", "lost"), [(2, 1), (3, 2), (2, 0)])
def test_the_one_that_is_stopped_is_named(world: int, lost: int) -> None:
    ends = end_of(world, lost, signal.SIGSTOP)
    named = [text for text in ends.values() if f"the process of rank {lost} does not answer" in text]
    assert named, ends
    assert all(
        "does not answer within 0.05 minutes or is gone" in text and "--resume" in text for text in ends.values()
    )


@pytest.mark.slow
def test_one_that_was_killed_is_an_error_too() -> None:
    (text,) = end_of(2, 1, signal.SIGKILL).values()
    assert "one of the processes does not answer" in text  # torchrun says which
