"""TensorBoard's events beside the log. They are a convenience: where they cannot be written, the training goes on."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]  # generated when imported
from tensorboardX.summary import scalar

from d3ssl.console import warn

FLUSH_S = 30.0
"""Seconds between two times that the events are forced onto the disk; the end of a training does it too."""


class TensorBoardWriter:
    """Writes RUN/tensorboard; the first failure is warned of, and nothing is written from then on.

    Without the thread and the queue of tensorboardX's ``SummaryWriter``: its thread dies of a full disk, and whoever
    fills the queue then waits for ever.

    Args:
        folder: is made.
        first_step: what other files of the folder say of this step and later ones is hidden.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self.folder = folder
        self._file: EventsWriter | None = None
        self._flushed = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = EventsWriter(str(folder / "events"))
            self._file.write_event(_event(first_step, session_log=SessionLog(status=SessionLog.START)))
        except Exception as error:
            self._give_up(error)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Add the figures of a step. Never raises."""
        if self._file is None:
            return
        try:
            for name, value in figures.items():
                self._file.write_event(_event(step, summary=scalar(name, value)))
            if time.monotonic() - self._flushed >= FLUSH_S:
                self._file.flush()
                self._flushed = time.monotonic()
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Write what is left. Never raises."""
        if self._file is None:
            return
        try:
            self._file.close()
            self._file = None
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        remedy = "free some space or make the folder writable; until the run is resumed, its log.jsonl has the figures."
        warn(f"{self.folder}: TensorBoard's events cannot be written ({reason}); the training goes on", remedy)
        if self._file is not None:
            with suppress(Exception):  # it tries to write what is left once more
                self._file._py_recordio_writer.close()
        self._file = None


def _event(step: int, **what: object) -> Event:
    return Event(step=step, wall_time=time.time(), **what)
