"""Objects named from frozen region features: nearest neighbours, a linear probe, few shots."""

from d3ssl.evaluate.objects.config import ObjectsConfig
from d3ssl.evaluate.objects.run import ObjectsTask, evaluate_objects

__all__ = ["ObjectsConfig", "ObjectsTask", "evaluate_objects"]
