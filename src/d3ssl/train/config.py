"""The configuration of a run: the parts' own configurations side by side, saved with the run as YAML."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from d3ssl.errors import InputError
from d3ssl.methods import DecoupleConfig, DepositionConfig, Host, MethodConfig, Plan, find_host, make_plan
from d3ssl.regions.config import RegionsConfig
from d3ssl.train.log import check_targets
from d3ssl.train.optimizer import OptimizerConfig
from d3ssl.train.schedule import ScheduleConfig
from d3ssl.views.view import ViewsConfig


@dataclass(frozen=True, kw_only=True)
class CanvasConfig:
    """How an image is read: one decode and one resize to a square canvas, which travels to the device."""

    size: int = 256
    """Side of the canvas, px. A little above the view's side, since x1 is the whole image."""
    channels: int = 3
    """Channels of the images; a grey image is repeated to 3."""
    max_candidates: int = 32
    """Candidate regions per image that travel with the canvas; drawn again at random for every visit."""
    held_out: int = 0
    """Images that are never trained on, drawn by the seed: post-training measures its strengths on them."""
    max_bad_share: float = 0.01
    """The run fails once more than this share of the images seen could not be read."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network that is trained."""

    backbone: str | None = None
    """Name of a timm network (`timm.list_models()`): a CNN with feature maps or a ViT. None: that of the weights, or
    resnet50."""
    weights: str | None = None
    """Weights to start from: a run, an exported file, a file of weights of the backbone, timm:NAME:pretrained,
    torchvision:NAME:FILE, hf:FOLDER. None: random ones."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The length and the size of the training. Everything here changes the result."""

    steps: int | None = None
    """Optimiser steps. None: from ``epochs``."""
    epochs: float = 400.0
    """Passes over the data set, when ``steps`` is None (arXiv 2106.02637: 100 or 400 on COCO)."""
    batch_size: int = 256
    """Images an optimiser step, over all processes and accumulated parts: independent of the number of GPUs."""
    accumulate: int = 1
    """Parts a step is divided into, one after the other, to save memory. Batch norm, negatives and mixing then see
    one part at a time."""
    seed: int = 0
    """Decides the initial weights, the order of the images and every view."""
    clip_grad_norm: float | None = None
    """Gradient norm above which gradients are scaled down; None: never."""
    sync_batch_norm: bool = True
    """Batch statistics over all processes (when there are several)."""
    export: Literal["student", "teacher"] = "student"
    """Which network's backbone is written to backbone.safetensors (arXiv 2006.07733 and 2106.02637: the student's)."""


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How the run is carried out. Nothing here should change the result by more than rounding."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU if there is one."""
    workers: int | None = None
    """Loader processes a training process; None: 12 at most beside a GPU, 1 on a CPU."""
    log_every: int = 10
    """Steps between two lines of log.jsonl."""
    save_every: int = 500
    """Steps between two checkpoints."""
    compile: bool = False
    """torch.compile the backbones (about 1.15 times faster on CPUs after a minute; rounding may differ)."""
    bf16: bool = True
    """bfloat16 autocast on GPUs; CPUs always compute in float32."""
    diagnose_every: int | None = None
    """Steps between two small diagnoses (context and position sensitivity of the student, on procedural objects) in the
    log; None: none. One costs less than a training step (benchmarks/training_step.py)."""
    keep_rows: bool = True
    """Keep a frozen teacher's rows of regions that look the same at every visit (post-training); 4·D bytes each."""
    patience: float = 20.0
    """Minutes that processes wait for one of them that does not answer, before the run ends with an error."""
    tensorboard: bool = True
    """Also write TensorBoard events to RUN/tensorboard."""
    log_to: tuple[str, ...] = ()
    """Also log to these: wandb, mlflow (docs/logs.md). One that fails is warned of; the training goes on."""

    @property
    def log_targets(self) -> tuple[str, ...]:
        """All places beside log.jsonl."""
        return (*(("tensorboard",) if self.tensorboard else ()), *self.log_to)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that ``d3ssl pretrain`` needs."""

    data: str
    """A folder of images, data of COCO, Pascal VOC or ADE20K, a list of images (.txt), or tar shards: docs/data.md."""
    out: str
    """The run's folder: config.yaml, log.jsonl, checkpoint.pt, backbone.safetensors, manifest.json."""
    regions: str | None = None
    """Regions file of ``d3ssl regions``; None: computed as ``proposals`` says and kept in the run's folder."""
    proposals: RegionsConfig = field(default_factory=RegionsConfig)
    canvas: CanvasConfig = field(default_factory=CanvasConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    host: Any = None
    """The options of ``method.host`` (of its class in ``d3ssl.methods.HOSTS``); None: its defaults."""
    dc: DecoupleConfig = field(default_factory=DecoupleConfig)
    dp: DepositionConfig = field(default_factory=DepositionConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        if self.host is None:
            object.__setattr__(self, "host", find_host(self.method.host)())

    @property
    def plan(self) -> Plan:
        """The method as a plan, checked.

        Raises:
            InputError: it cannot be carried out.
        """
        host: Host = self.host
        return make_plan(self.method, host, self.dc, self.dp, self.views.size, self.views)


FREE_TO_CHANGE = (
    "out",
    "data",
    "regions",
    "runtime",
    "proposals.workers",
    "proposals.max_bad_share",
    "canvas.max_bad_share",
)
"""Keys that may differ when a run is resumed: they do not change its result (the data's digest is checked apart)."""


def as_dict(config: RunConfig) -> dict[str, Any]:
    """Plain data, tuples as lists: as it is written to YAML and into checkpoints."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` → ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """``["train.steps: 100 → 200", …]`` for the keys that change a run's result and differ.

    How regions are found counts only where the run finds them itself; a given file is known by its content.
    """
    given = one["regions"] is not None and other["regions"] is not None
    free_keys = (*FREE_TO_CHANGE, "proposals") if given else FREE_TO_CHANGE
    one, other = flatten(one), flatten(other)

    def is_free(key: str) -> bool:
        return any(key == free or key.startswith(f"{free}.") for free in free_keys)

    keys = sorted(one.keys() | other.keys())
    return [f"{k}: {one.get(k)} → {other.get(k)}" for k in keys if one.get(k) != other.get(k) and not is_free(k)]


def num_steps(config: TrainConfig, num_images: int) -> int:
    """Optimiser steps of the run."""
    if config.steps is not None:
        return config.steps
    return math.ceil(config.epochs * num_images / config.batch_size)


def check(config: RunConfig, num_processes: int) -> None:
    """Refuse what cannot work, before anything is computed.

    Raises:
        InputError: with the key and the remedy.
    """
    train = config.train
    if train.accumulate < 1:
        raise InputError(f"train.accumulate is {train.accumulate}", remedy="set it to 1 or more.")
    parts = num_processes * train.accumulate
    if train.batch_size < 2 * parts or train.batch_size % parts:
        problem = f"train.batch_size {train.batch_size} does not divide into {parts} parts of two images or more"
        raise InputError(problem, remedy="it counts all processes and accumulated parts: choose a multiple.")
    if config.canvas.max_candidates < config.views.regions_per_image:
        problem = f"canvas.max_candidates {config.canvas.max_candidates} is below views.regions_per_image"
        raise InputError(problem, remedy="raise it: regions are chosen among the candidates.")
    _check_ranges(config)
    check_targets(config.runtime.log_targets)
    plan = config.plan
    plan.check_batch(train.batch_size)
    if plan.needs_masks and config.canvas.max_candidates > 255:
        raise InputError("canvas.max_candidates is above 255", remedy="label maps hold 255 regions at most.")


def _check_ranges(config: RunConfig) -> None:
    train, runtime = config.train, config.runtime
    rules = {
        "train.steps": (train.steps, train.steps is None or train.steps >= 1, "1 or more"),
        "train.epochs": (train.epochs, train.epochs > 0, "above 0"),
        "train.clip_grad_norm": (
            train.clip_grad_norm,
            train.clip_grad_norm is None or train.clip_grad_norm > 0,
            "above 0, or null for no limit",
        ),
        "runtime.workers": (runtime.workers, (runtime.workers or 0) >= 0, "0 or more"),
        "runtime.log_every": (runtime.log_every, runtime.log_every >= 1, "1 or more"),
        "runtime.save_every": (runtime.save_every, runtime.save_every >= 1, "1 or more"),
        "runtime.diagnose_every": (
            runtime.diagnose_every,
            runtime.diagnose_every is None or runtime.diagnose_every >= 1,
            "1 or more, or null for never",
        ),
        "runtime.patience": (runtime.patience, runtime.patience > 0, "above 0 minutes"),
        "canvas.size": (config.canvas.size, config.canvas.size >= 8, "8 or more"),
        "canvas.channels": (config.canvas.channels, config.canvas.channels >= 1, "1 or more"),
        "canvas.held_out": (config.canvas.held_out, config.canvas.held_out >= 0, "0 or more"),
        "canvas.max_bad_share": (config.canvas.max_bad_share, 0 <= config.canvas.max_bad_share <= 1, "0..1"),
    }
    for name, (value, holds, range_) in rules.items():
        if not holds:
            raise InputError(f"{name} is {value}", remedy=f"set it to {range_}.")
