"""Fine-tuning: what is learned from, in which order, and that a stopped one goes on as if it had not stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from d3ssl.data.image_set import ImageSet
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.sources import open_images
from d3ssl.errors import CheckpointError, D3sslError, InputError
from d3ssl.evaluate.detection import DetectionConfig, Detector, build_detector, train
from d3ssl.evaluate.detection.coco_eval import CocoTruth
from d3ssl.evaluate.detection.examples import make_batch, read_example
from d3ssl.evaluate.detection.inference import detect
from d3ssl.evaluate.detection.train import CHECKPOINT, Batches, lr_factor, make_optimizer, order_of, train_detector
from d3ssl.models import create_backbone

CONFIG = DetectionConfig(
    size=64, steps=6, batch_size=4, width=8, head_features=16, rois=8, proposals=16, save_every=2, workers=1
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images, and 4 to test on."""
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, ScenesConfig(images=20, val_images=4, size=64, num_classes=4, themes=2, workers=1))
    return folder


@pytest.fixture
def images(scenes: Path) -> ImageSet:
    return open_images(scenes / "train")


def make(config: DetectionConfig = CONFIG, masks: bool = True) -> Detector:
    return build_detector(create_backbone("test_resnet", seed=0), 4, masks, config, 0)


def batches_of(images: ImageSet, config: DetectionConfig = CONFIG, masks: bool = True, seed: int = 0) -> Batches:
    return Batches(images=images, config=config, channels=3, masks=masks, seed=seed)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_learning_rate_rises_and_falls_like_1x() -> None:
    rates = [lr_factor(step, 90, 0.1) for step in range(90)]
    assert rates[0] == pytest.approx(1e-3) and rates[9] == 1 and rates[59] == 1
    assert rates[3] == pytest.approx(1e-3 + 0.999 / 3)
    assert rates[60] == pytest.approx(0.1) and rates[79] == pytest.approx(0.1) and rates[80] == pytest.approx(0.01)
    assert lr_factor(0, 5, 0.0) == 1


def test_every_epoch_has_all_images_in_another_order() -> None:
    order = list(islice(order_of(7, 3), 21))
    epochs = [order[:7], order[7:14], order[14:]]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert order == list(islice(order_of(7, 3), 21)) != list(islice(order_of(7, 4), 21))


def test_only_weights_decay() -> None:
    detector = make()
    decayed, free = make_optimizer(detector, CONFIG).param_groups
    assert decayed["weight_decay"] == CONFIG.weight_decay and free["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim == 1 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(detector.parameters()))


def write_one(folder: Path, boxes: list[list[int]], crowd: int = 0) -> ImageSet:
    """One image of 80 × 40 px, black with white rectangles, each with its mask; the last may be a crowd."""
    (folder / "images").mkdir(parents=True)
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    annotations: list[dict[str, Any]] = []
    for x, y, width, height in boxes:
        pixels[y : y + height, x : x + width] = 255
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        entry = {"id": len(annotations) + 1, "image_id": 1, "category_id": 5, "bbox": [x, y, width, height]}
        annotations.append({**entry, "segmentation": [corners], "iscrowd": 0})
    annotations[-1]["iscrowd"] = crowd
    Image.fromarray(pixels).save(folder / "images" / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 80}],
        "annotations": annotations,
        "categories": [{"id": 5, "name": "white"}],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return open_images(folder)


def test_boxes_and_masks_follow_the_stretch_and_the_flip(tmp_path: Path) -> None:
    images = write_one(tmp_path, [[4, 8, 20, 16], [50, 20, 24, 16], [0, 0, 80, 4]], crowd=1)
    example = read_example(images, 0, 64, 3, masks=True)
    assert example.boxes.shape == (2, 4) and example.labels.tolist() == [0, 0]  # without the crowd
    np.testing.assert_allclose(example.boxes[0], [3.2, 12.8, 19.2, 38.4], rtol=1e-6)
    backbone = create_backbone("test_resnet", seed=0)
    tensors, targets = make_batch([example, example], [False, True], backbone, CPU)
    assert targets[1]["labels"].tolist() == [1, 1]
    np.testing.assert_allclose(targets[1]["boxes"][0].numpy(), [44.8, 12.8, 60.8, 38.4], rtol=1e-5)
    for image, target in zip(tensors, targets, strict=True):
        bright = image[0] > image[0].mean()
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            x1, y1, x2, y2 = (round(v) for v in box.tolist())
            inside = torch.zeros(64, 64, dtype=torch.bool)
            inside[y1:y2, x1:x2] = True
            both = (inside & mask.bool()).sum() / (inside | mask.bool()).sum()
            assert both > 0.9 and bright[mask.bool()].float().mean() > 0.95
    assert torch.equal(tensors[1], tensors[0].flip(-1))


