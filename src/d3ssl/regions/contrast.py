"""Salient regions: those of selective search's hierarchy whose colours their surroundings lack.

Selective search gives hundreds of nested boxes without masks, a tiling mostly pieces of background. Here the hierarchy
is cut where its regions differ most from the segments around them, as the colour contrast of Alexe et al. ("Measuring
the Objectness of Image Windows", TPAMI 2012, section 2.3) compares a window with the ring around it. The regions chosen
do not overlap, so they come with a label map. Nobody labelled anything; a salient region need not be an object.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

from d3ssl.regions.colour import channel_planes, convert
from d3ssl.regions.compiled import compiled
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.grouping import Hierarchy, group
from d3ssl.regions.histograms import Segments, describe, texture_bins
from d3ssl.regions.segmentation import segment, smooth, sorted_edges
from d3ssl.regions.selective_search import SIMILARITIES

COLOURS = 216
"""About so many colours are told apart: 6 levels a channel of an image with three."""


def contrast_regions(
    image: UInt8[np.ndarray, "H W C"], config: RegionsConfig
) -> tuple[Int32[np.ndarray, "r 4"], UInt8[np.ndarray, "H W"]]:
    """Boxes (xyxy, px of ``image``), those with most contrast first, and the label map: r + 1 for box r, 0 for none."""
    planes = convert(image, "lab") if image.shape[2] == 3 else channel_planes(image)
    size = image.shape[:2]
    labels, count = segment(sorted_edges(smooth(planes, config.sigma)), size, config.scales[0], config.min_size)
    segments = describe(planes, texture_bins(planes), labels, count)
    tree = group(segments, SIMILARITIES[0])
    leaf, begin, end = leaves(tree, count)
    share = tree.size / labels.size
    suited = np.flatnonzero((share >= config.contrast_min_area) & (share <= config.contrast_max_area))
    score = contrast(segments, colour_counts(planes, labels, count), leaf, begin[suited], end[suited])
    score -= border_share(labels, count, tree, leaf, begin, end)[suited]
    number, boxes = np.zeros(count, dtype=np.uint8), []
    for place in np.argsort(-score, kind="stable"):
        own = leaf[begin[suited[place]] : end[suited[place]]]
        if score[place] < config.contrast_min or len(boxes) == config.max_regions:
            break
        if not number[own].any():  # of two regions of a tree, one holds the other or they are apart
            boxes.append(tree.box[suited[place]])
            number[own] = len(boxes)
    return np.array(boxes, dtype=np.int32).reshape(-1, 4), number[labels]


def colour_counts(planes: np.ndarray, labels: Int32[np.ndarray, "H W"], count: int) -> Int64[np.ndarray, "S colours"]:
    """How often each colour of the image occurs in every segment; a channel's range is divided evenly."""
    levels = max(2, round(COLOURS ** (1 / len(planes))))
    code = np.zeros(labels.shape, dtype=np.int64)
    for plane in planes:
        low, high = float(plane.min()), float(plane.max())
        level = np.minimum((plane - low) * (levels / max(high - low, 1e-6)), levels - 1).astype(np.int64)
        code = np.unique(code * levels + level, return_inverse=True)[1].reshape(labels.shape)
    colours = int(code.max()) + 1
    return np.bincount((labels * colours + code).ravel(), minlength=count * colours).reshape(count, colours)


def leaves(
    tree: Hierarchy, count: int
) -> tuple[Int64[np.ndarray, "S"], Int64[np.ndarray, "R"], Int64[np.ndarray, "R"]]:
    """An order of the segments in which every region r is a stretch: ``order[begin[r] : end[r]]``."""
    regions = len(tree.parent)
    number = np.zeros(regions, dtype=np.int64)
    number[:count] = 1
    for region in range(regions - 1):  # a region comes before the one that it is joined into
        number[tree.parent[region]] += number[region]
    begin, free = np.zeros(regions, dtype=np.int64), np.zeros(regions, dtype=np.int64)
    for region in range(regions - 2, -1, -1):
        parent = tree.parent[region]
        begin[region] = free[region] = free[parent]
        free[parent] += number[region]
    order = np.empty(count, dtype=np.int64)
    order[begin[:count]] = np.arange(count)
    return order, begin, begin + number


def contrast(
    segments: Segments,
    colours: Int64[np.ndarray, "S colours"],
    leaf: Int64[np.ndarray, "S"],
    begin: Int64[np.ndarray, "r"],
    end: Int64[np.ndarray, "r"],
) -> Float64[np.ndarray, "r"]:
    """1 − the intersection of a region's colour histogram with that of all segments that touch it, each of sum 1: 0 for
    the same colours, 1 for none in common (and 1 for a region that nothing touches)."""
    pairs = segments.neighbours
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    first = np.searchsorted(both[:, 0], np.arange(len(colours) + 1))
    return _contrast(colours, leaf, begin, end, first, np.ascontiguousarray(both[:, 1]))


@compiled
def _contrast(colours, leaf, begin, end, first, touching):
    out = np.ones(len(begin))
    own, around = np.zeros(colours.shape[1], dtype=np.int64), np.zeros(colours.shape[1], dtype=np.int64)
    mark = np.full(len(colours), -1, dtype=np.int64)
    for r in range(len(begin)):
        own[:], around[:] = 0, 0
        for k in range(begin[r], end[r]):
            mark[leaf[k]] = r
            own += colours[leaf[k]]
        for k in range(begin[r], end[r]):
            for n in range(first[leaf[k]], first[leaf[k] + 1]):
                other = touching[n]
                if mark[other] != r:
                    mark[other] = r
                    around += colours[other]
        pixels, others = own.sum(), around.sum()
        if others > 0:
            common = 0.0
            for c in range(len(own)):
                common += min(own[c] / pixels, around[c] / others)
            out[r] = 1.0 - common
    return out


def border_share(
    labels: Int32[np.ndarray, "H W"],
    count: int,
    tree: Hierarchy,
    leaf: Int64[np.ndarray, "S"],
    begin: Int64[np.ndarray, "R"],
    end: Int64[np.ndarray, "R"],
) -> Float64[np.ndarray, "R"]:
    """A region's pixels on the image's border, as a share of the perimeter of its box: background lies along it."""
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    pixels = np.bincount(edges, minlength=count)[leaf]
    before = np.concatenate([[0], np.cumsum(pixels)])
    perimeter = 2.0 * (tree.box[:, 2:] - tree.box[:, :2]).sum(1)
    return (before[end] - before[begin]) / perimeter
