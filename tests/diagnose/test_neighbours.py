"""Probes of neighbours and of other sizes: what is crossed, what is held apart, and what is kept in a file."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from d3ssl.data.image_set import ImageSet
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.sources import open_images
from d3ssl.diagnose import DiagnoseConfig, ProbeFile, ProbeSet, build_probes, save_probes
from d3ssl.diagnose.cutouts import find_candidates
from d3ssl.diagnose.neighbours import choose_cast
from d3ssl.diagnose.sets import arrays, from_arrays, identify
from d3ssl.errors import CheckpointError, InputError

SIZE = 60
CONFIG = DiagnoseConfig(size=SIZE, objects=10, neighbour_classes=3, other_sides=(0.2, 0.3), contexts=3)
GREY = 128


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("neighbours") / "scenes"
    make_scenes(folder, ScenesConfig(images=24, val_images=1, size=64, num_classes=4, themes=2, workers=1))
    return open_images(folder / "train")


@pytest.fixture(scope="module")
def probes(scenes: ImageSet) -> ProbeSet:
    return build_probes(scenes, CONFIG, 0)


def extent(seen: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_every_object_stands_beside_every_class_at_both_distances(probes: ProbeSet) -> None:
    own = probes.neighbour
    assert own is not None and own.shown.images.shape[:2] == (10, 6)
    pairs = set(zip(own.label.tolist(), own.distance.tolist(), strict=True))
    assert len(pairs) == 6 and len(set(own.label.tolist())) == 3
    assert (own.shown.boxes == own.shown.boxes[:, :1]).all()


def test_a_neighbour_touches_the_box_or_stands_in_a_corner(probes: ProbeSet) -> None:
    own = probes.neighbour
    assert own is not None
    for number in range(10):
        x1, y1, x2, y2 = own.shown.boxes[number, 0].astype(int).tolist()
        for condition, distance in enumerate(own.distance.tolist()):
            seen = (own.shown.images[number, condition] != GREY).any(axis=2)
            inside = seen[y1:y2, x1:x2].copy()
            seen[y1:y2, x1:x2] = False
            assert inside.any() and seen.any()
            left, top, right, bottom = extent(seen)
            assert max(right - left, bottom - top) <= 13  # a third of what is left of the image
            gap = max(left - x2, x1 - right, top - y2, y1 - bottom)
            if distance == 0:
                assert gap <= 2  # the outline of a cut-out may be grey
            else:
                assert min(left, SIZE - right) <= 2 and min(top, SIZE - bottom) <= 2
                assert min(max(left - x2, x1 - right), max(top - y2, y1 - bottom)) >= 4


def test_folds_have_no_object_in_common_and_hold_in_every_set(scenes: ImageSet) -> None:
    """Objects' folds are those of their rows among all candidates, whatever the set."""
    candidates = find_candidates(scenes, CONFIG.min_side)
    cast = choose_cast(candidates, CONFIG)
    assert cast is not None and len(cast.classes) == 3
    for label in np.unique(candidates.label):
        counts = np.bincount(cast.fold[candidates.label == label], minlength=3)
        assert np.ptp(counts) <= 1
    fold = dict(zip(candidates.identity.tolist(), cast.fold.tolist(), strict=True))
    for seed in range(2):
        found = build_probes(scenes, CONFIG, seed)
        assert found.neighbour is not None
        assert [fold[identity] for identity in found.identities.tolist()] == found.neighbour.fold.tolist()


def test_masks_lie_on_the_object(probes: ProbeSet) -> None:
    """Everything that is not grey is the object's, at every place."""
    masks = probes.position.masks(np.arange(90))
    assert masks is not None and masks.shape == (90, SIZE, SIZE) and masks.max() == 1
    images = probes.position.images.reshape(90, SIZE, SIZE, 3)
    differs = np.any(np.abs(images.astype(int) - GREY) > 1, axis=3)
    assert (masks[differs] > 0).all()
    assert np.mean(differs[masks == 1]) > 0.5
    for number, box in enumerate(probes.position.boxes.reshape(90, 4).tolist()):
        assert extent(masks[number] > 0) == tuple(map(int, box))
    assert replace(probes.position, alpha=None).masks(np.arange(3)) is None


