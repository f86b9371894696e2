"""Weights & Biases: a run in the project WANDB_PROJECT (d3ssl), online or, with WANDB_MODE=offline, in RUN/wandb.

Every start of a training is a run of its own; those of one folder are one group. Nothing but options and figures is
sent: no code, no console, no facts about the machine, no reports of errors.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, ClassVar

from d3ssl.train.log.target import Start, Target


class WeightsAndBiases(Target):
    """See above."""

    title: ClassVar[str] = "Weights & Biases"
    package: ClassVar[str] = "wandb"
    remedy: ClassVar[str] = "log in with `wandb login`, or set WANDB_MODE=offline"

    def __init__(self, start: Start) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb: Any = importlib.import_module("wandb")
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("nobody is logged in")
        quiet = wandb.Settings(
            console="off",
            silent=True,
            save_code=False,
            disable_git=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
        )
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "d3ssl"),
            name=start.title,
            group=start.run.resolve().name,
            dir=str(start.run),
            config=start.options,
            reinit="create_new",
            settings=quiet,
        )

    def write(self, step: int, figures: dict[str, float]) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()
