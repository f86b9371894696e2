"""d3ssl: dense self-supervised pre-training for images with many objects, and diagnosis of any backbone.

The names below are imported when they are first used, so that ``import d3ssl`` and ``d3ssl --help`` are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d3ssl import diagnose
    from d3ssl.embedding import embed
    from d3ssl.evaluate import evaluate_objects
    from d3ssl.export import export_backbone
    from d3ssl.models.load import load_backbone
    from d3ssl.posttraining import posttrain
    from d3ssl.train import RunConfig, pretrain
    from d3ssl.train.recipe import recipe

__version__ = "0.1.0"
__all__ = [
    "RunConfig",
    "__version__",
    "diagnose",
    "embed",
    "evaluate_objects",
    "export_backbone",
    "load_backbone",
    "posttrain",
    "pretrain",
    "recipe",
]

_HOMES = {
    "RunConfig": "d3ssl.train",
    "embed": "d3ssl.embedding",
    "evaluate_objects": "d3ssl.evaluate",
    "export_backbone": "d3ssl.export",
    "load_backbone": "d3ssl.models.load",
    "posttrain": "d3ssl.posttraining",
    "pretrain": "d3ssl.train",
    "recipe": "d3ssl.train.recipe",
}

_PACKAGES = (
    "data",
    "diagnose",
    "doctor",
    "embedding",
    "evaluate",
    "export",
    "methods",
    "models",
    "regions",
    "train",
    "views",
)


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"d3ssl.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'd3ssl' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
