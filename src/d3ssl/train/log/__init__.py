"""The log of a run: log.jsonl always; TensorBoard, Weights & Biases, MLflow where asked for, one file each."""

from d3ssl.train.log.jsonl import NAME, read_log, training_seconds
from d3ssl.train.log.run_log import TARGETS, RunLog, check_targets

__all__ = ["NAME", "TARGETS", "RunLog", "check_targets", "read_log", "training_seconds"]
