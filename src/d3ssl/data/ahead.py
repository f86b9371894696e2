"""Reading ahead: threads decode while the caller works (decoders release Python's lock)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from d3ssl.errors import InputError

Read = TypeVar("Read")


def read_ahead(jobs: Iterable[Callable[[], Read]], workers: int, ahead: int) -> Iterator[Read | InputError]:
    """What the jobs give, in their order, done by threads while the caller works. An InputError is given, not raised.

    Args:
        workers: threads; 0: one a core.
        ahead: jobs that may be done before they are needed.
    """

    def attempt(job: Callable[[], Read]) -> Read | InputError:
        try:
            return job()
        except InputError as error:
            return error

    waiting: deque[Future[Read | InputError]] = deque()
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(attempt, job))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
