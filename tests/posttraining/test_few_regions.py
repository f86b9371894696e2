"""Images without regions are told before the first step, with what gives more of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.posttraining import posttrain_run
from d3ssl.regions.compute import compute_regions
from d3ssl.train import RunConfig, pretrain
from d3ssl.train.enough_regions import check_enough_regions
from d3ssl.train.loader import CanvasDataset
from tests.posttraining.examples import BOXES, config


def annotated(folder: Path, images: int, objects: int, side: int = 30) -> Path:
    """Noise, with one square object of ``side`` px in the first few images."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(images):
        pixels = random.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{number:02d}.png")
    entry = {"category_id": 1, "iscrowd": 0, "area": side**2, "bbox": [10, 10, side, side]}
    document = {
        "images": [{"id": n, "file_name": f"{n:02d}.png", "width": 64, "height": 64} for n in range(images)],
        "annotations": [{"id": n + 1, "image_id": n, **entry} for n in range(objects)],
        "categories": [{"id": 1, "name": "square"}],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


def own(data: Path, out: Path, **more: Any) -> RunConfig:
    options = {"canvas__held_out": 0, "train__batch_size": 4, "proposals__method": "annotations"}
    return config(data, out, 1, **(options | BOXES | more))


@pytest.mark.parametrize(
    ("objects", "side", "options", "problem", "remedy"),
    [
        (0, 30, {}, "none of the 12 training images have a region", "--proposals.method contrast"),
        (1, 30, {}, "1 of the 12 training images has a region", "--proposals.method contrast"),
        (12, 6, {"views__min_side": 8.0}, "12 have only regions that a view shows below 8 px", "--views.min_side"),
    ],
)
def test_data_without_regions_is_refused(
    objects: int, side: int, options: dict[str, Any], problem: str, remedy: str, tmp_path: Path
) -> None:
    data = annotated(tmp_path / "data", 12, objects, side)
    with pytest.raises(InputError, match=problem) as caught:
        pretrain(own(data, tmp_path / "run", **options), finish=lambda *_: None)
    assert caught.value.path == str(data) and remedy in str(caught.value.remedy)
    assert not (tmp_path / "run/checkpoint.pt").exists()


@pytest.mark.parametrize(("objects", "is_told"), [(5, True), (6, False)])
def test_few_images_with_regions_are_told(
    objects: int, is_told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = annotated(tmp_path / "data", 12, objects)
    pretrain(own(data, tmp_path / "run", train__batch_size=12), finish=lambda *_: None)
    told = " ".join(capsys.readouterr().err.split())
    assert ("5 of the 12 training images have a region" in told) == is_told
    assert ("What to do: --proposals.method contrast" in told) == is_told


def test_the_remedy_is_another_method_than_the_one_in_use(tmp_path: Path) -> None:
    data = annotated(tmp_path / "data", 12, 0)
    file = tmp_path / "r.parquet"
    images, used = open_images(data), own(data, tmp_path / "run")
    dataset = CanvasDataset(images, compute_regions(images, used.proposals, file), used.canvas, 0)
    with pytest.raises(InputError, match="none of the 12") as caught:
        check_enough_regions(own(data, tmp_path / "run", proposals__method="contrast"), dataset)
    assert "--proposals.contrast_min 0.5" in str(caught.value.remedy)
    with pytest.raises(InputError, match="none of the 12") as caught:
        pretrain(own(data, tmp_path / "run", regions=str(file)), finish=lambda *_: None)
    assert f"d3ssl regions {data} --out FILE" in str(caught.value.remedy)


def test_boxes_are_a_fallback_that_is_told(tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    posttrain_run(config(tiles, tmp_path / "run", steps=2, proposals__label_maps=False))
    assert capsys.readouterr().err.count("count by their boxes") == 1
