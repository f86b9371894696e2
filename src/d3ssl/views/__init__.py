"""Views: from the canvas to what the networks see. A view is a chain of operations (``ViewSpec``)."""

from d3ssl.views.maker import DrawnViews, ViewMaker
from d3ssl.views.ops.context_cutout import context_cutout
from d3ssl.views.ops.cutout import region_collaborative_cutout
from d3ssl.views.ops.mixing import mix_background, sample_partners
from d3ssl.views.ops.photometric import SOCO_X1, SOCO_X2
from d3ssl.views.ops.shift import shift_foreground
from d3ssl.views.view import RegionsSpec, ViewsConfig, ViewSpec

__all__ = [
    "SOCO_X1",
    "SOCO_X2",
    "DrawnViews",
    "RegionsSpec",
    "ViewMaker",
    "ViewSpec",
    "ViewsConfig",
    "context_cutout",
    "mix_background",
    "region_collaborative_cutout",
    "sample_partners",
    "shift_foreground",
]
