"""Losses of pairs of rows, one per file; each is a frozen dataclass, so that a plan can name it."""

from d3ssl.methods.losses.info_nce import InfoNce
from d3ssl.methods.losses.loss import Loss, Memory
from d3ssl.methods.losses.prototypes import PrototypeCrossEntropy
from d3ssl.methods.losses.queue import QueueInfoNce
from d3ssl.methods.losses.regression import Regression

__all__ = ["InfoNce", "Loss", "Memory", "PrototypeCrossEntropy", "QueueInfoNce", "Regression"]
