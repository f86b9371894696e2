"""Controlled conditions: the same objects, pixel by pixel, and around them only what the condition says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from d3ssl.cli.main import main
from d3ssl.data.images import read_canvas
from d3ssl.data.scenes import make_scenes
from d3ssl.data.scenes.annotated.conditions import CONDITIONS
from d3ssl.data.scenes.annotated.hosts import find_hosts
from d3ssl.data.scenes.annotated.paste import FEATHER, blended, paint_over, shrunk_mask
from d3ssl.data.scenes.annotated.sides import open_sides
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.evaluate.knn import object_knn
from tests.data.annotated_shapes import BACKGROUNDS, OBJECTS, controlled, write_backgrounds, write_data, write_part

BLENDS = ("none", "feathered", "gaussian")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One photograph shows two objects."""
    root = write_data(tmp_path_factory.mktemp("annotated") / "data", train=8, val=20)
    file = root / "val/annotations.json"
    document = json.loads(file.read_text())
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    image = {"image_id": 0, "category_id": 20, "iscrowd": 0}
    document["annotations"].append({"id": 1, "bbox": [2, 2, 10, 10], "area": 100, "segmentation": square, **image})
    file.write_text(json.dumps(document))
    return root


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On backgrounds that tell nothing, each with three blends."""
    folder = tmp_path_factory.mktemp("conditions")
    backgrounds = write_backgrounds(folder / "photos", count=4)
    make_scenes(folder / "out", controlled(data, blends=BLENDS, backgrounds=str(backgrounds), val_images=500))
    return folder / "out"


@pytest.fixture(scope="module")
def own(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On the data's own photographs."""
    out = tmp_path_factory.mktemp("own") / "out"
    make_scenes(out, controlled(data, val_images=24))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(folder: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int, dict[str, Any]]]:
    """Of every image its pixels, the queried object's mask, the other objects' mask, its label, and its entry."""
    images = open_images(folder)
    assert images.annotations is not None
    found = []
    for index, path in enumerate(images.paths):
        objects, masks = images.annotations.objects(index), images.annotations.masks(index)
        (queried,) = np.flatnonzero(~objects.crowd)
        pixels = np.asarray(Image.open(str(path))).astype(int)
        neighbours = np.delete(masks, queried, axis=0).any(axis=0)
        entry = images.annotations.entries[index]
        found.append((pixels, masks[queried], neighbours, int(objects.labels[queried]), entry))
    return found


def test_an_object_put_back_with_hard_edges_gives_its_photograph_bit_for_bit(made: Path, data: Path) -> None:
    kept, put_back = read(made / "val"), read(made / "val_replaced")
    changed = dict.fromkeys(BLENDS, 0)
    for (before, mask, *_, entry), (after, *_) in zip(kept, put_back, strict=True):
        photograph, _ = read_canvas(data / entry["photograph"].removeprefix("DATA/"), 64)
        assert np.array_equal(before, photograph)
        assert np.array_equal(before[~mask], after[~mask])
        changed[entry["blend"]] += int((before != after).any())
    assert changed == {"none": 0, "feathered": 80, "gaussian": 80}


def test_every_condition_shows_the_same_objects(made: Path, data: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())["splits"]
    assert [*manifest] == ["train", *CONDITIONS] and manifest["train"]["made"] == "photographs"
    queried = [[image["objects"][-1] for image in manifest[name]["images"].values()] for name in CONDITIONS]
    assert all(one == queried[0] for one in queried) and len({tuple(one) for one in queried[0]}) == 80
    assert len(queried[0]) == 3 * 80
    for images in zip(*(read(made / name) for name in CONDITIONS), strict=True):
        assert len({(label, int(mask.sum()), *entry.values()) for _, mask, _, label, entry in images}) == 1
        places = [np.argwhere(mask).min(axis=0).tolist() for _, mask, *_ in images]
        assert places[0] == places[1] == places[2] == places[3]


def test_neighbours_are_there_but_not_asked_about(made: Path) -> None:
    first = open_images(made / "val").annotations
    assert first is not None and first.objects(0).crowd.tolist() == [True, False]
    assert [len(first.objects(index).crowd) for index in range(3, len(first))] == [1] * (len(first) - 3)
    beside = open_images(made / "val_anywhere").annotations
    assert beside is not None
    for index in range(len(beside)):
        objects = beside.objects(index)
        assert objects.crowd.tolist() == [True] * (len(objects.crowd) - 1) + [False] and len(objects.crowd) <= 5
        assert objects.labels[-1] not in objects.labels[:-1]
    assert sum(len(beside.objects(index).crowd) for index in range(len(beside))) > 2.5 * len(beside)


