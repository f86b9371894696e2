"""Methods: a plan says which rows of which views are compared, and one learner trains any plan."""

from d3ssl.methods.config import MethodConfig, make_plan
from d3ssl.methods.hosts import HOSTS, Host, find_host
from d3ssl.methods.learner import Learner, StepOutput
from d3ssl.methods.modules import DecoupleConfig, DepositionConfig, decouple, deposition
from d3ssl.methods.plan import Objective, Pair, Plan

__all__ = [
    "HOSTS",
    "DecoupleConfig",
    "DepositionConfig",
    "Host",
    "Learner",
    "MethodConfig",
    "Objective",
    "Pair",
    "Plan",
    "StepOutput",
    "decouple",
    "deposition",
    "find_host",
    "make_plan",
]
