"""A backbone in the formats of other tools, each verified by loading it there."""

from d3ssl.export.run import Exported, export_backbone
from d3ssl.export.targets import TARGETS

__all__ = ["TARGETS", "Exported", "export_backbone"]
