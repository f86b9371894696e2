"""A trainer small enough for tests, on canvases in memory."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from d3ssl.methods import MethodConfig
from d3ssl.train.config import CanvasConfig, ModelConfig, RunConfig, RuntimeConfig, TrainConfig
from d3ssl.train.loader import CanvasDataset, LoadedBatch
from d3ssl.train.loop import Trainer
from d3ssl.train.optimizer import OptimizerConfig
from d3ssl.train.schedule import ScheduleConfig
from d3ssl.views.view import ViewsConfig
from tests.methods.examples import HOSTS, NETWORKS
from tests.views.canvases import make_batch


class InMemory(CanvasDataset):
    """Stands for a data set where batches come from elsewhere."""

    def __init__(self) -> None: ...

    def __len__(self) -> int:
        return 100


def make_config(
    host: str = "soco", modules: str = "", *, host_options: dict[str, Any] | None = None, **train: Any
) -> RunConfig:
    return RunConfig(
        data="unused",
        out="unused",
        canvas=CanvasConfig(size=96, max_candidates=6),
        views=ViewsConfig(size=64, regions_per_image=2, min_side=2.0, min_visible=0.1),
        model=ModelConfig(backbone=NETWORKS.get(host, "test_resnet")),
        method=MethodConfig(host=host, decouple="DC" in modules, deposition="DP" in modules),
        host=dataclasses.replace(HOSTS[host], **(host_options or {})),
        optimizer=OptimizerConfig(name="adamw", lr=1e-3),
        schedule=ScheduleConfig(warmup_share=0.2),
        train=TrainConfig(**{"steps": 4, "batch_size": 6, **train}),
        runtime=RuntimeConfig(device="cpu", log_every=2, tensorboard=False, workers=0),
    )


def make_trainer(config: RunConfig) -> Trainer:
    steps = config.train.steps
    assert steps is not None
    return Trainer(config, InMemory(), steps, torch.device("cpu"))


def batches(config: RunConfig) -> Iterator[LoadedBatch]:
    """Without end, each part of a step another."""
    parts, seed = config.train.accumulate, 0
    while True:
        yield LoadedBatch(make_batch(config.train.batch_size // parts, labels=config.plan.needs_masks, seed=seed), ())
        seed += 1
