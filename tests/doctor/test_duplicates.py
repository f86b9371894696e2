"""Groups of duplicates against all pairs, compared one by one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from d3ssl.doctor import duplicates
from d3ssl.doctor.duplicates import exact_groups, near_groups
from d3ssl.doctor.look import perceptual_hash


def slow_groups(rows: list[tuple[int, int]], distance: int) -> list[list[int]]:
    """Every pair by its differing bits; groups by following links until nothing changes."""
    group = list(range(len(rows)))
    changed = True
    while changed:
        changed = False
        for i, one in enumerate(rows):
            for j, other in enumerate(rows):
                bits = sum(bin(a ^ b).count("1") for a, b in zip(one, other, strict=True))
                if bits <= distance and group[i] != group[j]:
                    group[i] = group[j] = min(group[i], group[j])
                    changed = True
    found: dict[int, list[int]] = {}
    for place, name in enumerate(group):
        found.setdefault(name, []).append(place)
    return sorted(members for members in found.values() if len(members) > 1)


@st.composite
def hashes(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Some rows, and rows that differ from them by a few bits."""
    seeds = draw(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=1, max_size=5))
    rows = []
    for _ in range(draw(st.integers(1, 14))):
        one, other = draw(st.sampled_from(seeds))
        for bit in draw(st.lists(st.integers(0, 127), max_size=6)):
            one, other = (one ^ (1 << bit), other) if bit < 64 else (one, other ^ (1 << (bit - 64)))
        rows.append((one, other))
    return rows


@given(hashes(), st.sampled_from([0, 1, 2, 4, 6, 15]))
@settings(max_examples=150, deadline=None)
def test_near_groups_are_those_of_all_pairs(rows: list[tuple[int, int]], distance: int) -> None:
    found = near_groups(np.array(rows, dtype=np.uint64), distance)
    assert [group.tolist() for group in found] == slow_groups(rows, distance)
    exact = exact_groups(np.array(rows, dtype=np.uint64))
    assert [group.tolist() for group in exact] == slow_groups(rows, 0)


@given(hashes(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_groups_do_not_depend_on_the_order(rows: list[tuple[int, int]], random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = np.array(rows, dtype=np.uint64)[order]
    found = {frozenset(order[i] for i in group) for group in near_groups(shuffled, 6)}
    assert found == {frozenset(group.tolist()) for group in near_groups(np.array(rows, dtype=np.uint64), 6)}


def test_a_camera_that_stands_still_is_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows agree than are compared, and pairs are joined before all are found."""
    monkeypatch.setattr(duplicates, "MOST_NEIGHBOURS", 20)
    monkeypatch.setattr(duplicates, "_MOST_PAIRS", 500)
    rng = np.random.default_rng(0)
    rows = np.tile(np.array([[12345, 6789]], dtype=np.uint64), (400, 1))
    for _ in range(2):
        rows ^= np.uint64(1) << rng.integers(0, 64, (400, 2)).astype(np.uint64)
    found = near_groups(rows, 6)
    assert len(found) == 1 and len(found[0]) == 400


def test_nothing_is_no_group() -> None:
    empty = np.zeros((0, 2), dtype=np.uint64)
    assert near_groups(empty, 6) == [] and exact_groups(empty) == []


def distance(one: Image.Image, other: Image.Image) -> int:
    first, second = (perceptual_hash(np.asarray(image.convert("RGB")))[0] for image in (one, other))
    return int(np.bitwise_count(first ^ second).sum())


def photograph(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(3))


def test_the_hash_survives_size_compression_and_brightness_and_tells_images_apart() -> None:
    images = [photograph(seed) for seed in range(12)]
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=50)
        assert distance(image, Image.open(buffer)) <= 6
        assert distance(image, image.resize((200, 150), Image.Resampling.BILINEAR)) <= 6
        assert distance(image, image.point(lambda value: int(value * 0.8))) <= 6
    apart = [distance(one, other) for i, one in enumerate(images) for other in images[:i]]
    assert min(apart) > 30


def test_the_hash_is_that_of_the_definition(tmp_path: Path) -> None:
    cells = np.random.default_rng(3).permutation(81).reshape(9, 9).astype(np.uint8) * 3
    found, blank = perceptual_hash(np.repeat(np.repeat(cells, 8, axis=0), 8, axis=1)[..., None])
    right = "".join("1" if cells[r, c + 1] > cells[r, c] else "0" for r in range(8) for c in range(8))
    below = "".join("1" if cells[r + 1, c] > cells[r, c] else "0" for r in range(8) for c in range(8))
    assert found.tolist() == [int(right, 2), int(below, 2)] and not blank
    assert perceptual_hash(np.full((40, 30, 3), 7, dtype=np.uint8))[1]
