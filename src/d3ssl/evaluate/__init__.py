"""What frozen features are good for: tasks on labelled data."""

from d3ssl.evaluate.features import ObjectFeatures, extract_objects
from d3ssl.evaluate.knn import object_knn
from d3ssl.evaluate.linear import LinearProbe, linear_probe
from d3ssl.evaluate.objects import ObjectsConfig, evaluate_objects

__all__ = [
    "LinearProbe",
    "ObjectFeatures",
    "ObjectsConfig",
    "evaluate_objects",
    "extract_objects",
    "linear_probe",
    "object_knn",
]
