"""Segmentation figures against naive loops over pixels and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score
from sklearn.metrics import confusion_matrix as sklearn_matrix

from d3ssl.errors import InputError
from d3ssl.evaluate.segmentation.metrics import Tally, confusion_matrix, count_classes, tally
from d3ssl.seeds import numpy_generator


def naive(truths: list[np.ndarray], predictions: list[np.ndarray], classes: int) -> tuple[list[float], float]:
    """IoU of every class that is in truth or prediction, and pixel accuracy, pixel by pixel."""
    right, truth_count, named, total, hits = [0] * classes, [0] * classes, [0] * classes, 0, 0
    for truth, predicted in zip(truths, predictions, strict=True):
        for row in range(truth.shape[0]):
            for column in range(truth.shape[1]):
                t, p = int(truth[row, column]), int(predicted[row, column])
                if t == 255:
                    continue
                total += 1
                truth_count[t] += 1
                named[p] += 1
                if t == p:
                    hits += 1
                    right[t] += 1
    unions = [t + n - r for t, n, r in zip(truth_count, named, right, strict=True)]
    return [r / u for r, u in zip(right, unions, strict=True) if u > 0], hits / total


def drawn(seed: int, classes: int, images: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    sizes = [(int(rng.integers(1, 9)), int(rng.integers(1, 9))) for _ in range(images)]
    known = rng.choice(classes, max(1, classes // 2), replace=False)  # some classes are nowhere
    truths = [np.where(rng.random(size) < 0.2, 255, rng.choice(known, size)) for size in sizes]
    truths[0][0, 0] = known[0]
    predictions = [
        np.where(rng.random(size) < 0.5, rng.choice(known, size), rng.integers(0, classes, size)) for size in sizes
    ]
    return truths, predictions


def counted(truths: list[np.ndarray], predictions: list[np.ndarray], classes: int) -> Tally:
    pairs = zip(truths, predictions, strict=True)
    return tally(np.stack([count_classes(confusion_matrix(truth, predicted, classes)) for truth, predicted in pairs]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 5))
def test_equals_the_naive_loop(seed: int, classes: int, images: int) -> None:
    truths, predictions = drawn(seed, classes, images)
    found = counted(truths, predictions, classes)
    ious, accuracy = naive(truths, predictions, classes)
    assert found.miou() == pytest.approx(sum(ious) / len(ious))
    assert found.accuracy() == pytest.approx(accuracy)
    iou = found.iou()
    assert iou[~np.isnan(iou)].tolist() == pytest.approx(ious)


def test_equals_scikit_learn() -> None:
    truths, predictions = drawn(3, 6, 8)
    t, p = np.concatenate([x.ravel() for x in truths]), np.concatenate([x.ravel() for x in predictions])
    t, p = t[t != 255], p[t != 255]
    matrix = sum(confusion_matrix(a, b, 6) for a, b in zip(truths, predictions, strict=True))
    assert np.array_equal(matrix, sklearn_matrix(t, p, labels=range(6)))
    found = counted(truths, predictions, 6)
    present = np.union1d(t, p)
    assert found.miou() == pytest.approx(jaccard_score(t, p, labels=present, average="macro"))
    assert found.accuracy() == pytest.approx(accuracy_score(t, p))


def test_ignored_pixels_never_count() -> None:
    truths, predictions = drawn(5, 5, 4)
    first = counted(truths, predictions, 5)
    rng = np.random.default_rng(0)
    other = [np.where(t == 255, rng.integers(0, 5, t.shape), p) for t, p in zip(truths, predictions, strict=True)]
    second = counted(truths, other, 5)
    assert all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("right", "truth", "named"))
    with_empty = counted([*truths, np.full((3, 3), 255)], [*predictions, np.zeros((3, 3), dtype=int)], 5)
    assert len(with_empty.truth) == len(truths)


def test_bootstrap_is_the_figure_of_the_drawn_images() -> None:
    """Every draw is what a naive loop gives for the images drawn, each as often as it was drawn."""
    truths, predictions = drawn(11, 4, 6)
    found = counted(truths, predictions, 4)
    mious, accuracies = found.bootstrap(300, numpy_generator("draws"))
    again, _ = found.bootstrap(300, numpy_generator("draws"))
    assert np.array_equal(mious, again) and len(set(mious.tolist())) > 20
    generator = numpy_generator("draws")
    times = [*generator.multinomial(6, [1 / 6] * 6, size=256), *generator.multinomial(6, [1 / 6] * 6, size=44)]
    for draw in (0, 1, 2, 255, 256, 299):
        chosen = [image for image in range(6) for _ in range(times[draw][image])]
        ious, accuracy = naive([truths[i] for i in chosen], [predictions[i] for i in chosen], 4)
        assert mious[draw] == pytest.approx(sum(ious) / len(ious))
        assert accuracies[draw] == pytest.approx(accuracy)


def test_bad_input() -> None:
    truth = np.array([[0, 1], [255, 2]])
    for wrong in (np.full((2, 2), 3), np.full((2, 2), -1)):
        with pytest.raises(ValueError, match="0 to 2 are possible"):
            confusion_matrix(truth, wrong, 3)
    with pytest.raises(InputError, match="all pixels of the validation images are ignored"):
        counted([np.full((2, 2), 255)], [np.zeros((2, 2), dtype=int)], 3)
    with pytest.raises(InputError, match="no interval"):
        counted([truth], [np.zeros((2, 2), dtype=int)], 3).bootstrap(100, numpy_generator(1))
