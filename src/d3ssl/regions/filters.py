"""Which proposals are kept, and in which order."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64

from d3ssl.regions.compiled import compiled
from d3ssl.regions.config import RegionsConfig

REFERENCE_SHORT_SIDE = 480
"""Short side, px, of the images that SoCo's least side of 32 px is meant for: COCO's are 480 px as a rule."""


def soco_filter(
    boxes: Float32[np.ndarray, "n 4"], size: tuple[int, int], config: RegionsConfig
) -> Int64[np.ndarray, "m"]:
    """SoCo's filter and its fallbacks (Wei et al., "Aligning Pretraining for Detection via Object-Level Contrastive
    Learning", NeurIPS 2021, and its code).

    A box stays if both sides are at least ``min_side``, the longer side is at most ``max_ratio`` times the shorter one,
    and the square root of its share of the image is within ``min_share..max_share``. If none stays, those with a good
    ratio do; if none has one, those with good sides.

    Args:
        boxes: xyxy, px.
        size: height and width of the image, px.
        config: the limits.

    Returns:
        Rows of the boxes that stay, ascending. Empty: use the whole image.
    """
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    least = config.min_side * min(size) / REFERENCE_SHORT_SIDE
    side: Bool[np.ndarray, "n"] = np.minimum(width, height) >= least
    ratio: Bool[np.ndarray, "n"] = np.maximum(width, height) <= config.max_ratio * np.minimum(width, height)
    share = np.sqrt(width.astype(np.float64) * height / (size[0] * size[1]))
    for keep in (side & ratio & (share >= config.min_share) & (share <= config.max_share), ratio, side):
        if keep.any():
            return np.flatnonzero(keep)
    return np.empty(0, dtype=np.int64)


def spread_order(boxes: Float32[np.ndarray, "n 4"], limit: int) -> Int64[np.ndarray, "m"]:
    """The rows of at most ``limit`` boxes, each chosen so that all boxes are covered as well as possible.

    The next box is the one that raises Σⱼ maxᵢ IoU(chosen i, box j) most, the first in the given order among equals;
    repeated boxes are never chosen. So the first few are different from each other and stand for many, where the order
    of the hierarchy would give the same large regions again and again. A greedy choice is within 1 − 1/e of the best
    (Nemhauser et al. 1978); gains can only shrink, so a stale gain is an upper bound and few need computing again.
    """
    return _spread_order(boxes, limit)


@compiled
def _iou(boxes, a, b):
    width = min(boxes[a, 2], boxes[b, 2]) - max(boxes[a, 0], boxes[b, 0])
    height = min(boxes[a, 3], boxes[b, 3]) - max(boxes[a, 1], boxes[b, 1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    area_a = (boxes[a, 2] - boxes[a, 0]) * (boxes[a, 3] - boxes[a, 1])
    area_b = (boxes[b, 2] - boxes[b, 0]) * (boxes[b, 3] - boxes[b, 1])
    return common / (area_a + area_b - common)


@compiled
def _gain(boxes, covered, candidate):
    total = 0.0
    for j in range(len(covered)):
        more = _iou(boxes, candidate, j) - covered[j]
        if more > 0:
            total += more
    return total


@compiled
def _spread_order(boxes, limit):
    count = len(boxes)
    boxes = boxes.astype(np.float64)
    covered = np.zeros(count)
    gain = np.full(count, np.inf)
    fresh = np.full(count, -1, dtype=np.int64)
    order = np.empty(min(limit, count), dtype=np.int64)
    chosen = 0
    while chosen < len(order):
        best = np.argmax(gain)
        if fresh[best] < chosen:
            gain[best] = _gain(boxes, covered, best)
            fresh[best] = chosen
            continue
        if gain[best] <= 1e-9:  # only repetitions are left
            break
        order[chosen] = best
        chosen += 1
        gain[best] = -1.0
        for j in range(count):
            covered[j] = max(covered[j], _iou(boxes, best, j))
    return order[:chosen].copy()
