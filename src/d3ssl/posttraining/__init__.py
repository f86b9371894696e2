"""Post-training: start → train → strength → report."""

from d3ssl.posttraining.run import posttrain, posttrain_run, set_strength
from d3ssl.posttraining.strength import Retrieval, propose, retrieve

__all__ = ["Retrieval", "posttrain", "posttrain_run", "propose", "retrieve", "set_strength"]
