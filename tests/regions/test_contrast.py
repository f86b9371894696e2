"""The regions that stand out: against a slow procedure over pixels, on scenes with a known answer, and their bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3ssl.errors import InputError
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.contrast import border_share, colour_counts, contrast, contrast_regions, leaves
from d3ssl.regions.find import find_regions
from d3ssl.regions.grouping import Hierarchy, group
from d3ssl.regions.histograms import Segments, describe, texture_bins
from d3ssl.regions.segmentation import segment, sorted_edges

CONFIG = RegionsConfig(method="contrast")
SKY, GRASS = (90, 140, 220), (60, 160, 70)


def described(seed: int) -> tuple[np.ndarray, np.ndarray, int, Segments, Hierarchy]:
    planes = (np.random.default_rng(seed).random((3, 18, 24)) * 255).astype(np.float32)
    labels, count = segment(sorted_edges(planes), (18, 24), 150.0, 4)
    segments = describe(planes, texture_bins(planes), labels, count)
    return planes, labels, count, segments, group(segments, (1.0, 1.0, 1.0, 1.0))


def members(tree: Hierarchy, count: int) -> list[set[int]]:
    found = [{number} for number in range(count)] + [set() for _ in range(count, len(tree.parent))]
    for region, parent in enumerate(tree.parent[:-1]):
        found[parent] |= found[region]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_every_region_is_a_stretch_of_the_order(seed: int) -> None:
    _, _, count, _, tree = described(seed)
    leaf, begin, end = leaves(tree, count)
    assert sorted(leaf) == list(range(count))
    for region, expected in enumerate(members(tree, count)):
        assert set(leaf[begin[region] : end[region]]) == expected


@pytest.mark.parametrize("seed", range(4))
def test_contrast_equals_a_slow_procedure_over_pixels(seed: int) -> None:
    planes, labels, count, segments, tree = described(seed)
    leaf, begin, end = leaves(tree, count)
    found = contrast(segments, colour_counts(planes, labels, count), leaf, begin, end)
    border = border_share(labels, count, tree, leaf, begin, end)
    levels = [np.minimum(((p - p.min()) * (6 / (p.max() - p.min()))), 5).astype(int) for p in planes]
    colour = levels[0] * 36 + levels[1] * 6 + levels[2]
    for region, own in enumerate(members(tree, count)):
        inside = np.isin(labels, list(own))
        grown = np.pad(inside, 1)
        touched = np.zeros_like(inside)
        for down in range(3):
            for right in range(3):
                touched |= grown[down : down + 18, right : right + 24]
        around = np.isin(labels, labels[touched & ~inside]) & ~inside
        if around.any():
            one, other = (np.bincount(colour[mask], minlength=216) / mask.sum() for mask in (inside, around))
            expected = 1 - np.minimum(one, other).sum()
        else:
            expected = 1.0
        assert found[region] == pytest.approx(expected, abs=1e-12)
        x0, y0, x1, y1 = tree.box[region]
        edge = inside[0].sum() + inside[-1].sum() + inside[:, 0].sum() + inside[:, -1].sum()
        assert border[region] == pytest.approx(edge / (2 * (x1 - x0 + y1 - y0)))


def scene() -> tuple[np.ndarray, list[np.ndarray]]:
    """Grass under a sky, both noisy, with a red disc, a white box and a black box of two halves."""
    generator, rows, columns = np.random.default_rng(0), *np.indices((120, 160))
    image = np.where((rows < 50)[..., None], SKY, GRASS).astype(np.float64)
    disc = (rows - 40) ** 2 + (columns - 40) ** 2 < 20**2
    white = (rows >= 70) & (rows < 105) & (columns >= 20) & (columns < 60)
    halves = (rows >= 60) & (rows < 100) & (columns >= 95) & (columns < 135)
    image[disc], image[white], image[halves] = (220, 30, 40), (245, 245, 245), (15, 15, 15)
    image[halves & (columns < 115)] = (60, 20, 90)
    image += generator.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), [disc, white, halves]


def test_objects_stand_out_and_background_does_not() -> None:
    image, masks = scene()
    boxes, labels = contrast_regions(image, CONFIG)
    assert len(boxes) == len(masks)
    for mask in masks:
        number = np.bincount(labels[mask]).argmax()
        own = labels == number
        assert number > 0 and (own & mask).sum() / (own | mask).sum() > 0.9
        rows, columns = np.nonzero(own)
        assert boxes[number - 1].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boxes_are_of_the_original_image_and_labels_of_the_computed_one() -> None:
    image, _ = scene()
    found = find_regions(image, (240, 320), CONFIG)
    boxes, labels = contrast_regions(image, CONFIG)
    assert found.labels is not None
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.boxes, boxes * 2)


def test_an_image_in_which_nothing_stands_out_is_one_region() -> None:
    found = find_regions(np.full((40, 60, 3), 120, dtype=np.uint8), (40, 60), CONFIG)
    assert found.boxes.tolist() == [[0, 0, 60, 40]] and found.labels is not None
    assert (found.labels == 1).all()


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_images_need_not_be_rgb(channels: int) -> None:
    image, masks = scene()
    other = np.concatenate([image, image[..., :2] // 2], axis=2)[..., :channels]
    boxes, labels = contrast_regions(np.ascontiguousarray(other), RegionsConfig(method="contrast", contrast_min=0.5))
    assert len(boxes) and labels.max() == len(boxes)
    assert labels[masks[1]].min() == labels[masks[1]].max() > 0  # the white box is bright in all channels


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    least=st.floats(-1, 0.9),
    area=st.tuples(st.floats(0, 0.2), st.floats(0.2, 1)),
    most=st.integers(1, 5),
)
def test_regions_keep_to_their_bounds(seed: int, least: float, area: tuple[float, float], most: int) -> None:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 8, 3))
    image = (coarse.repeat(8, 0).repeat(8, 1) + generator.integers(-8, 9, (48, 64, 3))).clip(0, 255).astype(np.uint8)
    config = RegionsConfig(
        method="contrast", contrast_min=least, contrast_min_area=area[0], contrast_max_area=area[1], max_regions=most
    )
    boxes, labels = contrast_regions(image, config)
    assert len(boxes) <= most and labels.max(initial=0) == len(boxes)
    for number, (x0, y0, x1, y1) in enumerate(boxes, 1):
        own = labels == number
        assert area[0] - 1e-9 <= own.mean() <= area[1] + 1e-9
        assert own[y0:y1, x0:x1].sum() == own.sum() > 0
    again = contrast_regions(image, config)
    np.testing.assert_array_equal(again[1], labels)


def test_the_least_area_is_not_above_the_largest() -> None:
    with pytest.raises(InputError, match="contrast_min_area"):
        RegionsConfig(contrast_min_area=0.5, contrast_max_area=0.1)
