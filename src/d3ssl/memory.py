"""Memory of this machine and process: how much is free, what is kept for the next step, when the collector runs."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""mallopt(3): how much free memory at the top is given back; how many blocks get memory of their own."""
_NEVER = 2**31 - 1
_CGROUP = "/sys/fs/cgroup"
_CONTAINER = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""Files with a container's limit and what it uses, of control groups 2 and 1."""


@contextmanager
def without_collector() -> Iterator[None]:
    """Millions of small lists and no cycle among them: Python's collector would walk them again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def keep_freed_memory() -> bool:
    """Tell the C library not to give freed memory back to the system, for the rest of this process.

    A training step on a CPU allocates and frees the same maps again and again. glibc returns blocks of megabytes at
    once, and the system fills new ones with zeros, page by page: half of the time of a step of EfficientNet-Lite0 at
    160 px (16 images, one thread: 1.33 s of CPU with, 0.61 s without). The process stays as large as it was at its
    largest. Whoever sets glibc's own variables (``MALLOC_…_``) is left alone.

    Returns:
        Whether it was done: not on other systems or with other C libraries.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(mallopt(_MMAP_MAX, 0))


def free_memory() -> int | None:
    """Bytes that this process could still take: of the machine with its swap, or of the container, whichever is less.
    None: the system does not say it (it is not Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    known = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}
    found = known["MemAvailable"] + known["SwapFree"]
    for limit, used in _CONTAINER:
        try:
            most, now = (Path(_CGROUP, name).read_text(encoding="ascii").strip() for name in (limit, used))
        except OSError:
            continue
        if most.isdecimal() and now.isdecimal():  # "max": no limit
            found = min(found, max(int(most) - int(now) + _reclaimable(), 0))
    return found


def _reclaimable() -> int:
    """Files that the container keeps in memory and would give up."""
    try:
        lines = Path(_CGROUP, "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
