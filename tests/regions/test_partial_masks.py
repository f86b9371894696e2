"""Annotations where some objects have no mask: no mask is dropped, and the others are boxes that are counted."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.sources import open_images
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.table import read_regions
from d3ssl.train.config import CanvasConfig
from d3ssl.train.loader import CanvasDataset

OBJECTS = (  # image, box, has a mask, group
    (0, (5, 4, 40, 30), False, 0),
    (0, (10, 10, 8, 6), True, 0),
    (0, (2, 2, 20, 16), True, 0),
    (1, (1, 1, 30, 20), False, 0),
    (1, (0, 0, 60, 40), False, 1),
    (2, (4, 4, 20, 20), True, 0),
)


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """Three images: masks of some objects, of none, and of all."""
    folder = tmp_path / "partial"
    (folder / "images").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (60, 40), (number, 0, 0)).save(folder / "images" / f"{number}.png")
    annotations = []
    for number, (image, (x, y, w, h), masked, crowd) in enumerate(OBJECTS):
        entry = {"id": number, "image_id": image, "category_id": 1, "bbox": [x, y, w, h], "iscrowd": crowd}
        if masked:
            entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(entry)
    images = [{"id": n, "file_name": f"{n}.png", "height": 40, "width": 60} for n in range(3)]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


def labels(png: bytes | None) -> np.ndarray:
    assert png is not None
    return np.asarray(Image.open(io.BytesIO(png)))


def test_masks_are_kept_and_the_others_are_boxes_that_are_counted(
    partial: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    command = [
        "regions",
        str(partial),
        "--method",
        "annotations",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "r.parquet"),
    ]
    assert main(command) == 0
    assert "2 of 5 objects have no mask: kept as boxes" in capfd.readouterr().err
    table = read_regions(tmp_path / "r.parquet")
    first, second, third = table.label_maps
    assert table.boxes[0].tolist() == [[5, 4, 45, 34], [2, 2, 22, 18], [10, 10, 18, 16]]
    assert np.unique(labels(first)).tolist() == [0, 2, 3]  # region 1 has no pixels
    assert (labels(first)[10:16, 10:18] == 3).all() and (labels(first) == 2).sum() == 20 * 16 - 8 * 6
    assert second is None and table.boxes[1].tolist() == [[1, 1, 31, 21]]
    assert np.unique(labels(third)).tolist() == [0, 1]


def test_a_training_gets_the_masks_that_there_are(partial: Path, tmp_path: Path) -> None:
    images = open_images(partial)
    regions = compute_regions(images, RegionsConfig(method="annotations", workers=1), tmp_path / "r.parquet")
    dataset = CanvasDataset(images, regions, CanvasConfig(size=32, max_candidates=4), 0, masks=True)
    assert len(dataset) == 3
    for number in range(3):
        item, _ = dataset.load(number)
        assert item["labels"].any() == (item["index"] != 1)
