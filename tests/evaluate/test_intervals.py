"""Bootstrap intervals: coverage, and that the image is what is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from d3ssl.errors import InputError
from d3ssl.evaluate.intervals import bootstrap_accuracy, bootstrap_class_accuracy, class_accuracy, interval
from d3ssl.seeds import numpy_generator


def test_width_follows_the_number_of_images_not_of_objects() -> None:
    """Ten copies of every object in its image add nothing: the interval stays. As images of their own they narrow it
    by √10."""
    rng = numpy_generator("copies")
    correct = rng.random(300) < 0.5
    image = np.arange(300)

    def width(right: np.ndarray, of: np.ndarray) -> float:
        low, high = interval(bootstrap_accuracy(right, of.astype(np.int64), 4000, numpy_generator("draws")))
        return high - low

    alone = width(correct, image)
    assert alone == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(300), rel=0.1)
    assert width(np.repeat(correct, 10), np.repeat(image, 10)) == pytest.approx(alone, rel=0.05)
    assert width(np.repeat(correct, 10), np.arange(3000)) == pytest.approx(alone / np.sqrt(10), rel=0.1)


def test_coverage_of_clustered_data() -> None:
    """Of 95 % intervals about 95 % hold the truth although objects of an image share their fate."""
    rng, hits = numpy_generator("coverage"), 0
    for _ in range(300):
        counts = rng.integers(1, 6, 80)
        image = np.repeat(np.arange(80), counts)
        correct = np.repeat(rng.random(80) < 0.3, counts)
        low, high = interval(bootstrap_accuracy(correct, image, 400, rng))
        hits += low <= 0.3 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_determinism_and_bad_input() -> None:
    correct, image = np.array([True, False, True]), np.array([0, 0, 4])
    first = bootstrap_accuracy(correct, image, 500, numpy_generator(1))
    assert np.array_equal(first, bootstrap_accuracy(correct, image, 500, numpy_generator(1)))
    assert set(np.round(first, 6)) <= {0.5, round(2 / 3, 6), 1.0}
    with pytest.raises(InputError, match="no interval"):
        bootstrap_accuracy(correct, np.zeros(3, dtype=np.int64), 500, numpy_generator(1))


def test_class_accuracy_and_its_draws_equal_a_naive_loop() -> None:
    rng = numpy_generator("classes")
    truth, image = rng.integers(0, 5, 60), rng.integers(0, 12, 60)
    correct = (rng.random(60) < 0.6).astype(np.float64)

    def naive(rows: np.ndarray) -> float:
        return float(np.mean([correct[rows][truth[rows] == label].mean() for label in np.unique(truth[rows])]))

    assert class_accuracy(correct, truth) == pytest.approx(naive(np.arange(60)))
    pictures = np.unique(image)
    times = numpy_generator("draw").multinomial(len(pictures), np.full(len(pictures), 1 / len(pictures)), size=20)
    wanted = [
        naive(np.concatenate([np.tile(np.flatnonzero(image == p), n) for p, n in zip(pictures, row, strict=True)]))
        for row in times
    ]
    found = bootstrap_class_accuracy(correct, truth, image, 20, numpy_generator("draw"))
    np.testing.assert_allclose(found, wanted)
