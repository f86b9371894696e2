"""Networks: backbones, the readers of their maps, heads, and the teacher."""

from d3ssl.models.artifact import load_backbone, save_backbone
from d3ssl.models.backbone import Backbone, create_backbone
from d3ssl.models.roi_align import roi_align

__all__ = [
    "Backbone",
    "create_backbone",
    "load_backbone",
    "roi_align",
    "save_backbone",
]
