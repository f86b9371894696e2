"""All image files, by many processes: in order, whatever their number, and in little memory."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from d3ssl.console import progress
from d3ssl.data.place import Place
from d3ssl.data.processes import end_with_parent, num_cores
from d3ssl.doctor.look import FACTS, look_at
from d3ssl.errors import D3sslError

_CHUNK = 64
_FEW = 256
"""Up to so many images are looked at in this process: others need two seconds to start."""
_AHEAD = 3
"""Chunks a process that are handed out at a time, so that neither tasks nor results pile up."""
MAX_MESSAGES = 1000
"""Messages that are kept; of more bad files only the positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What the files say, one entry an image."""

    facts: Shaped[np.ndarray, "images"]
    """Of dtype ``FACTS``."""
    messages: dict[int, str]
    """Position → what is wrong, of the first ``MAX_MESSAGES`` bad files."""


def scan_files(paths: Sequence[Place], workers: int) -> Scan:
    """Look at files.

    Args:
        paths: as in ``ImageSet.paths``.
        workers: processes; 0: one for each core.

    Raises:
        D3sslError: a process was killed.
    """
    facts = np.zeros(len(paths), dtype=FACTS)
    messages: dict[int, str] = {}
    chunks = [range(start, min(start + _CHUNK, len(paths))) for start in range(0, len(paths), _CHUNK)]
    workers = min(workers or num_cores(), len(chunks))
    bad = 0
    with progress("looking at images", len(paths)) as ticker:
        here = workers <= 1 or len(paths) <= _FEW
        found = map(_look_at_all, ([paths[i] for i in chunk] for chunk in chunks)) if here else None
        for chunk, (part, wrong) in zip(chunks, found or _by_processes(paths, chunks, workers), strict=True):
            facts[chunk.start : chunk.stop] = part
            bad += len(wrong)
            for place, message in wrong.items():
                if len(messages) < MAX_MESSAGES:
                    messages[chunk.start + place] = message
            ticker.advance(len(chunk), f"{bad} unreadable" if bad else None)
    return Scan(facts=facts, messages=messages)


def _look_at_all(paths: list[Place]) -> tuple[np.ndarray, dict[int, str]]:
    facts, wrong = np.zeros(len(paths), dtype=FACTS), {}
    for place, path in enumerate(paths):
        facts[place], message = look_at(path)
        if message is not None:
            wrong[place] = message
    return facts, wrong


def _by_processes(
    paths: Sequence[Place], chunks: list[range], workers: int
) -> Iterator[tuple[np.ndarray, dict[int, str]]]:
    context = multiprocessing.get_context("spawn")  # forking a process that has threads may lock up
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
    running: deque[Future] = deque()
    try:
        for chunk in chunks:
            running.append(pool.submit(_look_at_all, [paths[i] for i in chunk]))
            if len(running) >= _AHEAD * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    except BrokenProcessPool as error:
        raise D3sslError("a process that looked at images was killed", remedy="use fewer --workers.") from error
    finally:
        pool.shutdown(cancel_futures=True)
