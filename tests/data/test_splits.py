"""Data in two parts: which layouts are known."""

import shutil
from pathlib import Path

import pytest

from d3ssl.data.sources import open_parts
from d3ssl.errors import InputError
from tests.data.annotated_shapes import OBJECTS, write_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", train=3, val=2)


def as_coco(data: Path, coco: Path) -> Path:
    (coco / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        shutil.move(data / part / "annotations.json", coco / "annotations" / f"instances_{part}2017.json")
        shutil.move(data / part / "images", coco / f"{part}2017")
    return coco


def test_two_folders(data: Path) -> None:
    parts = open_parts(data)
    assert parts is not None
    assert (len(parts.train), len(parts.val), parts.rule) == (12, 8, "the folders train, val")


def test_coco_as_it_is_unpacked(data: Path, tmp_path: Path) -> None:
    coco = as_coco(data, tmp_path / "coco")
    parts = open_parts(coco)
    assert parts is not None and parts.train.annotations is not None
    assert (len(parts.train), len(parts.val)) == (12, 8)
    assert parts.train.annotations.names == tuple(OBJECTS)
    assert parts.val.root == coco / "val2017"
    shutil.copy(coco / "annotations/instances_val2017.json", coco / "annotations/instances_val2014.json")
    assert open_parts(coco) is None  # which one is meant is not known


def test_one_set_has_no_parts(data: Path) -> None:
    assert open_parts(data / "train") is None
    assert open_parts(data / "train" / "annotations.json") is None
    assert open_parts(data / "missing") is None


def test_categories_must_be_the_same(data: Path) -> None:
    file = data / "val/annotations.json"
    file.write_text(
        file.read_text()
        .replace('"id": 40, "name": "dog"', '"id": 50, "name": "dog"')
        .replace('"category_id": 40', '"category_id": 50')
    )
    with pytest.raises(InputError, match="other categories"):
        open_parts(data)
