"""The YOLO format, written here by hand: boxes and polygons worked out on paper, and every command's way in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.sources import open_images
from d3ssl.data.splits import open_parts
from d3ssl.errors import InputError
from d3ssl.regions.table import read_regions

WIDTH, HEIGHT = 80, 40


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images to train on, one of them with a box and a triangle; one image of another folder to validate on."""
    root = tmp_path / "pets"
    rng = np.random.default_rng(0)
    for name in ("train/a", "train/b", "val/c"):
        file = root / "images" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(file)
        (root / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
    (root / "labels/train/a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n0 0.1 0.1 0.6 0.1 0.1 0.9\n")
    (root / "labels/val/c.txt").write_text("0 0.5 0.5 1 1\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")
    return root


@pytest.mark.parametrize("name", ["", "data.yaml"])
def test_boxes_and_polygons_in_pixels(data: Path, name: str) -> None:
    found = open_images(data / name)
    assert found.ids == ("images/train/a.png", "images/train/b.png")
    annotations = found.annotations
    assert annotations is not None and annotations.names == ("cat", "dog")
    objects = annotations.objects(0)
    np.testing.assert_allclose(objects.boxes, [[30, 10, 50, 30], [8, 4, 48, 36]], atol=1e-4)
    assert objects.labels.tolist() == [1, 0]
    assert len(annotations.objects(1).labels) == 0  # without a text file
    mask = annotations.masks(0, [1])[0]
    assert mask[6, 10] and not mask[34, 40]  # on both sides of the triangle's long edge
    assert mask.sum() == pytest.approx(40 * 32 / 2, rel=0.06)


def test_both_splits(data: Path) -> None:
    parts = open_parts(data)
    assert parts is not None
    assert (len(parts.train), len(parts.val), parts.rule) == (2, 1, "the splits train and val of data.yaml")
    (data / "data.yaml").write_text("path: .\ntrain: images/train\nnames: [cat, dog]\n")
    assert open_parts(data) is None


def test_several_folders_and_lists(data: Path) -> None:
    (data / "data.yaml").write_text("train: [images/val, train.txt]\nnames: [cat, dog]\n")
    (data / "train.txt").write_text("./images/train/b.png\n")
    assert open_images(data).ids == ("images/train/b.png", "images/val/c.png")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2 is not one of 0 to 1"),
        ("0 0.5 0.5 0.1", "it has 4 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3", "it has 6 numbers"),
        ("0 40 20 10 10", "numbers outside 0 to 1"),
        ("0 nan 0.5 0.1 0.1", "numbers outside 0 to 1"),
        ("cat 0.5 0.5 0.1 0.1", "could not convert"),
        ("0 0.5 0.5 0 0.1", "is degenerate"),
    ],
)
def test_a_damaged_line_is_named(data: Path, line: str, problem: str) -> None:
    (data / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.2 0.2\n{line}\n")
    with pytest.raises(InputError, match=rf"(?s)a\.txt.*{problem}|{problem}.*a\.txt|line 2 of .*a\.txt: .*{problem}"):
        open_images(data)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("train: images/train\n", "no 'train' or no 'names'"),
        ("[1, 2]\n", "no 'train' or no 'names'"),
        ("a: [\n", "cannot be read as YAML"),
        ("train: images/lost\nnames: [cat]\n", "which is not in"),
        ("train: ../pets2\nnames: [cat]\n", "which is not in"),
        ("train: images/train\nnames: {1: cat}\n", "not classes numbered from 0"),
    ],
)
def test_a_damaged_data_file_is_named(data: Path, document: str, problem: str) -> None:
    (data / "data.yaml").write_text(document)
    with pytest.raises(InputError, match=rf"data\.yaml.*{problem}|{problem}"):
        open_images(data)


def test_regions_come_from_its_polygons(data: Path, tmp_path: Path) -> None:
    (data / "labels/train/a.txt").write_text("0 0.1 0.1 0.6 0.1 0.1 0.9\n")
    out = tmp_path / "regions.parquet"
    words = ["regions", str(data), "--out", str(out), "--method", "annotations", "--workers", "1"]
    assert main(words) == 0
    table = read_regions(out)
    assert table.ids == ("images/train/a.png", "images/train/b.png")
    np.testing.assert_allclose(table.boxes[0], [[8, 4, 48, 36]], atol=1e-4)
    assert table.label_maps[0] is not None
