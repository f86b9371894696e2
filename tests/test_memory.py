"""Freed memory stays with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from d3ssl.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("not glibc")
for _ in range(20):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM, how]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if "not glibc" in run.stderr:
        pytest.skip("another C library than glibc")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_is_not_fetched_again() -> None:
    """Ten times 64 MiB: pages of 4 KiB, or 2 MiB where the system makes them that large."""
    given_back = faults("give back")
    assert given_back >= 10 * 32
    assert faults("keep") < given_back / 10