def test_a_batch_depends_on_the_step_only(images: ImageSet) -> None:
    whole = [[e.canvas.sum() for e in batch] for batch in batches_of(images).start(0)]
    late = [[e.canvas.sum() for e in batch] for batch in batches_of(images).start(4)]
    assert len(whole) == 6 and whole[4:] == late and all(len(batch) == 4 for batch in whole)


def test_the_same_seed_gives_the_same_weights(images: ImageSet) -> None:
    state = torch.get_rng_state()
    one, two, other = make(), make(), make()
    config = replace(CONFIG, steps=3)
    loss = train_detector(one, batches_of(images, config), CPU)
    assert torch.equal(state, torch.get_rng_state()) and not one.training and np.isfinite(loss)
    torch.manual_seed(7)
    assert train_detector(two, batches_of(images, config), CPU) == loss
    train_detector(other, batches_of(images, config, seed=1), CPU)
    assert same(one.state_dict(), two.state_dict()) and not same(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_stopped_fine_tuning_goes_on_to_the_same_result(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Any
) -> None:
    config = replace(CONFIG, optimizer=optimizer)
    whole, stopped, resumed = make(), make(), make()
    loss = train_detector(whole, batches_of(images, config), CPU)
    path, real, calls = tmp_path / CHECKPOINT, train._train_step, []

    def step_until_killed(*arguments: Any) -> float:
        calls.append(arguments[-2])
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(train, "_train_step", step_until_killed)
    with pytest.raises(KeyboardInterrupt):
        train_detector(stopped, batches_of(images, config), CPU, path, "cell")
    state = torch.load(path, weights_only=True)
    assert state["step"] == 4 and calls == [0, 1, 2, 3, 4, 5]
    assert train_detector(resumed, batches_of(images, config), CPU, path, "cell") == loss
    assert calls[6:] == [4, 5] and same(whole.state_dict(), resumed.state_dict())


def test_checkpoints_of_other_cells_are_not_used_and_damaged_ones_are_named(images: ImageSet, tmp_path: Path) -> None:
    config, path = replace(CONFIG, steps=2), tmp_path / CHECKPOINT
    plain, first, second = make(), make(), make()
    train_detector(plain, batches_of(images, config), CPU)
    train_detector(first, batches_of(images, config, seed=1), CPU, path, "seed 1")
    train_detector(second, batches_of(images, config), CPU, path, "seed 0")
    assert same(plain.state_dict(), second.state_dict())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="remove the file"):
        train_detector(make(), batches_of(images, config), CPU, path, "seed 0")


def test_a_loss_that_is_not_finite_is_an_error(images: ImageSet) -> None:
    broken = make()
    with torch.no_grad():
        next(iter(broken.trunk.backbone.parameters())).fill_(float("nan"))
    with pytest.raises(D3sslError, match=r"(?s)not finite at step 1 .*--lr"):
        train_detector(broken, batches_of(images), CPU)
    with pytest.raises(D3sslError, match=r"(?s)not finite.*lower --lr"):
        train_detector(make(), batches_of(images, replace(CONFIG, lr=1e12, clip_grad_norm=None)), CPU)


def test_unreadable_images_are_replaced_up_to_a_share(scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(scenes / "train", folder)
    broken = sorted((folder / "images").iterdir())[4]
    broken.write_bytes(broken.read_bytes()[:50])
    images = open_images(folder)
    with pytest.raises(InputError, match=r"(?s)1 of 20 training images cannot be used.*--max_bad_share"):
        list(batches_of(images, replace(CONFIG, steps=10, max_bad_share=0.0)).start(0))
    lenient = batches_of(images, replace(CONFIG, steps=10))
    assert [len(batch) for batch in lenient.start(0)] == [4] * 10 and set(lenient.bad) == {4}
    with pytest.raises(InputError, match="1 of 20 images cannot be used"):
        detect(make().eval(), images, replace(CONFIG, max_bad_share=0.0))
    positions, found = detect(make().eval(), images, CONFIG)
    assert positions == [index for index in range(20) if index != 4] and len(found) == 19


@pytest.mark.slow
def test_a_detector_overfits_twenty_scenes(images: ImageSet) -> None:
    config = replace(
        CONFIG,
        steps=150,
        batch_size=10,
        optimizer="adamw",
        lr=3e-3,
        width=32,
        head_features=128,
        rois=32,
        proposals=50,
        flip=False,
    )
    detector = make(config)
    train_detector(detector, batches_of(images, config), CPU)
    positions, found = detect(detector, images, config)
    assert positions == list(range(20)) and images.annotations is not None
    truth = CocoTruth(images.annotations, masks=True)
    boxes, masks = truth.statistics(found, "bbox"), truth.statistics(found, "segm")
    assert boxes["ap50"] is not None and boxes["ap50"] > 0.9, boxes
    assert masks["ap50"] is not None and masks["ap50"] > 0.7, masks
