"""Methods: which losses over which views make a training step."""

from d3ssl.methods.config import MethodConfig
from d3ssl.methods.d3ssl import D3ssl, StepOutput

__all__ = ["D3ssl", "MethodConfig", "StepOutput"]