# ----------------------------------------------------------------------------------------------------- what can be read


def accuracies(made: Path, reader: Any) -> dict[str, float]:
    """O-KNN of features that a reader makes of pixels, mask and neighbours; remembered in val."""
    seen = {name: read(made / name) for name in CONDITIONS}
    x = {name: np.array([reader(*one[:3]) for one in own], np.float32) for name, own in seen.items()}
    y = np.array([label for *_, label, _ in seen["val"]])
    rows = {name: (values - x["val"].mean(0)).astype(np.float32) for name, values in x.items()}
    return {name: float((np.asarray(object_knn(rows["val"], y, own, 5)) == y).mean()) for name, own in rows.items()}


def inside(pixels: np.ndarray, mask: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    return pixels[np.asarray(binary_erosion(mask, iterations=5), bool)]


def around(pixels: np.ndarray, mask: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    return np.median(pixels[np.logical_not(binary_dilation(mask | neighbours))], axis=0)


def test_the_pixels_of_an_object_are_the_same_everywhere(made: Path) -> None:
    for images in zip(*(read(made / name) for name in CONDITIONS), strict=True):
        shown = {inside(*image[:3]).tobytes() for image in images}
        assert len(shown) == 1 and min(map(len, shown)) > 0
    found = accuracies(made, lambda *image: inside(*image).mean(0))
    assert set(found.values()) == {1.0}


def test_a_reader_of_the_background_is_at_chance_where_it_is_unfamiliar(made: Path) -> None:
    found = accuracies(made, around)
    assert found["val"] == found["val_replaced"] == found["val_congruent"] == 1
    assert found["val_elsewhere"] == pytest.approx(1 / len(OBJECTS), abs=0.12)
    assert found["val_anywhere"] == found["val_elsewhere"]  # the same photographs


def test_the_objects_of_a_photograph_are_painted_over(own: Path) -> None:
    for name in ("val_congruent", "val_elsewhere"):
        images = json.loads((own / "manifest.json").read_text())["splits"][name]["images"]
        for (pixels, mask, _, label, _), image in zip(read(own / name), images.values(), strict=True):
            host = Path(image["background"]).name[:3]
            assert (host == list(OBJECTS)[label]) == (name == "val_congruent")
            assert image["background"] != image["objects"][-1][0]
            assert np.abs(pixels[~mask] - BACKGROUNDS[host]).max() < 60  # noise of σ = 8; objects differ by 80 and more


# ------------------------------------------------------------------------------------------------------------ the parts


@pytest.mark.parametrize("blend", BLENDS)
def test_edges_fade_inwards(blend: Any) -> None:
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), np.zeros((40, 40), bool)
    mask[5:30, 8:40] = True  # cut off by the photograph's border
    hard, soft, left, top = blended(image, mask, blend)
    assert (left, top) == (8, 5) and (hard.alpha == 255).all() and np.array_equal(hard.colour, image[5:30, 8:])
    assert (soft.alpha[5:-5, 5:-5] == 255).all()
    assert np.array_equal(soft.colour[5:-5, 5:-5], hard.colour[5:-5, 5:-5])
    edge = soft.alpha[12].astype(int)
    assert (np.diff(edge[:8]) >= 0).all() and np.array_equal(edge, edge[::-1])
    assert {"none": edge[0] == 255, "feathered": edge[0] == 255 // (FEATHER + 1), "gaussian": 0 < edge[0] < 128}[blend]


def test_a_hole_in_a_ramp_is_filled_with_the_ramp() -> None:
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, :, None] * 6, (32, 32, 3)).copy()
    hole = np.zeros((32, 32), bool)
    hole[10:20, 12:22] = True
    spoilt = np.where(hole[..., None], np.uint8(255), ramp)
    assert np.abs(paint_over(spoilt, hole).astype(int) - ramp).max() <= 1
    assert paint_over(ramp, ~np.ones_like(hole)) is ramp
    assert (paint_over(ramp, np.ones_like(hole)) == ramp.mean(dtype=float).astype(np.uint8)).all()


def test_masks_shrink_with_their_photographs_and_never_vanish() -> None:
    mask = np.zeros((60, 90), bool)
    mask[20:40, 30:60] = True
    expected = np.zeros((30, 30), bool)
    expected[10:20, 10:20] = True
    assert np.array_equal(shrunk_mask(mask, 30, 0.5), expected)
    thin = np.zeros((60, 90), bool)
    thin[7] = True
    assert shrunk_mask(thin, 6, 0.5).sum() == 6


