"""What a training says on its way: the figures of its steps, between two lines of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from d3ssl.console import Ticker, warn
from d3ssl.errors import D3sslError
from d3ssl.methods import Learner, StepOutput
from d3ssl.models.backbone import Backbone
from d3ssl.train.collapse import DRIFT, CollapseWatch, DriftWatch, drift_cosine, effective_rank, embedding_spread
from d3ssl.train.config import RunConfig, as_dict, flatten
from d3ssl.train.log import RunLog

BackboneMeasure = Callable[[Backbone], dict[str, float]]
"""Figures of a backbone, which it leaves as it was."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Figures of one optimiser step."""

    output: StepOutput
    """Of the last accumulated part."""
    loss: float
    """Of this process (the mean over all of them where the step is logged), as are its parts."""
    parts: dict[str, float]
    grad_norm: float
    rows: float
    """Regions that counted, over all processes and parts."""
    figures: dict[str, float]
    """What the learner says of its state."""
    waited_s: float
    stopped: bool
    """Some process was asked to stop."""


@runtime_checkable
class Training(Protocol):
    """What the recorder looks at (``loop.Trainer``)."""

    step: int
    bad_count: int
    optimizer: torch.optim.Optimizer
    learner: Learner

    @property
    def dataset(self) -> Sized: ...

    def is_logged(self, step: int) -> bool: ...


class Recorder:
    """Figures between two lines of the log, and what people see beside the bar."""

    def __init__(self, run: Path, start: int, config: RunConfig, measure: BackboneMeasure | None = None) -> None:
        self.log = RunLog(run, start, config.runtime.log_targets, flatten(as_dict(config)))
        self.config, self.measure, self.drift = config, measure, DriftWatch()
        self._reset()

    def _reset(self) -> None:
        self.begin, self.steps, self.waited = time.perf_counter(), 0, 0.0

    def add(self, trainer: Training, result: StepResult, watch: CollapseWatch, ticker: Ticker | None) -> None:
        self.steps += 1
        self.waited += result.waited_s
        if ticker is not None:
            ticker.advance(1, f"loss {result.loss:.3f}")
        if not trainer.is_logged(trainer.step):
            return
        every = self.config.runtime.diagnose_every
        is_measured = self.measure is not None and every is not None and trainer.step % every == 0
        took = max(time.perf_counter() - self.begin, 1e-9)
        train = self.config.train
        embeddings = result.output.watched[result.output.counted].float()
        drift = drift_cosine(trainer.learner.plan, result.parts)
        figures = {
            "epoch": trainer.step * train.batch_size / len(trainer.dataset),
            "loss": result.loss,
            **result.parts,
            **({} if drift is None else {DRIFT: drift}),
            "embedding_std": embedding_spread(embeddings),
            "effective_rank": effective_rank(embeddings),
            "lr": float(trainer.optimizer.param_groups[0]["lr"]),
            **result.figures,
            "grad_norm": result.grad_norm,
            "images_per_s": self.steps * train.batch_size / took,
            "data_wait_share": self.waited / took,
            "regions_per_image": result.rows / train.batch_size,
            "unreadable_images": float(trainer.bad_count),
        }
        if is_measured:
            figures |= self._diagnose(trainer)
        self.log.write(trainer.step, figures)
        for message in (watch.check(figures["embedding_std"], trainer.step), self.drift.check(drift, trainer.step)):
            if message:
                warn(message)
        self._reset()

    def _diagnose(self, trainer: Training) -> dict[str, float]:
        """What ``measure`` finds, and the seconds it takes. Features that tell nothing must not end the training."""
        assert self.measure is not None
        begin = time.perf_counter()
        try:
            found = self.measure(trainer.learner.backbone)
        except D3sslError as error:
            warn(f"no diagnosis at step {trainer.step}: {error}")
            found = {}
        return {f"diagnosis_{name}": value for name, value in found.items()} | {
            "diagnosis_s": time.perf_counter() - begin
        }

    def close(self) -> None:
        self.log.close()
