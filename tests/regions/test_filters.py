import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.filters import soco_filter, spread_order


def random_boxes(seed: int, count: int, height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    x = np.sort(generator.integers(0, width + 1, (count, 2)), axis=1)
    y = np.sort(generator.integers(0, height + 1, (count, 2)), axis=1)
    boxes = np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1).astype(np.float32)
    return boxes[(x[:, 1] > x[:, 0]) & (y[:, 1] > y[:, 0])]


def slow_filter(boxes: np.ndarray, size: tuple[int, int], config: RegionsConfig) -> list[int]:
    def side(w: float, h: float) -> bool:
        return min(w, h) >= config.min_side * min(size) / 480

    def ratio(w: float, h: float) -> bool:
        return 1 / config.max_ratio <= w / h <= config.max_ratio

    def share(w: float, h: float) -> bool:
        return config.min_share <= (w * h) ** 0.5 / (size[0] * size[1]) ** 0.5 <= config.max_share

    sides = [(float(x1 - x0), float(y1 - y0)) for x0, y0, x1, y1 in boxes]
    for good in (lambda w, h: side(w, h) and ratio(w, h) and share(w, h), ratio, side):
        rows = [row for row, (w, h) in enumerate(sides) if good(w, h)]
        if rows:
            return rows
    return []


@given(seed=st.integers(0, 2**31), count=st.integers(0, 12), height=st.integers(20, 900), width=st.integers(20, 900))
@settings(max_examples=100, deadline=None)
def test_soco_filter_equals_the_rule_written_out(seed: int, count: int, height: int, width: int) -> None:
    boxes = random_boxes(seed, count, height, width)
    config = RegionsConfig(max_ratio=2.7)
    assert soco_filter(boxes, (height, width), config).tolist() == slow_filter(boxes, (height, width), config)


def test_soco_filter_on_an_image_of_480_px_is_socos() -> None:
    boxes = [(0, 0, 31, 93), (0, 0, 450, 480), (0, 0, 200, 190), (0, 0, 100, 301), (10, 10, 490, 410)]
    kept = soco_filter(np.array(boxes, dtype=np.float32), (480, 640), RegionsConfig())
    assert kept.tolist() == [2, 4]  # too narrow; too large; good; too long; good


@pytest.mark.parametrize(
    ("boxes", "kept"),
    [
        ([(0, 0, 20, 20), (0, 0, 200, 20)], [0]),  # none is large enough: the ratio decides
        ([(0, 0, 400, 40), (0, 0, 400, 20)], [0]),  # no good ratio: the side decides
        ([(0, 0, 400, 20)], []),  # nothing: the whole image
        ([], []),
    ],
)
def test_fallbacks(boxes: list[tuple[int, ...]], kept: list[int]) -> None:
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    assert soco_filter(array, (480, 640), RegionsConfig()).tolist() == kept


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = float(max(width, 0) * max(height, 0))
    return common / (float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - common)


@given(seed=st.integers(0, 2**31), count=st.integers(0, 15), limit=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_spread_order_covers_greedily(seed: int, count: int, limit: int) -> None:
    boxes = random_boxes(seed, count, 12, 16)
    order = spread_order(boxes, limit).tolist()
    assert len(set(order)) == len(order) <= limit
    overlap = np.array([[iou(a, b) for b in boxes] for a in boxes]).reshape(len(boxes), len(boxes))
    covered = np.zeros(len(boxes))
    for row in order:
        gains = np.clip(overlap - covered, 0, None).sum(axis=1)
        assert gains[row] == pytest.approx(gains.max(), abs=1e-9)
        covered = np.maximum(covered, overlap[row])
    if len(order) < limit:
        assert covered == pytest.approx(1)  # nothing is left to cover: only repetitions were passed over


def test_a_smaller_limit_gives_the_beginning_of_the_same_order() -> None:
    boxes = random_boxes(3, 60, 40, 50)
    whole = spread_order(boxes, 60)
    np.testing.assert_array_equal(spread_order(boxes, 10), whole[:10])
    np.testing.assert_array_equal(spread_order(boxes.copy(), 60), whole)
