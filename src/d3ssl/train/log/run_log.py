"""The log of a run: log.jsonl, and the same figures for every target that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from d3ssl.errors import InputError, nearest
from d3ssl.train.log.beside import Beside
from d3ssl.train.log.jsonl import JsonLines
from d3ssl.train.log.mlflow import MLflow
from d3ssl.train.log.target import Start, Target
from d3ssl.train.log.tensorboard import TensorBoard
from d3ssl.train.log.wandb import WeightsAndBiases

TARGETS: dict[str, type[Target]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
"""What figures can be logged to beside log.jsonl."""


def check_targets(names: Sequence[str]) -> None:
    """Raise InputError for a target that is not known or not installed."""
    for name in names:
        if name not in TARGETS:
            raise InputError(f"runtime.log_to names '{name}', which is not known", remedy=nearest(name, TARGETS))
        if find_spec(TARGETS[name].package) is None:
            problem = f"runtime.log_to names {name}, which is not installed"
            raise InputError(problem, remedy=f"pip install 'd3ssl[{name}]', or leave it out.")


class RunLog:
    """Writes the figures of steps to log.jsonl and to the targets; only log.jsonl can fail."""

    def __init__(
        self, run: Path, start: int, targets: Sequence[str] = (), options: dict[str, Any] | None = None
    ) -> None:
        """Args:
        start: steps that were done before; what the log says of later ones is cut.
        targets: names in ``TARGETS``.
        options: of the run, by their dotted names; for the targets that show them.
        """
        self._lines = JsonLines(run, start)
        told = Start(run=run, step=start, options=options or {})
        self._targets = [Beside(TARGETS[name], told) for name in dict.fromkeys(targets)]

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Raises:
        D3sslError: the disk is full, so that log.jsonl cannot be written.
        """
        self._lines.write(step, figures)
        grouped = {name.replace("loss_", "loss/"): value for name, value in figures.items()}
        for target in self._targets:
            target.write(step, grouped)

    def close(self) -> None:
        for target in self._targets:
            target.close()
        self._lines.close()
