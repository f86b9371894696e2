"""Graph segmentation against the paper's procedure written out slowly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from d3ssl.regions.segmentation import segment, smooth, sorted_edges


def slow_segments(planes: np.ndarray, scale: float, min_size: int) -> np.ndarray:
    """Felzenszwalb and Huttenlocher, algorithm 1 and the joining of small components, with sets of pixels."""
    _, height, width = planes.shape
    edges = []
    for i in range(height):
        for j in range(width):
            for d, (y, x) in enumerate(((i, j + 1), (i + 1, j), (i + 1, j + 1), (i + 1, j - 1))):
                if y < height and 0 <= x < width:
                    total = np.float32(0)
                    for plane in planes:
                        total += (plane[i, j] - plane[y, x]) ** 2
                    weight = np.sqrt(total)
                    edges.append((int(weight * 32), 4 * (i * width + j) + d, float(weight), (i, j), (y, x)))
    edges.sort()
    component = {(i, j): frozenset({(i, j)}) for i in range(height) for j in range(width)}
    inner = dict.fromkeys(component.values(), 0.0)

    def join(a: frozenset, b: frozenset, weight: float) -> None:
        both = a | b
        inner[both] = weight
        for pixel in both:
            component[pixel] = both

    for _, _, weight, p, q in edges:
        a, b = component[p], component[q]
        if a != b and weight <= min(inner[a] + scale / len(a), inner[b] + scale / len(b)):
            join(a, b, weight)
    for _, _, weight, p, q in edges:
        a, b = component[p], component[q]
        if a != b and min(len(a), len(b)) < min_size:
            join(a, b, weight)
    names: dict[frozenset, int] = {}
    labels = np.zeros((height, width), dtype=np.int32)
    for i in range(height):
        for j in range(width):
            labels[i, j] = names.setdefault(component[i, j], len(names))
    return labels


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_slow_procedure(seed: int) -> None:
    generator = np.random.default_rng(seed)
    planes = (generator.random((1 + seed % 3, 9, 13)) * 255).astype(np.float32)
    planes[:, :, 6:] *= np.float32(0.1)
    scale, least = float(generator.uniform(5, 800)), int(generator.integers(1, 12))
    labels, count = segment(sorted_edges(planes), (9, 13), scale, least)
    expected = slow_segments(planes, scale, least)
    np.testing.assert_array_equal(labels, expected)
    assert count == expected.max() + 1


@given(seed=st.integers(0, 2**31), scale=st.floats(0, 2000), least=st.integers(1, 30), grey=st.booleans())
@settings(max_examples=30, deadline=None)
def test_segments_are_connected_large_enough_and_numbered_in_order(
    seed: int, scale: float, least: int, grey: bool
) -> None:
    planes = (np.random.default_rng(seed).integers(0, 4, (1 if grey else 3, 12, 17)) * 60).astype(np.float32)
    labels, count = segment(sorted_edges(smooth(planes, 0.5)), (12, 17), scale, least)
    numbers, first = np.unique(labels, return_index=True)
    assert numbers.tolist() == list(range(count))
    assert (np.diff(first) > 0).all()
    for number in range(count):
        parts = np.empty(labels.shape, dtype=np.int32)
        assert ndimage.label(labels == number, structure=np.ones((3, 3)), output=parts) == 1
        assert (labels == number).sum() >= least


def test_flat_image_is_one_segment_and_two_halves_are_two() -> None:
    planes = np.full((3, 10, 10), 90, dtype=np.float32)
    assert segment(sorted_edges(planes), (10, 10), 10.0, 1)[1] == 1
    planes[:, :, 4:] = 200
    labels, count = segment(sorted_edges(planes), (10, 10), 10.0, 1)
    assert count == 2
    assert (labels[:, :4] == 0).all()
    assert (labels[:, 4:] == 1).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2)])
def test_tiny_images(shape: tuple[int, int]) -> None:
    planes = np.zeros((3, *shape), dtype=np.float32)
    assert segment(sorted_edges(smooth(planes, 0.8)), shape, 50.0, 20)[1] == 1


def test_smooth_is_a_gaussian_filter() -> None:
    planes = (np.random.default_rng(0).random((2, 20, 30)) * 255).astype(np.float32)
    expected = ndimage.gaussian_filter(planes, (0, 1.0, 1.0), mode="nearest", truncate=3)
    np.testing.assert_allclose(smooth(planes, 1.0), expected, atol=1e-3)
    assert smooth(planes, 0.0) is planes
