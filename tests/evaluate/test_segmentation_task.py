"""The evaluation from files to figures, with backbones whose answers are known."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch import Tensor

from d3ssl.errors import D3sslError, InputError
from d3ssl.evaluate.cache import weights_digest
from d3ssl.evaluate.segmentation import SegmentationConfig, SegmentationTask, evaluate_segmentation
from d3ssl.models import Backbone, create_backbone

COLOURS = np.array([[30, 30, 30], [220, 40, 40], [40, 220, 40], [40, 40, 220]])
SIZE = 32
CONFIG = SegmentationConfig(
    size=SIZE, levels=1, batch_size=8, workers=2, draws=200, linear_cells=8000, memory=3000, pictures=2
)
FROZEN = ("linear", "retrieval")


def write_set(folder: Path, count: int, seed: int, *, tell: bool = True, ignore: bool = False) -> None:
    """Images whose colours tell the class of every pixel (or, without ``tell``, are of no account), in the COCO format:
    background and rectangles of three classes. With ``ignore`` half of each image is a crowd, painted in colours of
    the wrong class."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        labels, crowd = np.zeros((SIZE, SIZE), dtype=np.int64), np.zeros((SIZE, SIZE), dtype=bool)
        for _ in range(3):
            y, x = rng.integers(0, SIZE - 12, 2)
            labels[y : y + 12, x : x + 12] = rng.integers(1, 4)
        crowd[:, SIZE // 2 :] = ignore
        labels[crowd] = 0
        shown = labels if tell else rng.integers(0, 4, labels.shape)
        shown = np.where(crowd, rng.integers(0, 4, labels.shape), shown)
        Image.fromarray(COLOURS[shown].astype(np.uint8)).save(folder / "images" / f"{number:03d}.png")
        images.append({"id": number, "file_name": f"{number:03d}.png", "height": SIZE, "width": SIZE})
        parts = [(label, labels == label, 0) for label in (1, 2, 3)] + [(1, crowd, 1)]
        for label, mask, is_crowd in parts:
            if mask.any():
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": number,
                        "category_id": label,
                        "bbox": [0, 0, SIZE, SIZE],
                        "iscrowd": is_crowd,
                        "segmentation": {"size": [SIZE, SIZE], "counts": run_lengths(mask)},
                    }
                )
    categories = [{"id": label, "name": f"colour {label}"} for label in (1, 2, 3)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's: by columns, beginning with the pixels outside."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("told")
    write_set(root / "train", 24, 1)
    write_set(root / "val", 12, 2)
    write_set(root / "val_shuffled", 12, 3)
    return root


class Oracle(Backbone):
    """A backbone whose map is the one-hot map of the classes, read from the colours."""

    def __init__(self, scale: float = 1.0) -> None:
        torch.nn.Module.__init__(self)
        self.in_channels, self.timm_name, self.input_size, self.scale = 3, "oracle", SIZE, scale
        self.mean, self.std, self.channels, self.strides = (0.0,) * 3, (1.0,) * 3, [4], [1]
        self.region_path, self.roi_size = "map", 1
        self.net = torch.nn.Identity()
        self.layout = create_backbone("test_vit", seed=0).layout

    def maps(self, images: Tensor) -> list[Tensor]:
        assert not self.training and not torch.is_grad_enabled()
        colours = torch.tensor(COLOURS / 255, dtype=torch.float32)
        distance = (images[:, None] - colours[None, :, :, None, None]).square().sum(dim=2)
        one_hot = torch.nn.functional.one_hot(distance.argmin(dim=1), 4)
        return [self.scale * one_hot.permute(0, 3, 1, 2).float()]


def measured(data: Path, backbone: Backbone, folder: Path, seed: int = 0, **options: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return SegmentationTask(data, replace(CONFIG, **options)).measure(backbone, seed, folder)


@pytest.mark.parametrize("options", [{}, {"retrieval_centre": False}, {"linear_optimizer": "sgd", "linear_grid": SIZE}])
def test_oracle_features_give_one(told: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    found = measured(told, Oracle(), tmp_path, **options, linear_lr=0.2)
    for name in FROZEN:
        for split in ("", "_shuffled"):
            for key in (f"{name}_miou{split}", f"{name}_pixel_accuracy{split}"):
                assert found[key] == found[f"{key}_low"] == found[f"{key}_high"] == 1.0
        assert found["per_class_iou"][name] == {"background": 1.0} | {f"colour {i}": 1.0 for i in (1, 2, 3)}
    assert found["counts"] == {"train_images": 24, "val_images": 12, "classes": 4, "shuffled_images": 12}
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.size[0] > 3 * 128 and picture.size[1] > 2 * 128
        pixels = np.asarray(picture.convert("RGB"))
    column = pixels.shape[1] // 4
    truth, linear, retrieval = (pixels[16:, place * column : (place + 1) * column] for place in (1, 2, 3))
    assert np.array_equal(truth, linear) and np.array_equal(truth, retrieval)


def test_chance_is_naming_everything_background(told: Path, tmp_path: Path) -> None:
    task = SegmentationTask(told, CONFIG)
    maps = [task.val.labels(index) for index in range(12)]
    share = float(np.mean(np.stack(maps) == 0))
    found = task.measure(Oracle(), 0, tmp_path)
    assert found["chance_pixel_accuracy"] == pytest.approx(share)
    assert found["chance_miou"] == pytest.approx(share / 4)


def test_colours_that_tell_nothing_give_chance(tmp_path: Path) -> None:
    """Nothing is better than naming everything background where colours are drawn by lot; guessing costs mIoU only
    within what four classes by lot give."""
    write_set(tmp_path / "train", 24, 1, tell=False)
    write_set(tmp_path / "val", 12, 2, tell=False)
    found = measured(tmp_path, Oracle(), tmp_path / "out")
    for name in FROZEN:
        assert found[f"{name}_pixel_accuracy"] < found["chance_pixel_accuracy"] + 0.03
        assert found[f"{name}_miou"] < found["chance_miou"] + 0.06


def test_ignored_pixels_count_neither_in_training_nor_in_figures(tmp_path: Path) -> None:
    """Half of every image shows colours of other classes, but is ignored."""
    write_set(tmp_path / "train", 24, 1, ignore=True)
    write_set(tmp_path / "val", 12, 2, ignore=True)
    for options in ({}, {"linear_optimizer": "sgd", "linear_grid": SIZE, "linear_lr": 0.2}):
        found = measured(tmp_path, Oracle(), tmp_path / "out", **options)
        assert found["linear_miou"] == found["retrieval_miou"] == 1.0


def test_truth_of_another_size(told: Path, tmp_path: Path) -> None:
    found = measured(told, Oracle(), tmp_path, truth_size=16)
    assert 0.9 < found["linear_pixel_accuracy"] < 1  # borders move by half a pixel
    task = SegmentationTask(told, replace(CONFIG, truth_size=16))
    assert task.fingerprint() != SegmentationTask(told, CONFIG).fingerprint()


def test_determinism_and_the_seed(told: Path, tmp_path: Path) -> None:
    backbone = create_backbone("test_resnet", seed=0)
    options = {"levels": 3, "max_train_images": 10, "linear_cells": 100, "memory": 60, "linear_iterations": 20}
    first = measured(told, backbone, tmp_path, **options)
    torch.manual_seed(5)
    assert measured(told, backbone, tmp_path, **options) == first
    assert measured(told, backbone, tmp_path, 1, **options)["linear_miou"] != first["linear_miou"]
    other = measured(told, backbone, tmp_path, **options, batch_size=3)
    assert other["retrieval_miou"] == pytest.approx(first["retrieval_miou"], abs=0.01)
    assert (
        SegmentationTask(told, replace(CONFIG, workers=1)).fingerprint() == SegmentationTask(told, CONFIG).fingerprint()
    )


def test_fine_tuning_learns_and_leaves_the_backbone_as_it_was(told: Path, tmp_path: Path) -> None:
    backbone = create_backbone("test_resnet", seed=0).eval()
    before = weights_digest(backbone)
    options = {"protocols": ("fcn",), "levels": 4, "fcn_steps": 60, "fcn_batch": 8, "fcn_channels": 32}
    found = measured(told, backbone, tmp_path, **options)
    assert weights_digest(backbone) == before and not backbone.training
    assert found["fcn_miou"] > 0.6 > 2 * found["chance_miou"]
    assert "linear_miou" not in found and (tmp_path / "predictions.png").exists()
    torch.manual_seed(9)
    assert measured(told, backbone, tmp_path, **options) == found


TWO = {"protocols": ("linear", "retrieval", "fcn"), "levels": 4, "fcn_steps": 3, "fcn_batch": 4, "fcn_channels": 8}


def worker(number: int, port: int, data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=number, world_size=2)
    found = measured(data, create_backbone("test_resnet", seed=0).eval(), out / str(number), **TWO)
    (out / f"{number}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_find_what_one_finds(told: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, told, tmp_path), nprocs=2)  # type: ignore[attr-defined]
    one, other = (json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2))
    assert one == other
    alone = measured(told, create_backbone("test_resnet", seed=0).eval(), tmp_path / "alone", **TWO)
    assert one["retrieval_miou"] == pytest.approx(alone["retrieval_miou"], abs=1e-6)
    assert one["linear_miou"] == pytest.approx(alone["linear_miou"], abs=5e-3)
    assert one["fcn_pixel_accuracy"] == pytest.approx(alone["fcn_pixel_accuracy"], abs=5e-3)
    assert one["counts"] == alone["counts"] and one.keys() == alone.keys()
    assert (tmp_path / "0" / "predictions.png").exists() and not (tmp_path / "1" / "predictions.png").exists()


def test_one_command(told: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, levels=4, max_train_images=12, linear_iterations=40)
    found = evaluate_segmentation("timm:test_resnet:random:3", told, tmp_path / "out", config, ["random"], seeds=2)
    assert found == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(found["rows"]) == {"timm:test_resnet:random:3", "random"}
    assert 0 < found["linear_miou_low"] <= found["linear_miou"] <= found["linear_miou_high"]
    assert "12 of 24 training images" in found["budget"] and "memory of 3000 cells" in found["budget"]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "linear mIoU, shuffled" in report and report.count("data:image/png") >= 3
    cells = sorted((tmp_path / "out").rglob("cell.json"))
    assert len(cells) == 4
    times = [cell.stat().st_mtime_ns for cell in cells]
    again = evaluate_segmentation("timm:test_resnet:random:3", told, tmp_path / "out", config, ["random"], seeds=2)
    assert again == found and [cell.stat().st_mtime_ns for cell in cells] == times


def test_bad_input(told: Path, tmp_path: Path) -> None:
    for options in ({"protocols": ()}, {"protocols": ("linear", "linear")}, {"neighbours": 0}, {"val_share": 1.0}):
        with pytest.raises(InputError, match=f"segmentation option {next(iter(options))} = .* out of range"):
            evaluate_segmentation("timm:test_resnet", told, None, replace(CONFIG, **options))
    with pytest.raises(D3sslError, match="not finite"):
        measured(told, Oracle(float("inf")), tmp_path)
    write_set(tmp_path / "all" / "train", 4, 1)
    write_set(tmp_path / "all" / "val", 4, 2)
    file = tmp_path / "all" / "val" / "annotations.json"
    document = json.loads(file.read_text())
    whole = {"size": [SIZE, SIZE], "counts": [0, SIZE * SIZE]}
    box = [0, 0, SIZE, SIZE]
    document["annotations"] = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": box, "iscrowd": 1, "segmentation": whole} for i in range(4)
    ]
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match="all pixels of the val images are ignored"):
        SegmentationTask(tmp_path / "all", CONFIG)
    (tmp_path / "all" / "train" / "annotations.json").write_text(json.dumps({**document, "annotations": []}))
    write_set(tmp_path / "other" / "val", 4, 2)
    file.write_text((tmp_path / "other" / "val" / "annotations.json").read_text())
    with pytest.raises(InputError, match="show one class only"):
        SegmentationTask(tmp_path / "all", CONFIG)


def test_classes_without_training_pixels_are_told(
    told: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "train", 8, 1)
    write_set(tmp_path / "val", 8, 2)
    file = tmp_path / "train" / "annotations.json"
    document = json.loads(file.read_text())
    document["annotations"] = [entry for entry in document["annotations"] if entry["category_id"] != 2]
    file.write_text(json.dumps(document))
    found = SegmentationTask(tmp_path, CONFIG).measure(Oracle(), 0, tmp_path)
    assert found["per_class_iou"]["linear"]["colour 2"] == 0.0
    assert "1 classes of val are in no training image" in " ".join(capsys.readouterr().err.split())
