"""What selective search knows of a segment: its size, its box, and histograms of colour and texture.

Uijlings et al., "Selective Search for Object Recognition", IJCV 2013, section 3.2: 25 colour bins a channel; texture as
Gaussian derivatives in eight directions, 10 bins a channel and direction. Counts are whole numbers, so that merging two
segments is exact addition and every machine gets the same result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32

from d3ssl.regions.compiled import compiled
from d3ssl.regions.segmentation import smooth

COLOUR_BINS = 25
"""Bins a channel (paper)."""
DIRECTIONS = 8
"""Directions of the derivatives (paper)."""
TEXTURE_BINS = 10
"""Bins a channel and direction (paper)."""
TEXTURE_SIGMA = 1.0
"""Scale of the derivatives, px (paper)."""
_STRONGEST = 64.0
"""A derivative from here on, grey levels per px, falls into the last bin. Bins are even in the square root, because
strong derivatives are rare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """The segments of an image and what is known of them."""

    size: Int32[np.ndarray, "S"]
    """px."""
    box: Int32[np.ndarray, "S 4"]
    """xyxy, px."""
    colour: Int32[np.ndarray, "S colour_bins"]
    """Counts."""
    texture: Int32[np.ndarray, "S texture_bins"]
    """Counts."""
    neighbours: Int32[np.ndarray, "N 2"]
    """Pairs of touching segments (8 neighbours), each once, the lower number first, sorted."""


def texture_bins(planes: Float32[np.ndarray, "C H W"]) -> np.ndarray:
    """Bin 0..9 of every derivative: (H, W, C · 8) uint8. Negative derivatives count as 0: the opposite direction has
    them."""
    edges = ((np.arange(1, TEXTURE_BINS) / TEXTURE_BINS) ** 2 * _STRONGEST).astype(np.float32)
    angles = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    table = np.searchsorted(edges, np.arange(int(_STRONGEST) * 4 + 1) / 4, side="right").astype(np.uint8)
    return _texture_bins(smooth(planes, TEXTURE_SIGMA), cosines, sines, table)


def describe(
    planes: Float32[np.ndarray, "C H W"], texture: np.ndarray, labels: Int32[np.ndarray, "H W"], count: int
) -> Segments:
    """Count colours and textures in every segment.

    Args:
        planes: the image, each channel about 0..255.
        texture: from ``texture_bins``.
        labels: segment of every pixel, 0..count − 1.
        count: number of segments.
    """
    size, box, colour, texture_counts = _describe(planes, texture, labels, count)
    return Segments(size=size, box=box, colour=colour, texture=texture_counts, neighbours=_neighbours(labels, count))


@compiled
def _texture_bins(planes, cosines, sines, table):
    channels, height, width = planes.shape
    out = np.empty((height, width, channels * len(cosines)), dtype=np.uint8)
    last = len(table) - 1
    for i in range(height):
        up, down = max(i - 1, 0), min(i + 1, height - 1)
        for j in range(width):
            left, right = max(j - 1, 0), min(j + 1, width - 1)
            for c in range(channels):
                dx = (planes[c, i, right] - planes[c, i, left]) * np.float32(0.5)
                dy = (planes[c, down, j] - planes[c, up, j]) * np.float32(0.5)
                for d in range(len(cosines)):
                    strength = (cosines[d] * dx + sines[d] * dy) * np.float32(4)
                    out[i, j, c * len(cosines) + d] = table[min(max(int(strength), 0), last)]
    return out


@compiled
def _describe(planes, texture, labels, count):
    channels, height, width = planes.shape
    kinds = texture.shape[2]
    size = np.zeros(count, dtype=np.int32)
    box = np.empty((count, 4), dtype=np.int32)
    box[:, 0], box[:, 1], box[:, 2], box[:, 3] = width, height, 0, 0
    colours = np.zeros((count, channels * COLOUR_BINS), dtype=np.int32)
    textures = np.zeros((count, kinds * TEXTURE_BINS), dtype=np.int32)
    for i in range(height):
        for j in range(width):
            s = labels[i, j]
            size[s] += 1
            box[s, 0], box[s, 1] = min(box[s, 0], j), min(box[s, 1], i)
            box[s, 2], box[s, 3] = max(box[s, 2], j + 1), max(box[s, 3], i + 1)
            for c in range(channels):
                level = int(planes[c, i, j] * np.float32(COLOUR_BINS / 256))
                colours[s, c * COLOUR_BINS + min(max(level, 0), COLOUR_BINS - 1)] += 1
            for t in range(kinds):
                textures[s, t * TEXTURE_BINS + texture[i, j, t]] += 1
    return size, box, colours, textures


@compiled
def _neighbours(labels, count):
    height, width = labels.shape
    touching = np.zeros((count, count), dtype=np.bool_)
    for i in range(height):
        for j in range(width):
            a = labels[i, j]
            if j + 1 < width:
                touching[a, labels[i, j + 1]] = True
            if i + 1 < height:
                touching[a, labels[i + 1, j]] = True
                if j + 1 < width:
                    touching[a, labels[i + 1, j + 1]] = True
                if j > 0:
                    touching[a, labels[i + 1, j - 1]] = True
    pairs = np.empty((count * count, 2), dtype=np.int32)
    found = 0
    for a in range(count):
        for b in range(a + 1, count):
            if touching[a, b] or touching[b, a]:
                pairs[found, 0], pairs[found, 1] = a, b
                found += 1
    return pairs[:found].copy()
