"""Hierarchical grouping of segments (Uijlings et al., IJCV 2013, algorithm 1): the two most similar neighbours are
joined, again and again, until the whole image is one; every region on the way is a proposal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from d3ssl.regions.compiled import compiled
from d3ssl.regions.histograms import COLOUR_BINS, TEXTURE_BINS, Segments

Weights = tuple[float, float, float, float]
"""How much colour, texture, size and fill count in the similarity (the paper's a₁..a₄)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """Regions by number: the segments in order, then the joined ones in order of joining; the last is the image."""

    box: Int32[np.ndarray, "R 4"]
    """xyxy, px."""
    size: Int64[np.ndarray, "R"]
    """px."""
    parent: Int32[np.ndarray, "R"]
    """The region that a region was joined into; −1 for the last."""


def group(segments: Segments, weights: Weights) -> Hierarchy:
    """Join segments until one region is left.

    The similarity of two regions is the weighted sum of: the intersection of their colour histograms; that of their
    texture histograms; 1 − their share of the image; 1 − the share of the image that their common box adds to them
    (the paper's equations 1, 3, 4 and 5, histograms normalised to sum 1). Ties are resolved in the order in which pairs
    became neighbours. An image of one segment gives one box.
    """
    channels = segments.colour.shape[1] // COLOUR_BINS
    kinds = segments.texture.shape[1] // TEXTURE_BINS
    box, size, parent = _group(
        segments.size,
        segments.box,
        np.concatenate([segments.colour, segments.texture], axis=1),
        segments.neighbours,
        segments.colour.shape[1],
        np.array([weights[0] / channels, weights[1] / kinds, weights[2], weights[3]]),
    )
    return Hierarchy(box=box, size=size, parent=parent)


_UNIT = 32767
"""Normalised histograms are kept in 16 bits, so that their intersection is a fast exact sum."""


@compiled
def _normalise(counts, total, out):
    factor = _UNIT / total
    for k in range(len(counts)):
        out[k] = np.int16(counts[k] * factor)


@compiled
def _common(a, b):
    total = np.int32(0)
    for k in range(len(a)):
        total += np.int32(min(a[k], b[k]))
    return total


@compiled
def _similarity(a, b, size, box, unit, split, pixels, weights):
    total = 0.0
    if weights[0] > 0:
        total += weights[0] * _common(unit[a, :split], unit[b, :split]) / _UNIT
    if weights[1] > 0:
        total += weights[1] * _common(unit[a, split:], unit[b, split:]) / _UNIT
    both = size[a] + size[b]
    width = max(box[a, 2], box[b, 2]) - min(box[a, 0], box[b, 0])
    height = max(box[a, 3], box[b, 3]) - min(box[a, 1], box[b, 1])
    total += weights[2] * (1.0 - both / pixels)
    total += weights[3] * (1.0 - (width * height - both) / pixels)
    return total


@compiled
def _above(keys, p, q):
    """Heap order of two pairs: the more similar first, then the one that came first."""
    return keys[p] > keys[q] or (keys[p] == keys[q] and p < q)


@compiled
def _push(heap, length, keys, pair):
    place = length
    while place > 0:
        parent = (place - 1) >> 1
        if not _above(keys, pair, heap[parent]):
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = pair


@compiled
def _pop(heap, length, keys):
    """Remove the first of ``length`` pairs from the heap."""
    first, last = heap[0], heap[length - 1]
    place, length = 0, length - 1
    while True:
        child = 2 * place + 1
        if child >= length:
            break
        if child + 1 < length and _above(keys, heap[child + 1], heap[child]):
            child += 1
        if not _above(keys, heap[child], last):
            break
        heap[place] = heap[child]
        place = child
    heap[place] = last
    return first


@compiled
def _longer(array, needed):
    if needed <= len(array):
        return array
    out = np.empty(max(needed, 2 * len(array)), dtype=array.dtype)
    out[: len(array)] = array
    return out


@compiled
def _joined(joined_into, region):
    """The region of today that holds ``region``."""
    top = region
    while joined_into[top] >= 0:
        top = joined_into[top]
    while joined_into[region] >= 0:
        joined_into[region], region = top, joined_into[region]
    return top


@compiled
def _group(sizes, boxes, counts, neighbours, split, weights):
    first, bins = counts.shape
    regions = 2 * first - 1
    size, box = np.empty(regions, dtype=np.int64), np.empty((regions, 4), dtype=np.int32)
    count, unit = np.empty((regions, bins), dtype=np.int32), np.empty((regions, bins), dtype=np.int16)
    size[:first], box[:first], count[:first] = sizes, boxes, counts
    for r in range(first):
        _normalise(count[r], size[r], unit[r])
    pixels = size[:first].sum()

    # Neighbours of region r: list_[begin[r] : end[r]], as they were when r arose; _joined says what they are now.
    degree = np.zeros(first, dtype=np.int64)
    for k in range(len(neighbours)):
        degree[neighbours[k, 0]] += 1
        degree[neighbours[k, 1]] += 1
    begin, end = np.zeros(regions, dtype=np.int64), np.zeros(regions, dtype=np.int64)
    for r in range(1, first):
        begin[r] = begin[r - 1] + degree[r - 1]
    end[:first] = begin[:first]
    list_ = np.empty(max(64, 4 * len(neighbours)), dtype=np.int32)
    one, two = np.empty_like(list_), np.empty_like(list_)  # the pairs of neighbours, and how similar they are
    keys = np.empty(len(list_), dtype=np.float64)
    heap = np.empty(len(list_), dtype=np.int64)
    known = len(neighbours)
    for k in range(known):
        a, b = neighbours[k, 0], neighbours[k, 1]
        list_[end[a]], list_[end[b]] = b, a
        end[a] += 1
        end[b] += 1
        one[k], two[k] = a, b
        keys[k] = _similarity(a, b, size, box, unit, split, pixels, weights)
        _push(heap, k, keys, k)
    waiting, used = known, 2 * known

    joined_into, seen = np.full(regions, -1, dtype=np.int32), np.full(regions, -1, dtype=np.int32)
    parent = np.full(regions, -1, dtype=np.int32)  # as joined_into, whose chains are shortened on the way
    new = first
    while waiting > 0:
        pair = _pop(heap, waiting, keys)
        waiting -= 1
        a, b = one[pair], two[pair]
        if joined_into[a] >= 0 or joined_into[b] >= 0:
            continue
        size[new] = size[a] + size[b]
        box[new, 0], box[new, 1] = min(box[a, 0], box[b, 0]), min(box[a, 1], box[b, 1])
        box[new, 2], box[new, 3] = max(box[a, 2], box[b, 2]), max(box[a, 3], box[b, 3])
        count[new] = count[a] + count[b]
        _normalise(count[new], size[new], unit[new])
        joined_into[a] = joined_into[b] = new
        parent[a] = parent[b] = new
        seen[new] = new
        most = end[a] - begin[a] + end[b] - begin[b]
        list_ = _longer(list_, used + most)
        one, two, keys = _longer(one, known + most), _longer(two, known + most), _longer(keys, known + most)
        heap = _longer(heap, waiting + most)
        begin[new] = used
        for old in (a, b):
            for k in range(begin[old], end[old]):
                other = _joined(joined_into, list_[k])
                if seen[other] == new:
                    continue
                seen[other] = new
                list_[used] = other
                used += 1
                one[known], two[known] = other, new
                keys[known] = _similarity(other, new, size, box, unit, split, pixels, weights)
                _push(heap, waiting, keys, known)
                known += 1
                waiting += 1
        end[new] = used
        new += 1
    return box[:new].copy(), size[:new].copy(), parent[:new].copy()
