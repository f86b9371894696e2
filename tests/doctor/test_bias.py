"""Co-occurrence and positions against slow loops, known answers, and scenes whose habits are set."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.sources import open_images
from d3ssl.doctor.bias import Cooccurrence, Positions, cooccurrence_bias, entropy, mutual_information, position_bias
from d3ssl.doctor.objects import Objects, gather_objects


def slow_pairs(image: list[int], label: list[int], classes: int) -> np.ndarray:
    """Every object with every other of its image, one after the other."""
    paired = [i for i in range(len(image)) if image.count(image[i]) > 1]
    total = np.zeros((classes, classes))
    for one in paired:
        others = [other for other in paired if other != one and image[other] == image[one]]
        for other in others:
            total[label[one], label[other]] += 1 / len(others) / len(paired)
    return total


def slow_information(shares: np.ndarray) -> float:
    found = 0.0
    for a, b in product(range(shares.shape[0]), range(shares.shape[1])):
        if shares[a, b] > 0:
            found += shares[a, b] * math.log(shares[a, b] / (shares[a].sum() * shares[:, b].sum()))
    return found


OBJECTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.floats(0, 1), st.floats(0, 1)), max_size=40)


def columns(objects: list[tuple[int, int, float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    image, label, x, y = (list(column) for column in zip(*objects, strict=True)) if objects else ([], [], [], [])
    places = np.array(x, dtype=np.float64), np.array(y, dtype=np.float64)
    return np.array(image, dtype=np.int64), np.array(label, dtype=np.int64), *places


@given(OBJECTS)
@settings(max_examples=60, deadline=None)
def test_cooccurrence_is_that_of_the_slow_loop(objects: list) -> None:
    image, label, _, _ = columns(objects)
    found = cooccurrence_bias(image, label, 4, draws=5)
    expected = slow_pairs(image.tolist(), label.tolist(), 4)
    np.testing.assert_allclose(found.share, expected, atol=1e-12)
    assert found.bias.information == pytest.approx(slow_information(expected), abs=1e-9)


@given(OBJECTS)
@settings(max_examples=60, deadline=None)
def test_places_are_those_of_the_slow_loop(objects: list) -> None:
    _, label, x, y = columns(objects)
    found = position_bias(label, x, y, 4, draws=5)
    counts = np.zeros((4, 9), dtype=int)
    for own, across, down in zip(label, x, y, strict=True):
        counts[own, 3 * min(int(down * 3), 2) + min(int(across * 3), 2)] += 1
    assert found.counts.tolist() == counts.tolist()
    if len(label):
        assert found.bias.information == pytest.approx(slow_information(counts / len(label)), abs=1e-9)
    for own in range(4):
        shares = [n / counts[own].sum() for n in counts[own] if n]
        slow = -sum(p * math.log(p) for p in shares) / math.log(9) if shares else math.nan
        assert found.entropy[own] == pytest.approx(slow, abs=1e-9, nan_ok=True)


@given(OBJECTS, st.randoms(use_true_random=False), st.permutations(range(6)))
@settings(max_examples=60, deadline=None)
def test_neither_the_order_of_images_nor_that_of_objects_matters(objects: list, random, renamed: list[int]) -> None:  # type: ignore[no-untyped-def]
    image, label, x, y = columns(objects)
    order = list(range(len(image)))
    random.shuffle(order)
    other = np.array(renamed, dtype=np.int64)[image][order]
    one, two = cooccurrence_bias(image, label, 4, 5), cooccurrence_bias(other, label[order], 4, 5)
    np.testing.assert_allclose(one.share, two.share, atol=1e-12)
    np.testing.assert_allclose(one.expected, two.expected, atol=1e-12)
    assert one.bias.chance == pytest.approx(two.bias.chance, abs=1e-12)
    here, there = position_bias(label, x, y, 4, 5), position_bias(label[order], x[order], y[order], 4, 5)
    assert here.bias == there.bias
    np.testing.assert_array_equal(here.expected, there.expected)


def test_classes_dealt_at_random_have_no_bias_however_few_they_are() -> None:
    """Mutual information by itself is far above 0 for few objects; adjusted, its mean over many sets is 0."""
    rng = np.random.default_rng(0)
    values, raw = [], []
    for _ in range(60):
        image, label = np.repeat(np.arange(12), 3), rng.integers(0, 8, 36)
        cooccurrence = cooccurrence_bias(image, label, 8)
        places = position_bias(label, rng.random(36), rng.random(36), 8)
        values.append((cooccurrence.bias.value, places.bias.value))
        raw.append([own.bias.information / own.bias.entropy for own in (cooccurrence, places)])
    assert np.abs(np.mean(values, axis=0)).max() < 0.03
    assert np.mean(raw, axis=0).min() > 0.15


def test_crowded_images_and_a_crowded_middle_are_no_bias() -> None:
    """Images of many objects show more pairs, and all classes prefer the middle: neither tells classes apart."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 20, 300)
    image = np.repeat(np.arange(300), sizes)
    label = rng.choice(6, len(image), p=[0.5, 0.3, 0.1, 0.05, 0.03, 0.02])
    x, y = (np.clip(rng.normal(0.5, 0.12, len(image)), 0, 1) for _ in range(2))
    cooccurrence, places = cooccurrence_bias(image, label, 6), position_bias(label, x, y, 6)
    assert cooccurrence.bias.value == pytest.approx(0, abs=0.01)
    assert places.bias.value == pytest.approx(0, abs=0.01)
    assert places.entropy.max() < 0.75  # the middle is crowded
    assert (np.abs(places.entropy - places.expected) < 4 * places.spread).all()


