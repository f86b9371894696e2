"""The regions of one image, by any method."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, UInt8
from PIL import Image

from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import image_size, read_reduced, reduced_size
from d3ssl.regions.annotations import annotated_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.contrast import contrast_regions
from d3ssl.regions.filters import soco_filter, spread_order
from d3ssl.regions.segments import felzenszwalb_segments, grid_segments, segment_boxes, slic_segments
from d3ssl.regions.selective_search import selective_search

_TILINGS: dict[str, Callable[[UInt8[np.ndarray, "H W C"], RegionsConfig], Int32[np.ndarray, "H W"]]] = {
    "felzenszwalb": felzenszwalb_segments,
    "slic": slic_segments,
    "grid": lambda image, config: grid_segments(image.shape[:2], config),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRegions:
    """The regions of one image."""

    size: tuple[int, int]
    """Height and width of the original image, px."""
    boxes: Float32[np.ndarray, "r 4"]
    """xyxy, px of the original image; at least one."""
    labels: UInt8[np.ndarray, "h w"] | None
    """At the computed size: r + 1 for box r, 0 for none. None: boxes only."""


def compile_method(config: RegionsConfig) -> None:
    """Let a method be compiled now, if it is at its first call (some seconds)."""
    if config.is_compiled:
        find_regions(np.zeros((16, 16, 3), dtype=np.uint8), (16, 16), config)


def find_in_file(images: ImageSet, index: int, config: RegionsConfig) -> FoundRegions:
    """Find the regions of one image of a set.

    Raises:
        InputError: the file cannot be read, or the annotations are of an image of another size.
    """
    path = images.paths[index]
    if config.method == "annotations":
        size = image_size(path)
        reduced = reduced_size(size, config.size)
        boxes, labels = annotated_regions(images.annotated, index, size, reduced, config.max_regions)
        return _finish(size, boxes, labels, config)
    image, size = read_reduced(path, config.size)
    return find_regions(image, size, config)


def find_regions(image: UInt8[np.ndarray, "h w C"], size: tuple[int, int], config: RegionsConfig) -> FoundRegions:
    """Find regions in pixels, by any method but annotations.

    Args:
        image: the image at the size at which regions are computed.
        size: height and width of the original image, px: the frame of the boxes.
        config: the method and its options.
    """
    image = np.require(image, requirements=["C", "W"])  # another memory layout would be compiled for again
    if config.method == "selective-search":
        boxes = _to_original(selective_search(image, config), image.shape[:2], size)
        if config.filtered:
            boxes = boxes[soco_filter(boxes, size, config)]
        return _finish(size, boxes[spread_order(boxes, config.max_regions)], None, config)
    if config.method == "contrast":
        found, labels = contrast_regions(image, config)
        return _finish(size, _to_original(found, image.shape[:2], size), labels, config)
    segments = _TILINGS[config.method](image, config)
    found, area = segment_boxes(segments)
    boxes = _to_original(found, image.shape[:2], size)
    rows = np.flatnonzero(area > 0)
    if config.filtered:
        rows = rows[soco_filter(boxes[rows], size, config)]
    rows = rows[np.argsort(-area[rows], kind="stable")][: config.max_regions]
    number = np.zeros(len(area), dtype=np.uint8)
    number[rows] = np.arange(1, len(rows) + 1)
    return _finish(size, boxes[rows], number[segments], config)


def _to_original(
    boxes: Int32[np.ndarray, "n 4"], computed: tuple[int, int], size: tuple[int, int]
) -> Float32[np.ndarray, "n 4"]:
    """From px of the computed size to px of the original image."""
    height, width = size[0] / computed[0], size[1] / computed[1]
    return (boxes * np.array([width, height, width, height])).astype(np.float32)


def _finish(
    size: tuple[int, int],
    boxes: Float32[np.ndarray, "n 4"],
    labels: UInt8[np.ndarray, "h w"] | None,
    config: RegionsConfig,
) -> FoundRegions:
    """Without any region the whole image is one (SoCo's last fallback)."""
    if len(boxes) == 0:
        boxes = np.array([[0, 0, size[1], size[0]]], dtype=np.float32)
        labels = None if labels is None else np.ones_like(labels)
    return FoundRegions(size=size, boxes=boxes, labels=labels if config.label_maps else None)


def encode_png(labels: UInt8[np.ndarray, "h w"]) -> bytes:
    """A label map as the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, format="PNG")
    return buffer.getvalue()
