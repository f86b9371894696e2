"""Networks: backbones of any library and their weights on disk, the readers of their maps, heads, and the teacher."""

from d3ssl.models.artifact import save_backbone, save_like_source
from d3ssl.models.backbone import Backbone, create_backbone
from d3ssl.models.interpolation import interpolate
from d3ssl.models.load import load_backbone, start_backbone
from d3ssl.models.roi_align import roi_align

__all__ = [
    "Backbone",
    "create_backbone",
    "interpolate",
    "load_backbone",
    "roi_align",
    "save_backbone",
    "save_like_source",
    "start_backbone",
]
