"""Operations that views are made of, one per file: options, ``sample``, ``apply``."""

from d3ssl.views.ops.alone import Alone
from d3ssl.views.ops.context_cutout import ContextCutout
from d3ssl.views.ops.crop import Crop
from d3ssl.views.ops.cutout import RegionCutout
from d3ssl.views.ops.mixing import FillHoles, MixBackground
from d3ssl.views.ops.operation import Operation
from d3ssl.views.ops.paste import PasteObjects
from d3ssl.views.ops.patches import HidePatches, MixPatches
from d3ssl.views.ops.photometric import Photometric
from d3ssl.views.ops.shift import Shift

__all__ = [
    "Alone",
    "ContextCutout",
    "Crop",
    "FillHoles",
    "HidePatches",
    "MixBackground",
    "MixPatches",
    "Operation",
    "PasteObjects",
    "Photometric",
    "RegionCutout",
    "Shift",
]