def test_neighbours_are_of_classes_that_share_the_fewest_photographs(data: Path) -> None:
    hosts = find_hosts(open_sides(controlled(data)), tuple(OBJECTS), 64, ())
    ant, bee, cat, dog = range(4)  # one photograph shows an ant and a bee
    assert hosts.strangers == ((cat, dog), (cat, dog), (ant, bee, dog), (ant, bee, cat))
    assert hosts.shows.sum() == 81 and hosts.shows[0].tolist() == [True, True, False, False]


# ------------------------------------------------------------------------------------------ the same, and what is wrong


def test_the_seed_decides_everything_and_the_number_of_processes_nothing(data: Path, own: Path, tmp_path: Path) -> None:
    make_scenes(tmp_path / "again", controlled(data, val_images=24, workers=2))
    assert contents(tmp_path / "again") == contents(own)
    make_scenes(tmp_path / "other", controlled(data, val_images=24, seed=1))
    other = contents(tmp_path / "other")
    assert other["val_elsewhere/images/000000.png"] != contents(own)["val_elsewhere/images/000000.png"]


def test_photographs_that_cannot_be_used_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data", train=4, val=4)
    (data / "val/images/ant000.png").write_bytes(b"no picture")
    Image.new("RGB", (70, 70)).save(data / "val/images/ant001.png")
    make_scenes(tmp_path / "out", controlled(data))
    assert "2 photographs of val are left out" in " ".join(capsys.readouterr().err.split())
    files = json.loads((tmp_path / "out/manifest.json").read_text())["splits"]["val"]["files"]
    assert len(files) == 14


@pytest.mark.parametrize(
    ("problem", "remedy", "options"),
    [
        ("only 0 of 16 photographs of val can serve as backgrounds", "or lower --size", {"size": 96}),
        ("rotation = 5.0 does not fit --from", "keep their size, pose and light", {"rotation": 5.0}),
        ("blends = .* does not fit --from", "names each blend once", {"blends": ("none", "none")}),
        ("blends = .* does not fit --from", "without --conditions true", {"blends": ("none",), "conditions": False}),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, problem: str, remedy: str, options: dict[str, Any]) -> None:
    data = write_data(tmp_path / "data", train=4, val=4)
    with pytest.raises(InputError, match=problem) as caught:
        make_scenes(tmp_path / "out", controlled(data, **options))
    assert remedy in str(caught.value) and not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_data(tmp_path / "data", train=4, val=4), tmp_path / "out"
    options = ["--size", "64", "--min_side", "20", "--min_pixels", "300", "--val_images", "3"]
    given = ["--conditions", "true", "--blends", "[none,gaussian]"]
    assert main(["scenes", str(out), "--from", str(data), *given, *options]) == 0
    assert "6 scenes in each of val, val_replaced, val_congruent, val_elsewhere, val_anywhere" in " ".join(
        capsys.readouterr().err.split()
    )
    assert json.loads((out / "scenes.json").read_text())["classes"] == [{"name": name} for name in OBJECTS]
    assert main(["scenes", str(tmp_path / "other"), "--conditions", "true"]) == 2
    assert "--conditions is about annotated data" in " ".join(capsys.readouterr().err.split())


def test_boxes_are_not_enough(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_part(tmp_path / "data" / part, dict.fromkeys(OBJECTS, 4), len(part), masks=False)
    with pytest.raises(InputError, match=r"annotations\.json: has no objects with masks(.|\n)*SAM prompted"):
        make_scenes(tmp_path / "out", controlled(tmp_path / "data"))


def test_a_class_needs_another_photograph_and_one_without_it(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=4, val=4)
    file = data / "val/annotations.json"
    document = json.loads(file.read_text())
    others = [one for one in document["annotations"] if one["category_id"] != 10]
    ants = [{**one, "image_id": 0} for one in document["annotations"] if one["category_id"] == 10]
    file.write_text(json.dumps({**document, "annotations": ants + others}))
    with pytest.raises(InputError, match="only one photograph of val that is no smaller than a scene shows ant"):
        make_scenes(tmp_path / "out", controlled(data))
    everywhere = [{**ants[0], "id": 5000 + image["id"], "image_id": image["id"]} for image in document["images"]]
    file.write_text(json.dumps({**document, "annotations": everywhere + others}))
    with pytest.raises(InputError, match="every photograph of val shows ant"):
        make_scenes(tmp_path / "out", controlled(data))
