"""Scenes from annotated data: sides share nothing, objects come through unchanged, backgrounds tell nothing."""

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_erosion

from d3ssl.data.scenes import make_scenes
from d3ssl.data.sources import open_images
from tests.data.annotated_shapes import OBJECTS, small, write_backgrounds, write_data
from tests.data.test_formats import build_voc

SPLITS = ("train", "val", "val_shuffled")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("annotated") / "data")


@pytest.fixture(scope="module")
def backgrounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backgrounds(tmp_path_factory.mktemp("backgrounds") / "photos")


@pytest.fixture(scope="module")
def pasted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train of scenes, backgrounds from the data."""
    out = tmp_path_factory.mktemp("pasted") / "out"
    make_scenes(out, small(data))
    return out


@pytest.fixture(scope="module")
def natural(data: Path, backgrounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train of photographs, given backgrounds; objects neither turned nor brightened."""
    out = tmp_path_factory.mktemp("natural") / "out"
    make_scenes(out, small(data, train="natural", backgrounds=str(backgrounds), val_images=150, brightness=0.0))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def split_files(out: Path) -> dict[str, dict[str, Any]]:
    return json.loads((out / "manifest.json").read_text())["splits"]


# ------------------------------------------------------------------------------------------------------ what is shared


@pytest.mark.parametrize("which", ["pasted", "natural"])
def test_train_and_validation_share_no_object_photograph_or_background(
    which: str, request: pytest.FixtureRequest
) -> None:
    splits = split_files(request.getfixturevalue(which))
    files = {name: set(split["files"]) for name, split in splits.items()}
    digests = {name: set(split["files"].values()) for name, split in splits.items()}
    instances, used = {}, {}
    for name, split in splits.items():
        images = split["images"].values()
        instances[name] = {tuple(one) for image in images for one in image["objects"]}
        used[name] = {photo for photo, _ in instances[name]} | {image["background"] for image in images}
        assert used[name] <= files[name]
        assert len(instances[name]) >= 20
    for name in ("val", "val_shuffled"):
        assert not instances["train"] & instances[name]
        assert not files["train"] & files[name]
        assert not digests["train"] & digests[name]


def test_the_manifest_names_the_files_as_they_are(pasted: Path, data: Path) -> None:
    for name, split in split_files(pasted).items():
        folder = "train" if name == "train" else "val"
        known = {entry.name for entry in (data / folder / "images").iterdir()}
        assert {file.removeprefix(f"DATA/{folder}/images/") for file in split["files"]} == known


def test_what_an_image_is_made_of_is_what_its_annotations_show(pasted: Path, data: Path) -> None:
    """The class of the instance that the manifest names is the class that is annotated; no background shows it."""
    for name, split in split_files(pasted).items():
        coco = open_images(pasted / name).annotations
        assert coco is not None and coco.names == tuple(OBJECTS)
        for index, file in enumerate(coco.file_names):
            made = split["images"][file]
            classes = [Path(photo).name[:3] for photo, _ in made["objects"]]
            assert classes == [coco.names[label] for label in coco.objects(index).labels]
            assert Path(made["background"]).name[:3] not in classes


# ----------------------------------------------------------------------------------------------------- what can be read


def eroded(mask: Any) -> np.ndarray:
    return np.asarray(binary_erosion(mask, iterations=2))


