"""The rule that chooses images agrees with naive readings of its definition, and a smaller choice begins a larger."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3ssl.data.open_images.boxes import BoxRows, counts
from d3ssl.data.open_images.config import BuildConfig
from d3ssl.data.open_images.select import Census, hash_images, keep_classes, order_pool, satisfies, take_census
from d3ssl.data.open_images.statistics import effective_number
from d3ssl.errors import InputError
from d3ssl.seeds import numpy_generator

Objects = list[tuple[int, int]]
"""(image, class) of objects that count."""


def make_rows(objects: Objects, group: int = 0, depiction: int = 0) -> BoxRows:
    images, labels = (np.array([pair[place] for pair in objects], dtype=np.int64) for place in (0, 1))
    flags = np.tile(np.array([1, -1, group, depiction, 1], dtype=np.int8), (len(objects), 1))
    sides = np.tile([0.1, 0.2, 0.3, 0.4], (len(objects), 1))
    return BoxRows(images=images.astype(np.uint64), labels=labels, sides=sides, flags=flags)


def census_of(objects: Objects, num_classes: int) -> Census:
    return take_census([make_rows(objects)], num_classes, False)


def naive_good(objects: Objects, kept: set[int], config: BuildConfig) -> set[int]:
    good = set()
    for image in {image for image, _ in objects}:
        labels = [label for other, label in objects if other == image and label in kept]
        if len(set(labels)) >= config.min_classes and len(labels) >= config.min_boxes:
            good.add(image)
    return good


@pytest.mark.parametrize("unknown_counts", [False, True])
def test_group_depiction_and_unknown(unknown_counts: bool) -> None:
    """Every combination of the five flags; the three others do not matter."""
    every = list(product((1, 0, -1), repeat=5))
    found = counts(np.array(every, dtype=np.int8), unknown_counts)
    for (_, _, group, depiction, _), counted in zip(every, found.tolist(), strict=True):
        if 1 in (group, depiction):
            assert not counted
        elif -1 in (group, depiction):
            assert counted == unknown_counts
        else:
            assert counted


def test_boxes_that_do_not_count_are_not_in_the_census() -> None:
    parts = [make_rows([(3, 1), (3, 1), (1, 0)]), make_rows([(3, 0)], group=1), make_rows([(2, 0)], depiction=-1)]
    census = take_census(parts, 2, False)
    assert census.images.tolist() == [1, 3]
    assert list(zip(census.image.tolist(), census.label.tolist(), census.objects.tolist(), strict=True)) == [
        (0, 0, 1),
        (1, 1, 2),
    ]
    assert take_census(parts, 2, True).images.tolist() == [1, 2, 3]
    assert len(take_census([], 2, True).images) == 0


some_objects = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=40)


@settings(deadline=None, max_examples=60)
@given(some_objects, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_kept_classes_are_the_greatest_set_of_which_each_has_enough_images(
    objects: Objects, min_classes: int, min_boxes: int, min_class_images: int
) -> None:
    """All sets of classes are tried."""
    config = BuildConfig(min_classes=min_classes, min_boxes=min_boxes, min_class_images=min_class_images)
    best: set[int] = set()
    for size in range(1, 6):
        for kept in map(set, combinations(range(5), size)):
            good = naive_good(objects, kept, config)
            shown = Counter(label for image, label in set(objects) if image in good and label in kept)
            if all(shown[label] >= min_class_images for label in kept):
                best |= kept  # such sets can be united
    census = census_of(objects, 5)
    found = keep_classes(census, config)
    assert set(np.flatnonzero(found).tolist()) == best
    good = {int(image) for image in census.images[satisfies(census, found, config)]}
    assert good == naive_good(objects, best, config)


@settings(deadline=None, max_examples=60)
@given(some_objects, st.lists(st.booleans(), min_size=5, max_size=5), st.text("abc", max_size=3))
def test_order_agrees_with_a_naive_reading(objects: Objects, kept: list[bool], seed_text: str) -> None:
    config = BuildConfig(seed_text=seed_text)
    labels = {label for label in range(5) if kept[label]}
    good = naive_good(objects, labels, config)
    inside = [(image, label) for image, label in objects if image in good and label in labels]
    amounts = Counter(label for _, label in inside)
    keys = {}
    for image in good:
        text = hashlib.sha256(f"{seed_text}/{image:016x}".encode()).hexdigest()
        u = (int(text[:16], 16) >> 11) / 2**53
        keys[image] = u * min(amounts[label] for other, label in inside if other == image)
    pool = order_pool(census_of(objects, 5), np.array(kept), config)
    assert pool.images.tolist() == sorted(good, key=lambda image: (keys[image], image))
    assert pool.keys.tolist() == sorted(keys.values())
    assert pool.class_objects.tolist() == [amounts[label] for label in range(5)]
    assert pool.class_images.tolist() == [len({i for i, c in inside if c == label}) for label in range(5)]


def test_the_hash_is_the_same_everywhere() -> None:
    text = hashlib.sha256(b"OpenImage-MINI/0001eeaf4aed83f9").hexdigest()
    assert text.startswith("a36bb871425b3b65")
    expected = int("a36bb871425b3b65", 16) / 2**64
    found = hash_images(np.array([0x0001EEAF4AED83F9], dtype=np.uint64), "OpenImage-MINI")
    assert found[0] == pytest.approx(expected, abs=2**-53)
    assert found[0] <= expected
    many = hash_images(np.arange(20_000, dtype=np.uint64), "")
    assert many.min() >= 0 and many.max() < 1
    assert many.mean() == pytest.approx(0.5, abs=4 / math.sqrt(12 * 20_000))


def uneven(images: int) -> Objects:
    """Images with 2 to 5 objects of 30 classes whose shares fall as 1/rank²."""
    generator = numpy_generator("uneven")
    share = 1 / np.arange(1, 31) ** 2
    number = generator.integers(2, 6, size=images)
    labels = generator.choice(30, size=int(number.sum()), p=share / share.sum())
    return list(zip(np.repeat(np.arange(images), number).tolist(), labels.tolist(), strict=True))


def objects_by_class(objects: Objects, images: set[int]) -> np.ndarray:
    return np.bincount([label for image, label in objects if image in images], minlength=30).astype(np.int64)


def test_choice_balances_classes_at_every_size() -> None:
    objects = uneven(20_000)
    pool = order_pool(census_of(objects, 30), np.ones(30, dtype=bool), BuildConfig())
    natural = effective_number(pool.class_objects)
    assert natural < 7
    for wanted in (200, 1_000, 5_000):
        chosen = objects_by_class(objects, set(pool.take(wanted, None).tolist()))
        assert effective_number(chosen) > 1.5 * natural, wanted
    assert pool.take(10**9, None).tolist() == pool.images.tolist()


def test_a_cap_bounds_what_is_chosen_for_a_class_itself() -> None:
    """Rarest classes of chosen images: each is met about cap times or less (four standard deviations)."""
    objects = uneven(20_000)
    pool = order_pool(census_of(objects, 30), np.ones(30, dtype=bool), BuildConfig())
    shown: dict[int, set[int]] = {}
    for image, label in objects:
        shown.setdefault(image, set()).add(label)
    before: list[int] = []
    for cap in (10, 100, 400):
        taken = pool.take(10**9, cap).tolist()
        assert taken[: len(before)] == before  # a smaller cap begins a larger one
        rarest = [min(shown[image], key=lambda label: pool.class_objects[label]) for image in taken]
        most = Counter(rarest).most_common(1)[0][1]
        assert most <= cap + 4 * math.sqrt(cap)
        before = taken
        whole = objects_by_class(objects, set(taken))[pool.class_objects <= cap]
        assert whole.tolist() == pool.class_objects[pool.class_objects <= cap].tolist()  # rare classes: all of them


def test_rows_in_any_order_and_chunks_of_any_size_give_the_same_order() -> None:
    objects = uneven(500)
    expected = order_pool(census_of(objects, 30), np.ones(30, dtype=bool), BuildConfig())
    shuffled = [objects[place] for place in numpy_generator("shuffle").permutation(len(objects)).tolist()]
    parts = [make_rows(shuffled[first : first + 7]) for first in range(0, len(shuffled), 7)]
    found = order_pool(take_census(parts, 30, False), np.ones(30, dtype=bool), BuildConfig())
    assert found.images.tolist() == expected.images.tolist()
    assert found.keys.tolist() == expected.keys.tolist()


def test_another_seed_text_is_another_draw() -> None:
    census = census_of(uneven(500), 30)
    one, other = (order_pool(census, np.ones(30, dtype=bool), BuildConfig(seed_text=text)) for text in ("", "b"))
    assert sorted(one.images.tolist()) == sorted(other.images.tolist())
    assert one.images.tolist() != other.images.tolist()


@pytest.mark.parametrize(
    "option",
    [
        {"images": 0},
        {"val_images": -1},
        {"min_classes": 0},
        {"min_class_images": 0},
        {"per_class_cap": 0},
        {"chunk_mb": 0},
        {"seed_text": "a\nb"},
    ],
)
def test_options_out_of_range_are_named(option: dict[str, int | str]) -> None:
    with pytest.raises(InputError, match=f"option {next(iter(option))} = "):
        BuildConfig(**option).check()  # type: ignore[arg-type]
    BuildConfig().check()
