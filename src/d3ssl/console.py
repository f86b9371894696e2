"""What people see while a command works: progress with ETA, tables, warnings. All of it goes to standard error,
so that standard output stays free for what programs read."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

console = Console(stderr=True, highlight=False)
_LINE_EVERY_S = 15.0


class Ticker:
    """Progress of one piece of work: ``advance`` it; ``note`` shows a short text (a loss, a rate) beside the bar."""

    def __init__(self, label: str, total: int, start: int, progress: Progress | None) -> None:
        self.label, self.total, self.done, self.start = label, total, start, start
        self._progress = progress
        self._task = progress.add_task(label, total=total, completed=start, note="") if progress else None
        self._note = ""
        self._begin = self._last = time.monotonic()

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        self.done += steps
        self._note = note if note is not None else self._note
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self.done, note=self._note)
            return
        now = time.monotonic()
        if now - self._last >= _LINE_EVERY_S:  # no terminal: a line now and then, for logs
            self._last = now
            left = (now - self._begin) / max(self.done - self.start, 1) * (self.total - self.done)
            console.print(f"{self.label}: {self.done}/{self.total}, {_clock(left)} left  {self._note}", markup=False)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"


@contextmanager
def progress(label: str, total: int, start: int = 0) -> Iterator[Ticker]:
    """Show a bar with count, elapsed time and ETA on a terminal; a line every 15 s elsewhere."""
    if not console.is_terminal:
        ticker = Ticker(label, total, start, None)
        yield ticker
        took = _clock(time.monotonic() - ticker._begin)
        console.print(f"{label}: {ticker.done}/{total} in {took}  {ticker._note}", markup=False)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Ticker(label, total, start, bar)


def say(text: str) -> None:
    """A plain line for people; one that is longer than the window is not broken, so that paths can be copied."""
    console.print(text, markup=False, soft_wrap=True)


@functools.cache
def say_once(text: str) -> None:
    """``say`` what need not be said again in this process, such as how a file is read each time it is read."""
    say(text)


def warn(problem: str, remedy: str | None = None) -> None:
    """A warning with what to do about it."""
    console.print(f"warning: {problem}" + (f"\n  What to do: {remedy}" if remedy else ""), style="yellow", markup=False)


def show_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, words: bool = False) -> None:
    """Print a table on standard output; the first column is the row's name, the others are right-aligned.

    Args:
        words: the cells are words instead of figures: all columns are left-aligned, and long cells wrapped.
    """
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 or words else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(file=sys.stdout, highlight=False).print(table)
