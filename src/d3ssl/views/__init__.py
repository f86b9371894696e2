"""Views: from the canvas to what the networks see, with the three augmentation strategies of D³SSL."""

from d3ssl.views.config import ViewsConfig
from d3ssl.views.cutout import context_cutout, region_collaborative_cutout
from d3ssl.views.d3views import D3Views, ViewParameters
from d3ssl.views.geometry import GeometryConfig
from d3ssl.views.mixing import mix_background, sample_partners
from d3ssl.views.photometric import SOCO_X1, SOCO_X2, PhotometricConfig
from d3ssl.views.shift import shift_foreground

__all__ = [
    "SOCO_X1",
    "SOCO_X2",
    "D3Views",
    "GeometryConfig",
    "PhotometricConfig",
    "ViewParameters",
    "ViewsConfig",
    "context_cutout",
    "mix_background",
    "region_collaborative_cutout",
    "sample_partners",
    "shift_foreground",
]
