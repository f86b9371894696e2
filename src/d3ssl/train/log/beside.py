"""Targets of the log on threads of their own, so that none of them stops a training or keeps it waiting."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress

from d3ssl.console import warn
from d3ssl.train.log.target import Start, Target

WAITING = 1000
"""Lines that may wait for a slow target; with one more it is given up."""
CLOSE_S = 20.0
"""How long the end of a training waits for a target to write what is left."""


class Beside:
    """Hands figures to one target. The first failure is warned of, and the target gets nothing from then on.

    The thread starts with the first figures: the loader's processes are forked before, and a fork copies no thread but
    whatever locks it holds.
    """

    def __init__(self, kind: type[Target], start: Start) -> None:
        self.kind, self.start = kind, start
        self._lines: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._is_over, self._lock = False, threading.Lock()

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Never raises, never waits."""
        if self._is_over:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"log to {self.kind.title}", daemon=True)
            self._thread.start()
        try:
            self._lines.put_nowait((step, figures))
        except queue.Full:
            self._give_up(f"{WAITING} lines wait for it")

    def close(self) -> None:
        """Wait until what is left is written, at most ``CLOSE_S``. Never raises."""
        if self._thread is None:
            return
        if not self._is_over:
            with suppress(queue.Full):
                self._lines.put_nowait(None)
        self._thread.join(0.0 if self._is_over else CLOSE_S)
        if self._thread.is_alive():
            self._give_up(f"it does not end within {CLOSE_S:.0f} s")

    def _work(self) -> None:
        target: Target | None = None
        try:
            target = self.kind(self.start)
            while (line := self._lines.get()) is not None and not self._is_over:
                target.write(*line)
        except Exception as error:
            self._give_up(_reason(error))
        if target is not None:
            try:
                target.close()
            except Exception as error:
                self._give_up(_reason(error))

    def _give_up(self, reason: str) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        remedy = f"{self.kind.remedy}; until the run is resumed, its log.jsonl has the figures."
        warn(f"{self.kind.title} cannot be written to ({reason}); the training goes on", remedy)


def _reason(error: Exception) -> str:
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error) or type(error).__name__
