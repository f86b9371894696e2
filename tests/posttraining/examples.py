"""A post-training small enough for a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d3ssl.train import RunConfig
from d3ssl.train.recipe import recipe

SMALL: dict[str, Any] = {
    "model__weights": "timm:test_resnet:random:1",
    "views__size": 64,
    "canvas__size": 64,
    "canvas__held_out": 20,
    "views__min_side": 4.0,
    "views__min_visible": 0.3,
    "proposals__method": "grid",
    "host__photometric__blur_p": 0.0,
    "train__batch_size": 8,
    "schedule__warmup_steps": 0,
    "runtime__tensorboard": False,
    "runtime__diagnose_every": None,
    "runtime__workers": 0,
}


def config(tiles: Path, out: Path, steps: int = 3, **more: Any) -> RunConfig:
    return recipe("posttrain", data=str(tiles), out=str(out), train__steps=steps, **(SMALL | more))


BOXES: dict[str, Any] = {"host__teacher": "whole", "method__decouple": False}
"""A plan without masks."""
