"""YOLO labels: where images and labels are looked for, and what a line may say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from d3ssl.data.sources import open_images, open_parts
from d3ssl.doctor.config import DoctorConfig
from d3ssl.doctor.run import examine
from d3ssl.errors import InputError
from tests.data.format_samples import TRAIN, cut, write_yolo
from tests.data.test_each_format import run_config


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    root.mkdir()
    write_yolo(root)
    return root


def test_a_file_and_its_folder_are_the_same_data(data: Path) -> None:
    assert open_images(data).digest() == open_images(data / "data.yaml").digest()
    assert open_images(data).ids[0] == "images/train/0000.png"
    assert open_images(data / "images").annotations is None  # a plain folder of images


def test_layouts_of_roboflow_and_of_lists(data: Path, tmp_path: Path) -> None:
    expected = open_images(data).annotated
    other = tmp_path / "other"
    for kind in ("images", "labels"):
        shutil.copytree(data / kind / "train", other / "train" / kind)
        shutil.copytree(data / kind / "val", other / "valid" / kind)
    text = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['square', 'bar']\n"
    (other / "data.yaml").write_text(text)
    parts = open_parts(other)
    assert parts is not None and (len(parts.train), len(parts.val)) == (TRAIN, 6)
    assert (parts.train.annotated.boxes == expected.boxes).all() and parts.train.ids[0] == "train/images/0000.png"
    (data / "some.txt").write_text("./images/train/0001.png\nimages/train/0003.png\n")
    (data / "data.yaml").write_text("path: .\ntrain: some.txt\nval: [images/val, images/train]\nnames: {0: a, 1: b}\n")
    assert open_images(data).ids == ("images/train/0001.png", "images/train/0003.png")
    assert len(open_parts(data).val) == TRAIN + 6  # type: ignore[union-attr]


def test_images_outside_the_folder_have_ids_below_the_folder_that_holds_all(data: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    text = (data / "data.yaml").read_text().replace("path: .", "").replace("images/", f"{data}/images/")
    (tmp_path / "elsewhere/data.yaml").write_text(text)
    images = open_images(tmp_path / "elsewhere")
    assert images.ids[0] == "0000.png" and len(images.annotated.boxes) == 2 * TRAIN


def test_an_image_without_labels_has_no_objects_and_a_set_without_any_no_annotations(data: Path) -> None:
    (data / "labels/train/0002.txt").unlink()
    (data / "labels/train/0004.txt").write_text("\n")
    annotations = open_images(data).annotated
    assert [len(annotations.objects_of[index]) for index in range(5)] == [2, 2, 0, 2, 0]
    shutil.rmtree(data / "labels")
    assert open_images(data).annotations is None


def test_a_damaged_image_stays_for_whoever_reads_it(data: Path, tmp_path: Path) -> None:
    cut(data / "images/train/0002.png")
    (data / "images/train/0003.png").write_text("no image")
    images = open_images(data)
    assert len(images) == TRAIN and len(images.annotated.objects_of[3]) == 0
    found = examine(data, run_config("data", tmp_path / "run"), DoctorConfig(workers=1, draws=5))
    (unreadable,) = (check for check in found.checks if check.name == "unreadable files")
    assert unreadable.count == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0.5 0.5 0.1", "line 1 has 4 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.93", "line 1 has 6 numbers"),
        ("cat 0.5 0.5 0.1 0.1", "line 1: could not convert"),
        ("7 0.5 0.5 0.1 0.1", "line 1 has the class 7, which 'names' does not have"),
        ("0.5 0.5 0.5 0.1 0.1", "line 1 has the class 0.5"),
        ("0 nan 0.5 0.1 0.1", "line 1 has 5 numbers"),
        ("0 0.5 0.5 0 0.1", r"line 1 of .*0003\.txt: its bbox .* is degenerate"),
        ("0 1.5 0.5 0.1 0.1", r"line 1 of .*0003\.txt: its bbox .* lies outside"),
    ],
)
def test_bad_lines_are_errors_that_name_file_and_line(data: Path, line: str, says: str) -> None:
    (data / "labels/train/0003.txt").write_text(line + "\n")
    with pytest.raises(InputError, match=says) as caught:
        open_images(data)
    assert "0003.txt" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train: [", "is not valid YAML"),
        ("train: images/train\nnames: 3\n", "'names' are no list"),
        ("train: images/train\nnames: [a, b]\nnc: 3\n", "not as many as 'nc' says"),
        ("train: images/nowhere\nnames: [a, b]\n", "its 'train' is 'images/nowhere', which is not there"),
        ("train: labels/train\nnames: [a, b]\n", "its 'train' holds no images"),
        ("train: some.txt\nnames: [a, b]\n", "line 1: there is no image"),
    ],
)
def test_bad_files_are_errors(data: Path, text: str, says: str) -> None:
    (data / "some.txt").write_text("images/train/gone.png\n")
    (data / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        open_images(data)


def test_other_yaml_files_are_not_labels(data: Path) -> None:
    (data / "data.yaml").write_text("a: 1\n")
    assert open_images(data).annotations is None  # the folder is one of images
    with pytest.raises(InputError, match="has no 'train' or no 'names'"):
        open_images(data / "data.yaml")
