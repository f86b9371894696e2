"""Scenes: annotations agree with pixels, statistics with the options, the result with the seed alone."""

import errno
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import stats

from d3ssl.data.scenes import Scene, ScenesConfig, Sprite, World, make_scenes, open_world, splits
from d3ssl.data.scenes.backgrounds import Background
from d3ssl.data.scenes.compose import compose, draw_habits
from d3ssl.data.scenes.make import _written_beside
from d3ssl.data.sources import open_images
from d3ssl.errors import D3sslError, InputError
from d3ssl.seeds import numpy_generator

TINY = ScenesConfig(images=60, val_images=12, size=64, workers=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "tiny"
    make_scenes(out, TINY)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------- annotations, pixels


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # inside pycocotools, with NumPy 2
@pytest.mark.parametrize(("split", "images"), [("train", 60), ("val", 12), ("val_shuffled", 12)])
def test_annotations_load_in_pycocotools_and_agree_with_the_semantic_maps(made: Path, split: str, images: int) -> None:
    coco: Any = COCO(made / split / "annotations.json")
    assert len(coco.imgs) == len(list((made / split / "images").iterdir())) == images
    assert len(coco.cats) == 24
    for image_id, image in coco.imgs.items():
        pixels = simplejpeg.decode_jpeg((made / split / "images" / image["file_name"]).read_bytes())
        assert pixels.shape == (image["height"], image["width"], 3) == (64, 64, 3)
        stem = Path(image["file_name"]).stem
        semantic = np.asarray(Image.open(made / split / "semantic" / f"{stem}.png"))
        rebuilt = np.zeros_like(semantic)
        annotations = coco.imgToAnns[image_id]
        assert 2 <= len(annotations) <= 5
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert not rebuilt[mask].any()  # visible masks do not overlap
            rebuilt[mask] = annotation["category_id"]
            assert mask.sum() == annotation["area"] == coco_mask.area(coco.annToRLE(annotation))
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
            assert 0.5 <= annotation["visible"] <= 1
        assert np.array_equal(rebuilt, semantic)


class FlatObjects:
    """Opaque squares whose colour is (label + 1, …): the picture itself tells what is visible."""

    names = tuple("abcdef")

    def render(self, label: int, side: float, rng: np.random.Generator) -> Sprite:
        side = round(side)
        return Sprite(np.full((side, side, 3), label + 1, np.uint8), np.full((side, side), 255, np.uint8))


class BlackBackgrounds:
    def render(self, theme: int, labels: Collection[int], rng: np.random.Generator) -> Background:
        return Background(np.zeros((64, 64, 3), np.uint8))


def flat_world(**options) -> World:
    config = replace(ScenesConfig(size=64, themes=3), **options)
    habits = draw_habits(6, config)
    return World(config=config, objects=FlatObjects(), backgrounds=BlackBackgrounds(), habits=habits)


def test_the_project_reads_its_own_scenes(made: Path) -> None:
    images = open_images(made / "val")
    assert len(images) == 12
    assert images.annotations is not None
    for index in range(12):
        objects, masks = images.annotations.objects(index), images.annotations.masks(index)
        semantic = np.asarray(Image.open(made / "val" / "semantic" / f"{index:06d}.png"))
        assert np.array_equal((masks * (objects.labels[:, None, None] + 1)).sum(0), semantic)
        for box, mask in zip(objects.boxes, masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_picture_shows_what_the_masks_say() -> None:
    world = flat_world(min_objects=3)
    for seed in range(60):
        scene = compose(world, 0.9, 0.7, np.random.default_rng(seed))
        labels = np.array([0, *(one.label + 1 for one in scene.objects)])
        assert np.array_equal(scene.image[..., 0], labels[scene.owner])
        for number, one in enumerate(scene.objects, start=1):
            side = int(np.sqrt(one.pixels))
            assert side**2 == one.pixels
            assert (scene.owner == number).sum() >= 0.5 * one.pixels
            if number == len(scene.objects):  # the front one is whole, at the place that is recorded
                left, top = (round(value * (64 - side)) for value in one.place)
                assert (scene.owner[top : top + side, left : left + side] == number).all()
                assert (scene.owner == number).sum() == one.pixels


def test_half_transparent_edges_mix_with_the_background() -> None:
    class Ghosts(FlatObjects):
        def render(self, label: int, side: float, rng: np.random.Generator) -> Sprite:
            alpha = np.full((20, 20), 255, np.uint8)
            alpha[:, 0] = 100
            return Sprite((alpha[..., None] // np.array([1, 2, 5], np.uint8)).astype(np.uint8), alpha)

    class Grey:
        def render(self, theme: int, labels: Collection[int], rng: np.random.Generator) -> Background:
            return Background(np.full((64, 64, 3), 51, np.uint8))

    world = replace(flat_world(min_objects=1, max_objects=1), objects=Ghosts(), backgrounds=Grey())
    scene = compose(world, 0.0, 0.0, np.random.default_rng(0))
    rows, columns = np.nonzero(scene.owner)
    assert rows.size == 20 * 19
    edge = scene.image[rows[0], columns.min() - 1]
    assert edge.tolist() == [100 + 31, 50 + 31, 20 + 31]  # 51 · 155 / 255 = 31


def test_objects_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(InputError, match="do not fit"):
        compose(flat_world(min_objects=40, max_objects=40), 0.0, 0.0, np.random.default_rng(0))


# ---------------------------------------------------------------------------------------------------------- statistics


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Scene]]:
    world = flat_world(object_side=(0.25, 0.3), max_objects=3)
    return {
        "val": [compose(world, 0.9, 0.7, numpy_generator("val", i)) for i in range(1500)],
        "val_shuffled": [compose(world, 0.0, 0.0, numpy_generator("shuffled", i)) for i in range(1500)],
    }


@pytest.mark.parametrize(("split", "expected"), [("val", 0.9 + 0.1 / 3), ("val_shuffled", 1 / 3)])
def test_cooccurrence_is_as_configured(drawn: dict[str, list[Scene]], split: str, expected: float) -> None:
    theme = flat_world().habits.theme
    agree = [theme[one.label] == scene.about["theme"] for scene in drawn[split] for one in scene.objects]
    assert stats.binomtest(sum(agree), len(agree), expected).pvalue > 0.001
    backgrounds = [scene.about["background"] == scene.about["theme"] for scene in drawn[split]]
    assert stats.binomtest(sum(backgrounds), len(backgrounds), expected).pvalue > 0.001


def test_classes_are_independent_of_each_other_and_of_the_background_only_when_shuffled(
    drawn: dict[str, list[Scene]],
) -> None:
    for split, dependent in (("val", True), ("val_shuffled", False)):
        neighbours, grounds = np.zeros((6, 6)), np.zeros((6, 3))
        for scene in drawn[split]:
            neighbours[scene.objects[0].label, scene.objects[1].label] += 1
            grounds[scene.objects[0].label, scene.about["background"]] += 1
        for table in (neighbours, grounds):
            p_value: Any = stats.chi2_contingency(table)[1]
            assert p_value < 1e-6 if dependent else p_value > 0.001


@pytest.mark.parametrize("split", ["val", "val_shuffled"])
def test_every_class_is_equally_frequent(drawn: dict[str, list[Scene]], split: str) -> None:
    first = np.bincount([scene.objects[0].label for scene in drawn[split]], minlength=6)
    assert stats.chisquare(first).pvalue > 0.001


def test_places_are_as_configured(drawn: dict[str, list[Scene]]) -> None:
    """The first object of a scene finds its place at once, so its place follows the rule exactly."""
    preferred = flat_world().habits.place
    for split, share in (("val", 0.7), ("val_shuffled", 0.0)):
        places = np.array([scene.objects[0].place for scene in drawn[split]])
        labels = [scene.objects[0].label for scene in drawn[split]]
        near = np.hypot(*(places - preferred[labels]).T) < 0.2
        oracle = np.random.default_rng(0)
        points = preferred[oracle.integers(6, size=200_000)]
        uniform = (np.hypot(*(oracle.random((200_000, 2)) - points).T) < 0.2).mean()
        gauss = oracle.normal(points, 0.1)
        gauss = np.where(gauss < 0, -gauss, np.where(gauss > 1, 2 - gauss, gauss))
        expected = share * (np.hypot(*(gauss - points).T) < 0.2).mean() + (1 - share) * uniform
        assert stats.binomtest(int(near.sum()), len(near), expected).pvalue > 0.001
        for axis in range(2):
            p_value = stats.kstest(places[:, axis], "uniform").pvalue
            assert p_value > 0.001 or split == "val"


def test_certain_habits_leave_nothing_to_chance() -> None:
    world = flat_world(place_spread=0.0, min_objects=1, max_objects=4, object_side=(0.25, 0.3))
    for seed in range(40):
        scene = compose(world, 1.0, 1.0, np.random.default_rng(seed))
        assert scene.about["background"] == scene.about["theme"]
        for one in scene.objects:
            assert world.habits.theme[one.label] == scene.about["theme"]
            assert one.place == pytest.approx(tuple(world.habits.place[one.label]))


def test_habits() -> None:
    habits = draw_habits(26, ScenesConfig())
    assert sorted(np.bincount(habits.theme)) == [4, 4, 4, 4, 5, 5]
    assert (habits.place >= 0.1).all()
    assert (habits.place <= 0.9).all()
    apart = np.hypot(*(habits.place[:, None] - habits.place[None]).transpose(2, 0, 1))[~np.eye(26, dtype=bool)]
    assert apart.min() > 0.05
    for theme in range(6):
        mates = habits.place[habits.theme == theme]
        apart = np.hypot(*(mates[:, None] - mates[None]).transpose(2, 0, 1))[~np.eye(len(mates), dtype=bool)]
        assert apart.min() > 0.15
    assert not np.array_equal(habits.theme, draw_habits(26, ScenesConfig(seed=1)).theme)
    with pytest.raises(InputError, match="6 themes for 5 classes"):
        draw_habits(5, ScenesConfig())


# ------------------------------------------------------------------------------------------------- files, repeatability


def test_splits_have_their_own_scenes_and_options() -> None:
    world = open_world(TINY)
    train, val, shuffled = splits(TINY)
    assert (val.cooccurrence, val.place_preference) == (train.cooccurrence, train.place_preference) == (0.9, 0.7)
    assert (shuffled.cooccurrence, shuffled.place_preference) == (0, 0)
    pictures = [world.draw(split, index).image for split in (train, val, shuffled) for index in range(3)]
    assert len({picture.tobytes() for picture in pictures}) == 9
    assert np.array_equal(world.draw(val, 2).image, pictures[5])


def test_result_depends_on_the_seed_but_not_on_the_processes(made: Path, tmp_path: Path) -> None:
    make_scenes(tmp_path / "two", replace(TINY, workers=2))
    assert contents(made) == contents(tmp_path / "two")
    make_scenes(tmp_path / "other", replace(TINY, images=2, val_images=1, seed=1))
    assert (tmp_path / "other/train/images/000000.jpg").read_bytes() != contents(made)["train/images/000000.jpg"]


def test_more_scenes_begin_with_the_same_ones(made: Path, tmp_path: Path) -> None:
    make_scenes(tmp_path / "few", replace(TINY, images=7, val_images=2))
    few, many = contents(tmp_path / "few"), contents(made)
    assert all(many[name] == data for name, data in few.items() if name.startswith("train/images"))


def test_what_is_there_is_reused_or_refused_but_never_overwritten(made: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    make_scenes(made, replace(TINY, workers=2))
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    with pytest.raises(InputError, match=r"made differently \(size, seed\)"):
        make_scenes(made, replace(TINY, size=96, seed=3))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="does not hold scenes"):
        make_scenes(tmp_path, TINY)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_killed_run_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    (tmp_path / ".scenes.partial" / "train").mkdir(parents=True)  # what a killed run leaves
    out.mkdir()
    make_scenes(out, replace(TINY, images=2, val_images=1, image_format="png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scenes"]
    assert sorted(path.name for path in out.iterdir()) == ["scenes.json", "train", "val", "val_shuffled"]
    world = open_world(TINY)
    stored = np.asarray(Image.open(out / "train/images/000001.png"))
    assert np.array_equal(stored, world.draw(splits(TINY)[0], 1).image)
    described = json.loads((out / "scenes.json").read_text())
    assert [one["name"] for one in described["classes"]] == list(world.objects.names)
    assert [one["theme"] for one in described["classes"]] == world.habits.theme.tolist()


def test_full_disk_and_unwritable_folder(tmp_path: Path) -> None:
    def fill() -> None:
        with _written_beside(tmp_path / "out") as partial:
            (partial / "file").touch()
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(D3sslError, match="disk is full"):
        fill()
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(D3sslError, match="cannot be written"):
        make_scenes(tmp_path / "file" / "scenes", replace(TINY, images=1, val_images=1))


def test_photographic_scenes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    (tmp_path / "cut").mkdir()
    for number in range(300):
        pixels = rng.integers(0, 255, (20, 20, 4), dtype=np.uint8)
        pixels[..., 3] = 255
        pixels[:3, :3, 3] = 0
        Image.fromarray(pixels).save(tmp_path / f"cut/{number:03d}.png")
    for number in range(2):
        Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(tmp_path / f"photos/{number}.png")
    config = replace(TINY, cutouts=f"{tmp_path}/cut", backgrounds=f"{tmp_path}/photos", themes=2, val_images=2)
    make_scenes(tmp_path / "out", config)
    coco = COCO(tmp_path / "out/train/annotations.json")
    assert len(coco.cats) == 300
    semantic = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "out/train/semantic").iterdir())])
    assert semantic.max() == max(one["category_id"] for one in coco.anns.values()) > 255  # kept in 16 bits
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "photos/new.png")
    with pytest.raises(InputError, match="other source files"):
        make_scenes(tmp_path / "out", config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", 0),
        ("val_images", 0),
        ("size", 16),
        ("num_classes", 1),
        ("themes", 0),
        ("cooccurrence", 1.1),
        ("place_preference", -0.1),
        ("min_objects", 0),
        ("max_objects", 1),
        ("object_side", (0.5, 0.25)),
        ("object_side", (0.01, 0.25)),
        ("min_visible", 2.0),
        ("rotation", 181.0),
        ("brightness", 1.0),
        ("quality", 0),
        ("max_backgrounds", 5),
        ("workers", -1),
    ],
)
def test_options_out_of_range_are_named(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        make_scenes(tmp_path / "out", replace(ScenesConfig(), **{name: value}))
    assert not (tmp_path / "out").exists()


def test_default_number_of_validation_scenes() -> None:
    assert ScenesConfig().num_val() == 1000
    assert ScenesConfig(images=60).num_val() == 200
    assert ScenesConfig(val_images=7).num_val() == 7
