"""Selective search (Uijlings et al., "Selective Search for Object Recognition", IJCV 2013) at a reduced size.

The strategies are the product of colour spaces, thresholds of the first segmentation and similarities, as in the
paper's "fast" mode. One plane of edges is sorted for each colour space and shared by its segmentations; the histograms
of a segmentation are shared by its groupings, which take less than a millisecond each.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32, UInt8

from d3ssl.regions.colour import ColourSpace, channel_planes, convert
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.grouping import Weights, group
from d3ssl.regions.histograms import describe, texture_bins
from d3ssl.regions.segmentation import segment, smooth, sorted_edges

SIMILARITIES: tuple[Weights, ...] = ((1.0, 1.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.0))
"""Colour + texture + size + fill, and the last three (the paper's "fast" mode)."""
_SPACES: dict[str, tuple[ColourSpace, ...]] = {"lab": ("lab",), "hsv": ("hsv",), "both": ("lab", "hsv")}


def selective_search(image: UInt8[np.ndarray, "H W C"], config: RegionsConfig) -> Int32[np.ndarray, "n 4"]:
    """All boxes of all hierarchies, xyxy in px of ``image``, each once, sorted by their corners.

    Images that do not have three channels are segmented as they are, in one space.
    """
    if image.shape[2] == 3:
        views = [convert(image, space) for space in _SPACES[config.colours]]
    else:
        views = [channel_planes(image)]
    boxes = []
    for planes in views:
        edges = sorted_edges(smooth(planes, config.sigma))
        texture = texture_bins(planes)
        for scale in config.scales:
            labels, count = segment(edges, image.shape[:2], scale, config.min_size)
            segments = describe(planes, texture, labels, count)
            boxes.extend(group(segments, weights).box for weights in SIMILARITIES)
    return np.unique(np.concatenate(boxes), axis=0)