def test_neighbours_and_positions_that_determine_the_class() -> None:
    image = np.repeat(np.arange(100), 2)
    partners = np.repeat(np.arange(100) % 5, 2)  # both objects of an image are of its class
    assert cooccurrence_bias(image, partners, 5).bias.value == pytest.approx(1)
    label = np.tile(np.arange(9), 20)
    x, y = (label % 3 + 0.5) / 3, (label // 3 + 0.5) / 3
    found = position_bias(label, x, y, 9)
    assert found.bias.value == pytest.approx(1)
    np.testing.assert_allclose(found.preference, 1)


def test_what_cannot_be_told() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert cooccurrence_bias(none, none, 3).bias.value is None
    assert position_bias(none, np.zeros(0), np.zeros(0), 3).bias.value is None
    alone = np.arange(5)
    assert cooccurrence_bias(alone, alone % 2, 2).bias.value is None  # no two objects in an image
    same = np.zeros(6, dtype=np.int64)
    assert cooccurrence_bias(alone[:3].repeat(2), same, 1).bias.value is None  # one class


def test_entropy_and_information() -> None:
    assert entropy(np.array([0.5, 0.25, 0.25, 0])) == pytest.approx(1.5 * math.log(2))
    assert mutual_information(np.eye(4) / 4) == pytest.approx(math.log(4))
    assert mutual_information(np.full((3, 5), 1 / 15)) == pytest.approx(0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Objects]:
    """With habits (co-occurrence and place preference 0.9), and without."""
    folder = tmp_path_factory.mktemp("scenes")
    habits = ScenesConfig(images=240, val_images=240, size=48, workers=1, cooccurrence=0.9, place_preference=0.9)
    make_scenes(folder / "set", habits)
    found = {}
    for name, split in (("habits", "train"), ("none", "val_shuffled")):
        annotations = open_images(folder / "set" / split).annotations
        assert annotations is not None
        found[name] = gather_objects(annotations)
    return found


def measured(objects: Objects) -> tuple[Cooccurrence, Positions]:
    classes = len(objects.names)
    return (
        cooccurrence_bias(objects.image, objects.label, classes),
        position_bias(objects.label, objects.x, objects.y, classes),
    )


def test_scenes_without_habits_have_no_bias_and_with_habits_a_clear_one(scenes: dict[str, Objects]) -> None:
    cooccurrence, places = measured(scenes["none"])
    assert cooccurrence.bias.value == pytest.approx(0, abs=0.02) and abs(cooccurrence.bias.deviations or 9) < 4
    assert places.bias.value == pytest.approx(0, abs=0.03) and abs(places.bias.deviations or 9) < 4
    cooccurrence, places = measured(scenes["habits"])
    assert (cooccurrence.bias.value or 0) > 0.25 and (cooccurrence.bias.deviations or 0) > 30
    assert (places.bias.value or 0) > 0.15 and (places.bias.deviations or 0) > 20


def test_gathered_objects_are_relative_to_their_images(tmp_path: Path) -> None:
    make_scenes(tmp_path / "set", ScenesConfig(images=3, val_images=1, size=48, workers=1))
    annotations = open_images(tmp_path / "set/train").annotations
    assert annotations is not None
    objects = gather_objects(annotations)
    assert objects.per_image.tolist() == [len(annotations.objects(i).labels) for i in range(3)]
    box = annotations.objects(1).boxes[0]
    first = int(objects.per_image[0])
    assert objects.x[first] == pytest.approx(float(box[0] + box[2]) / 96)
    assert objects.y[first] == pytest.approx(float(box[1] + box[3]) / 96)
