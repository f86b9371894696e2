"""The task from files to metrics.json and pictures; and the same with two processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.evaluate.detection import STATISTICS, DetectionConfig, DetectionTask, build_detector, evaluate_detection
from d3ssl.evaluate.detection.inference import detect
from d3ssl.evaluate.detection.pictures import draw_detections
from d3ssl.evaluate.detection.train import CHECKPOINT, Batches, train_detector
from d3ssl.evaluate.task import Task
from d3ssl.models import create_backbone

CONFIG = DetectionConfig(
    size=64,
    steps=3,
    batch_size=4,
    width=8,
    head_features=16,
    rois=8,
    proposals=16,
    min_score=0.01,
    detections=20,
    draws=20,
    shown_images=2,
    shown_score=0.0,
    workers=1,
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, ScenesConfig(images=12, val_images=5, size=64, num_classes=4, themes=2, workers=1))
    return folder


def test_from_files_to_metrics_and_pages(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = evaluate_detection("timm:test_resnet", scenes, out, CONFIG, baselines=["random"])
    assert found == json.loads((out / "metrics.json").read_text())
    keys = ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "box_ap_shuffled", "mask_ap_shuffled")
    for key in keys:
        assert 0 <= found[f"{key}_low"] <= found[f"{key}_high"] <= 1 and 0 <= found[key] <= 1, key
    assert set(found["rows"]) == {"timm:test_resnet", "random"}
    # The same network with the same random weights, by two names: whatever differs, differs by chance.
    assert found["rows"]["timm:test_resnet"] == found["rows"]["random"]
    (cell,) = found["cells"]["timm:test_resnet"]
    for part in ("box", "mask", "box_shuffled", "mask_shuffled"):
        assert tuple(cell[part]) == STATISTICS
    assert cell["box"]["ap"] == cell["box_ap"] and cell["mask_shuffled"]["ap50"] == cell["mask_ap50_shuffled"]
    assert cell["counts"] == {"train_images": 12, "tested_images": 5, "tested_shuffled_images": 5}
    assert "3 steps of 4 images" in found["budget"]
    (picture, *_) = sorted(out.glob("cells/*/seed0/detections.png"))
    with Image.open(picture) as sheet:
        assert sheet.size == (2 * 240 + 18, 2 * 246 + 6)
    assert not list(out.glob(f"cells/*/seed0/{CHECKPOINT}"))
    assert "detections.png" not in (out / "report.html").read_text()  # embedded
    assert "data:image/png" in (out / "report.html").read_text()


def test_the_backbone_is_left_as_it_was_and_the_cell_is_the_same_again(scenes: Path, tmp_path: Path) -> None:
    task: Task = DetectionTask(scenes, CONFIG)
    backbone = create_backbone("test_resnet", seed=0).eval()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    first = task.measure(backbone, 0, tmp_path)
    assert task.measure(backbone, 0, tmp_path) == first
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    assert not backbone.training
    assert task.measure(backbone, 1, tmp_path)["loss"] != first["loss"]


def test_the_fingerprint_changes_with_options_and_data(scenes: Path, tmp_path: Path) -> None:
    own = DetectionTask(scenes, CONFIG).fingerprint()
    assert DetectionTask(scenes, replace(CONFIG, workers=2, save_every=1)).fingerprint() == own
    assert DetectionTask(scenes, replace(CONFIG, steps=4)).fingerprint() != own
    assert DetectionTask(scenes, replace(CONFIG, masks=False)).fingerprint() != own
    other = tmp_path / "other"
    shutil.copytree(scenes, other)
    document = json.loads((other / "val" / "annotations.json").read_text())
    document["annotations"][0]["category_id"] = 1 + document["annotations"][0]["category_id"] % 4
    (other / "val" / "annotations.json").write_text(json.dumps(document))
    assert DetectionTask(other, CONFIG).fingerprint() != own


def edited(scenes: Path, folder: Path, part: str, edit: Any) -> Path:
    shutil.copytree(scenes, folder)
    path = folder / part / "annotations.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    return folder


def test_masks_are_learned_where_all_objects_have_one_and_asked_for_or_not(scenes: Path, tmp_path: Path) -> None:
    assert DetectionTask(scenes, CONFIG).masks and not DetectionTask(scenes, replace(CONFIG, masks=False)).masks
    lacking = edited(scenes, tmp_path / "lacking", "val", lambda d: d["annotations"][0].pop("segmentation"))
    task = DetectionTask(lacking, CONFIG)
    assert not task.masks and not any(measure.key.startswith("mask") for measure in task.measures)
    with pytest.raises(InputError, match=r"(?s)val.*without masks.*--masks false"):
        DetectionTask(lacking, replace(CONFIG, masks=True))


def test_bad_data_and_options(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no annotations"):
        DetectionTask(scenes / "train" / "images", CONFIG)
    empty = edited(scenes, tmp_path / "empty", "train", lambda d: d["annotations"].clear())
    with pytest.raises(InputError, match=r"train.*only 0 of 12 images have objects"):
        DetectionTask(empty, CONFIG)

    def all_crowds(document: dict[str, Any]) -> None:
        for entry in document["annotations"]:
            entry["iscrowd"] = 1

    with pytest.raises(InputError, match=r"val.*only 0 of 5 images have objects"):
        DetectionTask(edited(scenes, tmp_path / "crowds", "val", all_crowds), CONFIG)
    with pytest.raises(InputError, match="degenerate"):
        DetectionTask(
            edited(scenes, tmp_path / "flat", "train", lambda d: d["annotations"][0].update(bbox=[3, 3, 0, 4])), CONFIG
        )
    with pytest.raises(InputError, match="unknown category_id"):
        DetectionTask(
            edited(scenes, tmp_path / "class", "val", lambda d: d["annotations"][0].update(category_id=77)), CONFIG
        )
    for name, value in (("size", 8), ("steps", 0), ("batch_size", 1), ("lr", -1.0), ("rois", 1), ("min_score", 1.0)):
        with pytest.raises(InputError, match=rf"option {name} = .* is out of range"):
            DetectionTask(scenes, replace(CONFIG, **{name: value}))
    with pytest.raises(InputError, match="architecture fpn"):
        evaluate_detection("timm:test_vit", scenes, None, replace(CONFIG, architecture="c4"))
    untrainable = replace(CONFIG, architecture="c4", steps=10**9)  # named before the first row is fine-tuned
    with pytest.raises(InputError, match="'test_vit' cannot be run"):
        evaluate_detection("timm:test_resnet", scenes, None, untrainable, baselines=["timm:test_vit"])


def test_images_are_limited(scenes: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, max_train_images=5, max_val_images=2, masks=False)
    task = DetectionTask(scenes, config)
    assert [len(images) for images in task.tested.values()] == [2, 2] and "from 5 of 12" in task.budget()
    found = task.measure(create_backbone("test_resnet", seed=0), 0, tmp_path)
    assert found["counts"] == {"train_images": 5, "tested_images": 2, "tested_shuffled_images": 2}
    assert "mask" not in found and "mask_ap" not in found


def test_a_frozen_backbone_stays_as_it_is(scenes: Path) -> None:
    """Weights and the norms' statistics; the new layers are trained."""
    config = replace(CONFIG, freeze=True)
    backbone = create_backbone("test_resnet", seed=0)
    detector = build_detector(backbone, 4, False, config, 0)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    images = DetectionTask(scenes, replace(config, masks=False)).train
    batches = Batches(images=images, config=config, channels=3, masks=False, seed=0)
    train_detector(detector, batches, torch.device("cpu"))
    changed = {name for name, value in detector.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any(name.startswith("trunk.backbone") for name in changed)
    with pytest.raises(InputError, match="option freeze"):
        DetectionTask(scenes, replace(config, architecture="c4"))


def test_one_coco_set_is_split(scenes: Path) -> None:
    task = DetectionTask(scenes / "train", replace(CONFIG, val_share=0.5))
    assert list(task.tested) == ["val"] and not any("shuffled" in measure.key for measure in task.measures)
    assert not set(task.train.ids) & set(task.tested["val"].ids)


def test_the_picture_shows_truth_and_detections(scenes: Path) -> None:
    images = open_images(scenes / "val")
    detector = build_detector(create_backbone("test_resnet", seed=0), 4, True, CONFIG, 0).eval()
    positions, found = detect(detector, images, CONFIG)
    assert any(len(own.scores) for own in found)
    few = draw_detections(images, positions[:2], found[:2], 3, 0.0)
    none = draw_detections(images, positions[:2], found[:2], 3, 1.0)
    halves = [(sheet.crop((0, 0, 246, 498)), sheet.crop((246, 0, 498, 498))) for sheet in (few, none)]
    assert halves[0][0].tobytes() == halves[1][0].tobytes() and halves[0][1].tobytes() != halves[1][1].tobytes()


def worker(rank: int, port: int, data: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    images = open_images(Path(data) / "train")
    detector = build_detector(create_backbone("test_resnet", seed=0), 4, True, CONFIG, 0)
    batches = Batches(images=images, config=CONFIG, channels=3, masks=True, seed=0)
    loss = train_detector(detector, batches, torch.device("cpu"), Path(folder) / CHECKPOINT, "cell")
    positions, found = detect(detector, images, CONFIG)
    boxes = [torch.from_numpy(own.boxes) for own in found]
    state = {"loss": loss, "state": detector.state_dict(), "positions": positions, "boxes": boxes}
    torch.save(state, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_end_with_the_same_detector_and_all_detections(scenes: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(scenes), str(tmp_path)), nprocs=2)  # type: ignore[attr-defined]
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert one["loss"] == two["loss"]
    assert all(torch.equal(one["state"][key], two["state"][key]) for key in one["state"])
    assert one["positions"] == two["positions"] == list(range(12))
    assert all(torch.equal(a, b) for a, b in zip(one["boxes"], two["boxes"], strict=True))
    # The images and the flips are those of one process; only the sampled anchors and regions differ.
    images = open_images(scenes / "train")
    alone = build_detector(create_backbone("test_resnet", seed=0), 4, True, CONFIG, 0)
    loss = train_detector(
        alone, Batches(images=images, config=CONFIG, channels=3, masks=True, seed=0), torch.device("cpu")
    )
    assert loss == pytest.approx(one["loss"], rel=0.05)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["step"] == 3 and state["detector"].keys() == alone.state_dict().keys()
