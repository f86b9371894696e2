"""TensorBoard's events in RUN/tensorboard."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import ClassVar

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]  # generated when imported
from tensorboardX.summary import scalar

from d3ssl.train.log.target import Start, Target

FLUSH_S = 30.0
"""Seconds between two times that the events are forced onto the disk; the end of a training does it too."""


class TensorBoard(Target):
    """Without the thread and the queue of tensorboardX's ``SummaryWriter``: its thread dies of a full disk, and whoever
    fills the queue then waits forever. What other files of the folder say of steps behind the start is hidden."""

    title: ClassVar[str] = "TensorBoard"
    package: ClassVar[str] = "tensorboardX"
    remedy: ClassVar[str] = "free some space or make RUN/tensorboard writable"

    def __init__(self, start: Start) -> None:
        folder = start.run / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"))
        self._flushed = 0.0
        self._file.write_event(_event(start.step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._file.write_event(_event(step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed >= FLUSH_S:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        try:
            self._file.close()
        except Exception:
            with suppress(Exception):  # it tries to write what is left once more
                self._file._py_recordio_writer.close()
            raise


def _event(step: int, **what: object) -> Event:
    return Event(step=step, wall_time=time.time(), **what)