def read(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every object its mean colour (a margin of 2 px left out), the median of its background, its label."""
    images = open_images(folder)
    assert images.annotations is not None
    rows = []
    for index, path in enumerate(images.paths):
        assert isinstance(path, Path)
        pixels, masks = np.asarray(Image.open(path)).astype(float), images.annotations.masks(index)
        free = eroded(np.logical_not(masks.any(axis=0)))
        for mask, label in zip(masks, images.annotations.objects(index).labels, strict=True):
            inside = eroded(mask)
            if inside.any():
                rows.append((pixels[inside].mean(0), np.median(pixels[free], 0), label))
    colour, behind, label = zip(*rows, strict=True)
    return np.array(colour), np.array(behind), np.array(label)


def accuracy(train_x: np.ndarray, train_y: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    means = np.stack([train_x[train_y == label].mean(0) for label in range(len(OBJECTS))])
    named = np.linalg.norm(x[:, None] - means, axis=2).argmin(1)
    return float((named == y).mean())


def test_a_reader_of_the_object_is_right_everywhere(natural: Path) -> None:
    colour, behind, label = read(natural / "train")
    assert accuracy(behind, label, behind, label) == 1  # in the photographs the background tells the class too
    for split in ("val", "val_shuffled"):
        seen, _, truth = read(natural / split)
        assert accuracy(colour, label, seen, truth) == 1


def test_a_reader_of_the_background_is_at_chance(natural: Path) -> None:
    _, behind, label = read(natural / "train")
    _, seen, truth = read(natural / "val_shuffled")
    assert len(truth) > 400
    assert accuracy(behind, label, seen, truth) == pytest.approx(1 / len(OBJECTS), abs=0.08)


def test_a_reader_of_the_background_is_always_wrong_on_the_data_s_own(data: Path, tmp_path: Path) -> None:
    """A photograph never is the background of a class that it shows, so what it used to tell is now wrong."""
    make_scenes(tmp_path / "out", small(data, train="natural", val_images=40))
    _, behind, label = read(tmp_path / "out/train")
    _, seen, truth = read(tmp_path / "out/val_shuffled")
    assert accuracy(behind, label, seen, truth) == 0


def test_pixels_of_objects_do_not_depend_on_the_background(data: Path, tmp_path: Path) -> None:
    for name, brightness in (("dark", 0), ("light", 60)):
        folder = write_backgrounds(tmp_path / name, brightness=brightness)
        make_scenes(tmp_path / f"on_{name}", small(data, train="natural", backgrounds=str(folder)))
    for split in ("val", "val_shuffled"):
        dark, light = (open_images(tmp_path / f"on_{name}" / split) for name in ("dark", "light"))
        assert dark.annotations is not None
        for index, paths in enumerate(zip(dark.paths, light.paths, strict=True)):
            one, other = (np.asarray(Image.open(str(path))) for path in paths)
            masks = dark.annotations.masks(index)
            for mask in masks:
                inside = eroded(mask)
                assert np.array_equal(one[inside], other[inside])
            assert not np.array_equal(one[~masks.any(0)], other[~masks.any(0)])


# ------------------------------------------------------------------------------------------------------- natural memory


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # inside pycocotools, with NumPy 2
def test_natural_photographs_are_links_with_their_own_annotations(natural: Path, data: Path) -> None:
    made, source = (json.loads((folder / "train/annotations.json").read_text()) for folder in (natural, data))
    for image in made["images"]:
        path = natural / "train/images" / image["file_name"]
        assert path.is_symlink() and path.resolve() == (data / "train/images" / image["file_name"]).resolve()
    assert len(made["images"]) == len(source["images"]) == 4 * 24
    known = {one["id"]: one for one in source["annotations"]}
    for one in made["annotations"]:
        before = known.pop(one["id"])
        assert 10 * one["category_id"] == before["category_id"]
        assert one["bbox"] == before["bbox"]
        assert np.array_equal(coco_mask.decode(one["segmentation"]), coco_mask.decode(before["segmentation"]))
    assert not known
    categories = [json.loads((natural / split / "annotations.json").read_text())["categories"] for split in SPLITS]
    assert categories[0] == categories[1] == categories[2]


def test_objects_without_masks_are_neither_pasted_nor_remembered(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    for part in ("train", "val"):
        file = data / part / "annotations.json"
        document = json.loads(file.read_text())
        for one in document["annotations"][::2]:
            del one["segmentation"]
        file.write_text(json.dumps(document))
    make_scenes(tmp_path / "out", small(data, train="natural"))
    for split in split_files(tmp_path / "out").values():
        assert all(annotation % 2 for image in split["images"].values() for _, annotation in image["objects"])
    assert len(open_images(tmp_path / "out/train")) == 4 * 12


def test_photographs_in_tar_shards_are_copied(tmp_path: Path, data: Path, backgrounds: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "packed" / part).mkdir(parents=True)
        shutil.copy(data / part / "annotations.json", tmp_path / "packed" / part)
        with tarfile.open(tmp_path / "packed" / part / "000000.tar", "w") as shard:
            for path in sorted((data / part / "images").iterdir()):
                shard.add(path, path.name)
    for name, source in (("plain", data), ("packed", tmp_path / "packed")):
        options = {"train": "natural", "val_images": 4, "backgrounds": str(backgrounds)}
        make_scenes(tmp_path / f"of_{name}", small(source, **options))
    plain, packed = (contents(tmp_path / f"of_{name}") for name in ("plain", "packed"))
    told = {"scenes.json", "manifest.json"}
    assert {name for name in plain if plain[name] != packed[name]} == told
    assert not any(path.is_symlink() for path in (tmp_path / "of_packed").rglob("*"))


def test_pascal_voc_by_its_lists_of_images_with_masks(tmp_path: Path, backgrounds: Path) -> None:
    tree = build_voc(tmp_path)
    options = {"size": 32, "min_side": 5.0, "min_pixels": 50, "val_images": 4, "backgrounds": str(backgrounds)}
    data = tree / "ImageSets/Segmentation/train.txt"
    make_scenes(tmp_path / "out", small(data, train="natural", **options))
    coco = open_images(tmp_path / "out/train").annotations
    assert coco is not None and coco.names == ("dog", "person")  # the cats are difficult
    assert coco.file_names == ("2007_000000.jpg", "2007_000001.jpg")
    files = split_files(tmp_path / "out")["val"]["files"]
    assert {name for name in files if name.startswith("DATA")} == {"DATA/2007_000002.jpg", "DATA/2007_000003.jpg"}


# ------------------------------------------------------------------------------------------------------------ the same


def test_the_seed_decides_everything_and_the_number_of_processes_nothing(
    data: Path, pasted: Path, tmp_path: Path
) -> None:
    make_scenes(tmp_path / "again", small(data, workers=2))
    assert contents(tmp_path / "again") == contents(pasted)
    before = {path: path.stat().st_mtime_ns for path in pasted.rglob("*")}
    make_scenes(pasted, small(data))  # the same is there: nothing is done
    assert before == {path: path.stat().st_mtime_ns for path in pasted.rglob("*")}
    make_scenes(tmp_path / "other", small(data, seed=1))
    assert contents(tmp_path / "other")["val/images/000000.png"] != contents(pasted)["val/images/000000.png"]


def test_one_set_is_split_by_the_seed(data: Path, tmp_path: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        out = tmp_path / str(len(found))
        make_scenes(out, replace(small(data / "train", val_share=0.25, train="natural", val_images=3), seed=seed))
        found.append(split_files(out))
    photographs = [set(splits["train"]["files"]) for splits in found]
    assert photographs[0] == photographs[1] != photographs[2]
    assert len(photographs[0]) == 0.75 * 96