def test_other_sizes_have_the_same_contexts(scenes: ImageSet, probes: ProbeSet) -> None:
    assert [sized.side for sized in probes.sizes] == [0.2, 0.3]
    for sized in probes.sizes:
        longer = (sized.position.boxes[..., 2:] - sized.position.boxes[..., :2]).max(axis=2)
        assert (longer == round(sized.side * SIZE)).all()
        outside = np.ones((SIZE, SIZE), dtype=bool)
        outside[18:42, 18:42] = False
        assert (sized.context.images[:, :, outside] == probes.context.images[:, :, outside]).all()
    plain = build_probes(scenes, replace(CONFIG, other_sides=(), neighbour_classes=0), 0)
    assert (plain.context.images == probes.context.images).all() and plain.neighbour is None
    assert plain.digest != probes.digest


def test_too_few_objects_beside_are_said(scenes: ImageSet, capsys: pytest.CaptureFixture[str]) -> None:
    few = scenes.subset(list(range(4)))
    found = build_probes(few, replace(CONFIG, objects=4, max_bad_share=0.0), 0)
    shown = " ".join(capsys.readouterr().err.split())
    assert found.neighbour is None
    assert "neighbour leakage is not measured" in shown and "4 objects" in shown


def test_bad_options() -> None:
    for bad in (
        DiagnoseConfig(neighbour_classes=1),
        DiagnoseConfig(other_sides=(0.2, 0.6)),
        DiagnoseConfig(padding=("zeros", "zeros")),
        DiagnoseConfig(receptive_margin=-0.1),
        DiagnoseConfig(gradient_objects=-1),
        DiagnoseConfig(blocks=0),
    ):
        with pytest.raises(InputError, match="out of range"):
            bad.check()


def same(one: ProbeSet, other: ProbeSet) -> bool:
    a, b = arrays(one), arrays(other)
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_probes_come_back_from_a_file_as_they_were(scenes: ImageSet, probes: ProbeSet, tmp_path: Path) -> None:
    path, sets = tmp_path / "probes.npz", [probes, build_probes(scenes, CONFIG, 1)]
    passed = list(save_probes(path, sets, options={"size": SIZE}, data="scenes"))
    assert [own.digest for own in passed] == [own.digest for own in sets]
    with ProbeFile(path) as file:
        assert len(file) == 2 and file.options == {"size": SIZE} and file.data == "scenes" and file.channels == 3
        back = list(file)
    assert all(same(one, two) and one.digest == two.digest for one, two in zip(back, sets, strict=True))
    first = path.read_bytes()
    list(save_probes(path, sets, options={"size": SIZE}, data="scenes"))
    assert path.read_bytes() == first
    with np.load(path, allow_pickle=False) as plain:  # another reader
        assert (plain["set0/context/images"] == probes.context.images).all()
        assert json.loads(bytes(plain["manifest"]))["digests"][0] == probes.digest
    bare = replace(probes, neighbour=None, sizes=(), context=replace(probes.context, alpha=None))
    assert same(from_arrays(arrays(bare)), bare)


def test_every_part_counts_in_the_checksum(probes: ProbeSet) -> None:
    found = arrays(probes)
    assert identify(found) == probes.digest
    for name, array in found.items():
        changed = array.copy()
        changed.reshape(-1)[-1] += 1
        assert identify(found | {name: changed}) != probes.digest, name


def test_damaged_and_foreign_files(probes: ProbeSet, tmp_path: Path) -> None:
    path = tmp_path / "probes.npz"
    with pytest.raises(InputError, match="no such file"):
        ProbeFile(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(InputError, match="not a file of probes"):
        ProbeFile(path)
    list(save_probes(path, [probes]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a file of probes"):
        ProbeFile(path)
    path.write_bytes(whole)
    exchanged = tmp_path / "exchanged.npz"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(exchanged, "w") as new:
        for name in old.namelist():
            data = bytearray(old.read(name))
            if name == "set0/context/boxes.npy":
                data[-1] ^= 1
            new.writestr(name, bytes(data))
    with ProbeFile(exchanged) as file, pytest.raises(CheckpointError, match="checksum"):
        list(file)


def test_a_file_that_is_not_finished_is_not_there(probes: ProbeSet, tmp_path: Path) -> None:
    sets = save_probes(tmp_path / "probes.npz", [probes, probes])
    next(sets)
    sets.close()
    assert list(tmp_path.iterdir()) == []
