"""Methods whose regions tile the image: Felzenszwalb's and SLIC's segments, and the cells of a grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32, UInt8

from d3ssl.regions.colour import channel_planes
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.segmentation import segment, smooth, sorted_edges

_DETCON_PIXELS = 224 * 224


def felzenszwalb_segments(image: UInt8[np.ndarray, "H W C"], config: RegionsConfig) -> Int32[np.ndarray, "H W"]:
    """Segments of Felzenszwalb and Huttenlocher (IJCV 2004), 0, 1, …

    Threshold and least size grow with the image's area, so that an image and its smaller copy give like segments.
    """
    height, width = image.shape[:2]
    planes = channel_planes(image)
    scale = config.segment_scale * height * width / _DETCON_PIXELS
    least = max(1, round(config.segment_min_share * height * width))
    return segment(sorted_edges(smooth(planes, config.sigma)), (height, width), scale, least)[0]


def slic_segments(image: UInt8[np.ndarray, "H W C"], config: RegionsConfig) -> Int32[np.ndarray, "H W"]:
    """Superpixels of SLIC (Achanta et al., TPAMI 2012), 0, 1, …; images that are not RGB are taken as they are."""
    from skimage.segmentation import slic  # half of what a worker process would otherwise wait for

    labels = slic(
        image,
        n_segments=config.slic_segments,
        compactness=config.slic_compactness,
        start_label=0,
        convert2lab=image.shape[2] == 3,
        channel_axis=2,
    )
    return labels.astype(np.int32)


def grid_segments(size: tuple[int, int], config: RegionsConfig) -> Int32[np.ndarray, "H W"]:
    """Cells of a grid in reading order, 0, 1, …; an image of fewer pixels than cells gets fewer."""
    rows = np.arange(size[0]) * min(config.grid_rows, size[0]) // size[0]
    columns = np.arange(size[1]) * min(config.grid_columns, size[1]) // size[1]
    return (rows[:, None] * min(config.grid_columns, size[1]) + columns[None]).astype(np.int32)


def segment_boxes(labels: Int32[np.ndarray, "H W"]) -> tuple[Int32[np.ndarray, "n 4"], np.ndarray]:
    """Box (xyxy, px) and area (px) of every segment 0..max; an unused number has area 0 and a zero box."""
    count = int(labels.max()) + 1
    box = np.zeros((count, 4), dtype=np.int32)
    area = np.bincount(labels.ravel(), minlength=count)
    low, high = np.iinfo(np.int32).max, -1
    first, last = np.full((count, 2), low), np.full((count, 2), high)
    rows, columns = np.indices(labels.shape)
    for axis, place in ((0, columns), (1, rows)):
        np.minimum.at(first[:, axis], labels.ravel(), place.ravel())
        np.maximum.at(last[:, axis], labels.ravel(), place.ravel() + 1)
    used = area > 0
    box[used, :2], box[used, 2:] = first[used], last[used]
    return box, area
