"""Annotated data that cannot be used: one clear error before work starts, and nothing is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.scenes import make_scenes
from d3ssl.errors import InputError
from tests.data.annotated_shapes import OBJECTS, small, write_backgrounds, write_data, write_part

EVERY = dict.fromkeys(OBJECTS, 6)


def refused(tmp_path: Path, data: Path, match: str, **options: Any) -> str:
    """The whole message of the error, which must match."""
    with pytest.raises(InputError, match=match) as caught:
        make_scenes(tmp_path / "out", small(data, **options))
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
    return str(caught.value)


def without_masks(data: Path) -> None:
    shutil.rmtree(data / "val")
    write_part(data / "val", EVERY, 2, masks=False)


def one_class(data: Path) -> None:
    for part in ("train", "val"):
        shutil.rmtree(data / part)
        write_part(data / part, {"bee": 6}, len(part))


def one_cat(data: Path) -> None:
    shutil.rmtree(data / "val")
    write_part(data / "val", {**EVERY, "cat": 1, "ant": 0}, 2)


def only_train(data: Path) -> None:
    shutil.rmtree(data / "val")


def no_parts(data: Path) -> None:
    only_train(data)
    for path in (data / "train").iterdir():
        path.rename(data / path.name)


def no_annotations(data: Path) -> None:
    no_parts(data)
    (data / "annotations.json").unlink()


def other_categories(data: Path) -> None:
    file = data / "val/annotations.json"
    file.write_text(file.read_text().replace('"name": "dog"', '"name": "cow"'))


def all_the_same(data: Path) -> None:
    shutil.rmtree(data / "val")
    shutil.copytree(data / "train", data / "val")


def nothing(data: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "problem", "remedy", "options"),
    [
        (without_masks, r"val.annotations.json: has no objects with masks", "SAM prompted with your boxes", {}),
        (one_class, "has masks of one class only: bee", "two or more", {}),
        (one_cat, r"fewer than 2 usable objects: in val: ant \(0\), cat \(1\)", r"--classes [bee,dog]", {}),
        (nothing, r"fewer than 2 usable objects: in train: ant \(0\)", "lower --min_side", {"min_side": 70.0}),
        (only_train, "has only one of the parts train and val", "--val_share 0.2", {}),
        (no_parts, "has no training and validation part", "a folder with train/ and val/", {}),
        (no_annotations, "has no annotations", "COCO data with segmentations", {"val_share": 0.2}),
        (other_categories, "has other categories than", "same categories into both", {}),
        (all_the_same, "all validation photographs are also training photographs", "not trained on", {}),
        (nothing, "comes in two parts already", "leave --val_share out", {"val_share": 0.2}),
        (nothing, "has no class 'bea'", "did you mean 'bee'", {"classes": ("bea", "cat")}),
        (nothing, "classes = .* does not fit --from", "at least 2", {"classes": ("bee",)}),
        (nothing, "num_classes = 9, but there are 4", "lower num_classes", {"num_classes": 9}),
        (nothing, "cutouts = 'stamps' does not fit --from", "objects come from DATA", {"cutouts": "stamps"}),
        (nothing, "only 0 of 24 photographs of train can serve as backgrounds", "lower --size", {"size": 96}),
        (nothing, "no such folder", "check the path", {"backgrounds": "missing"}),
    ],
)
def test_data_that_cannot_be_used(
    tmp_path: Path, spoil: Callable[[Path], None], problem: str, remedy: str, options: dict[str, Any]
) -> None:
    data = write_data(tmp_path / "data", train=6, val=6)
    spoil(data)
    assert remedy in refused(tmp_path, data, problem, **options)


def test_data_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path, tmp_path / "missing", "no such file or folder")


def test_out_that_is_there_is_not_touched(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=6, val=6)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already and does not hold scenes"):
        make_scenes(tmp_path / "out", small(data))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
    made = tmp_path / "made"
    make_scenes(made, small(data, images=2, val_images=2))
    with pytest.raises(InputError, match=r"made differently \(min_pixels\)"):
        make_scenes(made, small(data, images=2, val_images=2, min_pixels=301))
    file = data / "train/annotations.json"
    document = json.loads(file.read_text())
    document["annotations"].pop()
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match="other source files"):
        make_scenes(made, small(data, images=2, val_images=2))


def test_backgrounds_smaller_than_the_scenes(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=6, val=6)
    folder = write_backgrounds(tmp_path / "photos", size=(60, 200), count=1)
    message = refused(tmp_path, data, "only 0 of 4 files can serve as backgrounds", backgrounds=str(folder))
    assert "at least the scenes' 64 px" in message and "larger photographs" in message


def test_backgrounds_that_the_other_side_shows(tmp_path: Path) -> None:
    """Training photographs as backgrounds of validation scenes would not be unseen."""
    data = write_data(tmp_path / "data", train=6, val=6)
    folder = tmp_path / "renamed"
    folder.mkdir()
    for number, path in enumerate(sorted((data / "train/images").iterdir())):
        shutil.copy(path, folder / f"{number}.png")
    options = {"backgrounds": str(folder), "train": "natural"}
    message = refused(tmp_path, data, "24 photographs would serve training and validation", **options)
    assert "BACKGROUNDS/0.png" in message


def test_a_class_that_is_everywhere_has_no_background(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", train=6, val=6)
    file = data / "val/annotations.json"
    document = json.loads(file.read_text())
    for number, image in enumerate(document["images"]):
        entry = {"id": number, "image_id": image["id"], "category_id": 20, "bbox": [1, 1, 9, 9]}
        document["annotations"].append(entry)
    file.write_text(json.dumps(document))
    refused(tmp_path, data, "every photograph of val shows bee", train="natural")


def test_few_objects_and_twins_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data", train=20, val=20)
    shutil.copy(data / "train/images/dog000.png", data / "val/images/dog000.png")
    make_scenes(tmp_path / "out", small(data, images=2, val_images=2))
    shown = " ".join(capsys.readouterr().err.split())
    assert "1 of 80 validation photographs are also training photographs, byte by byte: dog000.png" in shown
    assert "classes with fewer than 20 usable objects: in val: dog (19)" in shown
    assert "DATA/val/images/dog000.png" not in (tmp_path / "out/manifest.json").read_text()


def test_photographs_that_cannot_be_read_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data", train=6, val=6)
    (data / "val/images/ant000.png").write_bytes(b"no picture")
    Image.new("RGB", (30, 30)).save(data / "val/images/ant001.png")
    photos = write_backgrounds(tmp_path / "photos")
    make_scenes(tmp_path / "out", small(data, train="natural", val_images=2, backgrounds=str(photos)))
    assert "2 photographs of val are left out" in " ".join(capsys.readouterr().err.split())
    for number in range(2, 6):
        (data / f"val/images/ant{number:03d}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"fewer than 2 usable objects: in val: ant \(0\)"):
        make_scenes(tmp_path / "again", small(data, train="natural", val_images=2, backgrounds=str(photos)))


def test_own_backgrounds_that_cannot_be_read_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data", train=6, val=6)
    (data / "val/images/ant000.png").write_bytes(b"no picture")
    make_scenes(tmp_path / "out", small(data, train="natural", val_images=30))
    assert "1 backgrounds of val are left out" in " ".join(capsys.readouterr().err.split())
    images = json.loads((tmp_path / "out/manifest.json").read_text())["splits"]["val"]["images"]
    assert "DATA/val/images/ant000.png" not in {image["background"] for image in images.values()}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_data(tmp_path / "data", train=20, val=20), tmp_path / "out"
    options = ["--val_images", "3", "--min_side", "20", "--min_pixels", "300", "--size", "64", "--classes", "[bee,dog]"]
    assert main(["scenes", str(out), "--from", str(data), "--train", "natural", *options]) == 0
    said = json.loads((out / "scenes.json").read_text())
    assert [one["name"] for one in said["classes"]] == ["bee", "dog"]
    assert said["config"]["object_side"] == [0.3, 0.6]
    assert main(["scenes", str(tmp_path / "other"), "--train", "natural"]) == 2
    assert "--train is about annotated data" in " ".join(capsys.readouterr().err.split())
