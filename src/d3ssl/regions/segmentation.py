"""Graph-based segmentation (P. Felzenszwalb, D. Huttenlocher, IJCV 2004) as compiled loops.

Pixels are nodes; an edge joins each pixel to its 8 neighbours, weighted by the distance of their (smoothed) colours.
Edges are taken from light to heavy. Two components are joined when the edge is no heavier than either component's
heaviest inner edge plus ``scale`` over its size: small components join easily, large ones only across weak edges.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int32

from d3ssl.regions.compiled import compiled

_LEVELS = 32  # edge weights are sorted by counting, in steps of 1/32 of a grey level: the pixels' are 32 times as wide


def smooth(planes: Float32[np.ndarray, "C H W"], sigma: float) -> Float32[np.ndarray, "C H W"]:
    """Gaussian smoothing, standard deviation ``sigma`` px, borders repeated; 0 changes nothing."""
    if sigma <= 0:
        return planes
    reach = max(1, int(np.ceil(3 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return _convolve(planes, (kernel / kernel.sum()).astype(np.float32))


def sorted_edges(planes: Float32[np.ndarray, "C H W"]) -> tuple[Int32[np.ndarray, "E"], Float32[np.ndarray, "E"]]:
    """All edges of the pixel graph from light to heavy; equal ones in raster order.

    Returns:
        Codes (4 · pixel + direction; directions: right, down, down-right, down-left) and weights.
    """
    return _sorted_edges(planes)


def segment(
    edges: tuple[Int32[np.ndarray, "E"], Float32[np.ndarray, "E"]], size: tuple[int, int], scale: float, min_size: int
) -> tuple[Int32[np.ndarray, "H W"], int]:
    """Join pixels to segments.

    Args:
        edges: from ``sorted_edges``.
        size: height and width.
        scale: the paper's k, in grey levels times px: larger gives larger segments.
        min_size: segments below this many px are joined to a neighbour.

    Returns:
        Label of every pixel (0, 1, … in raster order of first appearance) and the number of segments.
    """
    labels, count = _segment(edges[0], edges[1], size[0], size[1], np.float32(scale), min_size)
    return labels, int(count)


@compiled
def _convolve(planes, kernel):
    channels, height, width = planes.shape
    reach = len(kernel) // 2
    out = np.empty_like(planes)
    row = np.empty(width + 2 * reach, dtype=np.float32)
    for c in range(channels):
        for i in range(height):
            line = out[c, i]
            line[:] = np.float32(0)
            for d in range(-reach, reach + 1):
                source, weight = planes[c, min(max(i + d, 0), height - 1)], kernel[d + reach]
                for j in range(width):
                    line[j] += weight * source[j]
            row[:reach] = line[0]
            row[reach : reach + width] = line
            row[reach + width :] = line[width - 1]
            line[:] = np.float32(0)
            for d in range(2 * reach + 1):
                weight = kernel[d]
                for j in range(width):
                    line[j] += weight * row[j + d]
    return out


@compiled
def _sorted_edges(planes):
    channels, height, width = planes.shape
    weights = np.empty((height, width, 4), dtype=np.float32)
    weights[:] = np.float32(-1)  # no such edge
    for i in range(height):
        for d, (down, right) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
            if i + down >= height:
                continue
            for j in range(max(0, -right), width - max(0, right)):
                total = np.float32(0)
                for c in range(channels):
                    difference = planes[c, i, j] - planes[c, i + down, j + right]
                    total += difference * difference
                weights[i, j, d] = np.sqrt(total)
    flat = weights.reshape(-1)
    heaviest = np.float32(0)
    for weight in flat:
        heaviest = max(heaviest, weight)
    start = np.zeros(int(heaviest * _LEVELS) + 2, dtype=np.int32)
    for weight in flat:
        if weight >= 0:
            start[int(weight * _LEVELS) + 1] += 1
    for k in range(1, len(start)):
        start[k] += start[k - 1]
    codes = np.empty(start[-1], dtype=np.int32)
    ordered = np.empty(start[-1], dtype=np.float32)
    for code in range(len(flat)):
        weight = flat[code]
        if weight >= 0:
            level = int(weight * _LEVELS)
            codes[start[level]] = code
            ordered[start[level]] = weight
            start[level] += 1
    return codes, ordered


@compiled
def _root(parent, node):
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@compiled
def _segment(codes, weights, height, width, scale, min_size):
    step = np.array([1, width, width + 1, width - 1], dtype=np.int32)
    parent = np.arange(height * width, dtype=np.int32)
    size = np.ones(height * width, dtype=np.int32)
    limit = np.full(height * width, scale, dtype=np.float32)
    refused = np.empty(len(codes), dtype=np.int32)  # only these can join small segments later
    count = 0
    for e in range(len(codes)):
        pixel, weight = codes[e] >> 2, weights[e]
        a, b = _root(parent, pixel), _root(parent, pixel + step[codes[e] & 3])
        if a == b:
            continue
        if weight <= limit[a] and weight <= limit[b]:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            limit[a] = weight + scale / np.float32(size[a])
        else:
            refused[count] = codes[e]
            count += 1
    for code in refused[:count]:
        pixel = code >> 2
        a, b = _root(parent, pixel), _root(parent, pixel + step[code & 3])
        if a != b and (size[a] < min_size or size[b] < min_size):
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
    labels = np.empty(height * width, dtype=np.int32)
    name = np.full(height * width, -1, dtype=np.int32)
    count = 0
    for pixel in range(height * width):
        root = _root(parent, pixel)
        if name[root] < 0:
            name[root] = count
            count += 1
        labels[pixel] = name[root]
    return labels.reshape(height, width), count
