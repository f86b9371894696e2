"""Training: configuration, loading, the loop, checkpoints and the log."""

from d3ssl.train.config import CanvasConfig, ModelConfig, RunConfig, RuntimeConfig, TrainConfig
from d3ssl.train.log import read_log, training_seconds
from d3ssl.train.pretrain import pretrain

__all__ = [
    "CanvasConfig",
    "ModelConfig",
    "RunConfig",
    "RuntimeConfig",
    "TrainConfig",
    "pretrain",
    "read_log",
    "training_seconds",
]
