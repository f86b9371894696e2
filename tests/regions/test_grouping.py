"""Descriptions and hierarchical grouping against the paper's procedure written out slowly."""

import numpy as np
import pytest

from d3ssl.regions.grouping import Weights, group
from d3ssl.regions.histograms import COLOUR_BINS, DIRECTIONS, TEXTURE_BINS, Segments, describe, texture_bins
from d3ssl.regions.segmentation import segment, sorted_edges


def described(seed: int, height: int = 18, width: int = 24) -> tuple[np.ndarray, np.ndarray, Segments]:
    generator = np.random.default_rng(seed)
    planes = (generator.random((3, height, width)) * 255).astype(np.float32)
    labels, count = segment(sorted_edges(planes), (height, width), 150.0, 4)
    assert count > 8
    return planes, labels, describe(planes, texture_bins(planes), labels, count)


def slow_group(segments: Segments, weights: Weights) -> list[list[int]]:
    """Uijlings et al., algorithm 1, on lists: all pairs are compared again in every round."""
    pixels = int(segments.size.sum())
    regions = [
        {"size": int(s), "box": b.tolist(), "colour": c.astype(float), "texture": t.astype(float), "alive": True}
        for s, b, c, t in zip(segments.size, segments.box, segments.colour, segments.texture, strict=True)
    ]
    pairs = {(int(a), int(b)): number for number, (a, b) in enumerate(segments.neighbours)}

    def unit(counts: np.ndarray, size: int) -> np.ndarray:
        return np.floor(counts * (32767 / size))

    def similarity(a: dict, b: dict) -> float:
        both = a["size"] + b["size"]
        box = [*np.minimum(a["box"][:2], b["box"][:2]), *np.maximum(a["box"][2:], b["box"][2:])]
        total = 0.0
        for name, weight, groups in (("colour", weights[0], 3), ("texture", weights[1], 3 * DIRECTIONS)):
            common = np.minimum(unit(a[name], a["size"]), unit(b[name], b["size"])).sum()
            total += weight / groups * common / 32767
        total += weights[2] * (1 - both / pixels)
        return total + weights[3] * (1 - ((box[2] - box[0]) * (box[3] - box[1]) - both) / pixels)

    number = len(pairs)
    while pairs:
        a, b = max(pairs, key=lambda p: (round(similarity(regions[p[0]], regions[p[1]]), 12), -pairs[p]))
        one, two, new = regions[a], regions[b], len(regions)
        joined = {name: one[name] + two[name] for name in ("size", "colour", "texture")}
        box = [*np.minimum(one["box"][:2], two["box"][:2]), *np.maximum(one["box"][2:], two["box"][2:])]
        regions.append({**joined, "box": [int(side) for side in box]})
        around = {p[0] + p[1] - old for p in pairs for old in (a, b) if old in p} - {a, b}
        pairs = {p: order for p, order in pairs.items() if a not in p and b not in p}
        for other in sorted(around):
            pairs[other, new] = number
            number += 1
    return [region["box"] for region in regions]


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (0.0, 1.0, 1.0, 1.0), (1.0, 0.0, 0.0, 0.0)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_procedure(seed: int, weights: Weights) -> None:
    _, _, segments = described(seed)
    assert group(segments, weights).box.tolist() == slow_group(segments, weights)


def test_description_equals_counting_by_hand() -> None:
    planes, labels, segments = described(7)
    texture = texture_bins(planes)
    for s in range(len(segments.size)):
        inside = labels == s
        rows, columns = np.nonzero(inside)
        assert segments.size[s] == inside.sum()
        assert segments.box[s].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        colours = [np.histogram(plane[inside], COLOUR_BINS, (0, 256))[0] for plane in planes]
        np.testing.assert_array_equal(segments.colour[s], np.concatenate(colours))
        textures = [np.bincount(texture[inside, t], minlength=TEXTURE_BINS) for t in range(texture.shape[2])]
        np.testing.assert_array_equal(segments.texture[s], np.concatenate(textures))
    touching = set()
    for y, x in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = labels[: labels.shape[0] - y, max(0, -x) : labels.shape[1] - max(0, x)]
        there = labels[y:, max(0, x) : labels.shape[1] + min(0, x)]
        touching |= {(min(a, b), max(a, b)) for a, b in zip(here.ravel(), there.ravel(), strict=True) if a != b}
    assert [tuple(pair) for pair in segments.neighbours.tolist()] == sorted(touching)


def test_texture_tells_directions_apart() -> None:
    upright = np.tile(np.where(np.arange(32) % 8 < 4, 0, 200), (32, 1)).astype(np.float32)
    across = texture_bins(upright[None])
    along = texture_bins(np.ascontiguousarray(upright.T)[None])
    assert across[..., 0].max() > 5  # derivative along x
    assert across[..., 2].max() == 0  # derivative along y
    np.testing.assert_array_equal(across[..., 0], along[..., 2].T)


def test_one_segment_gives_one_box() -> None:
    planes = np.full((3, 5, 6), 80, dtype=np.float32)
    segments = describe(planes, texture_bins(planes), np.zeros((5, 6), dtype=np.int32), 1)
    assert group(segments, (1.0, 1.0, 1.0, 1.0)).box.tolist() == [[0, 0, 6, 5]]


def test_last_region_is_the_whole_image() -> None:
    _, labels, segments = described(3)
    boxes = group(segments, (1.0, 1.0, 1.0, 1.0)).box
    assert len(boxes) == 2 * len(segments.size) - 1
    assert boxes[-1].tolist() == [0, 0, labels.shape[1], labels.shape[0]]


def test_every_region_is_the_union_of_what_was_joined_into_it() -> None:
    """By pixels: following the parents from the segments, each region gets its size and its box."""
    planes, labels, segments = described(1)
    tree = group(segments, (1.0, 1.0, 1.0, 1.0))
    count = len(segments.size)
    assert tree.parent[-1] == -1 and (tree.parent[:-1] > np.arange(len(tree.parent) - 1)).all()
    masks = [labels == number for number in range(count)]
    for region in range(count, len(tree.parent)):
        children = np.flatnonzero(tree.parent == region)
        assert len(children) == 2
        masks.append(masks[children[0]] | masks[children[1]])
    for mask, size, box in zip(masks, tree.size, tree.box, strict=True):
        rows, columns = np.nonzero(mask)
        assert mask.sum() == size
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert masks[-1].shape == planes.shape[1:] and masks[-1].all()
