"""The evaluation from files to metrics.json, with backbones whose answers are known."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.sources import open_images
from d3ssl.errors import D3sslError, InputError
from d3ssl.evaluate import ObjectsConfig, evaluate_objects, extract_objects
from d3ssl.evaluate.encode import encode_masks
from d3ssl.evaluate.features import ObjectFeatures
from d3ssl.evaluate.objects.measures import measure_features
from d3ssl.evaluate.splits import limit_objects, open_splits
from d3ssl.models import Backbone, create_backbone
from tests.data.annotated_shapes import small, write_data

CLASSES = 4
COLOURS = np.array([[230, 20, 20], [20, 230, 20], [20, 20, 230], [230, 230, 230]])
CONFIG = ObjectsConfig(size=32, batch_size=16, k=5, draws=200, workers=2)


def write_set(folder: Path, count: int, seed: int, *, by_place: bool) -> Path:
    """Images of grey noise with two squares each. A square's colour tells its class; if ``by_place``, its place does
    too: classes 0, 1 stand on the left, 2, 3 on the right."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        pixels = rng.integers(100, 150, (40, 80, 3)).astype(np.uint8)
        for right in (0, 1):
            label = int(rng.integers(0, 2)) + 2 * right if by_place else int(rng.integers(0, CLASSES))
            x, y = 5 + 40 * right + int(rng.integers(0, 10)), int(rng.integers(2, 15))
            pixels[y : y + 20, x : x + 20] = COLOURS[label]
            annotations.append(
                {"id": 2 * number + right, "image_id": number, "category_id": label, "bbox": [x, y, 20, 20]}
            )
        Image.fromarray(pixels).save(folder / "images" / f"{number:03d}.png")
        images.append({"id": number, "file_name": f"{number:03d}.png", "height": 40, "width": 80})
    categories = [{"id": label, "name": f"class {label}"} for label in range(CLASSES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    write_set(folder / "train", 60, 1, by_place=True)
    write_set(folder / "val", 40, 2, by_place=True)
    write_set(folder / "val_shuffled", 40, 3, by_place=False)
    return folder


class Reader(Backbone):
    """A backbone that pools what it is told to."""

    def __init__(self, what: str) -> None:
        torch.nn.Module.__init__(self)
        self.what, self.in_channels, self.timm_name, self.input_size = what, 3, what, 32
        self.mean, self.std, self.region_path, self.roi_size = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "map", 1

    def pool(self, images: Tensor, boxes: list[Tensor], region_path: object = None) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        rows = []
        for image, own in zip(images, boxes, strict=True):
            for box in own:
                x1, y1, x2, y2 = (round(v) for v in box.tolist())
                colour = image[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].mean(dim=(1, 2))
                place = torch.stack([box[0] + box[2], box[1] + box[3]]) / 32 - 1
                rows.append({"colour": colour, "place": place, "constant": torch.ones(3)}[self.what])
        if self.what == "constant" and len(rows) == 0:
            return torch.zeros(0, 3)
        return torch.stack(rows)


def test_a_backbone_that_sees_the_object_has_no_gap(root: Path, tmp_path: Path) -> None:
    found = evaluate_objects(Reader("colour"), root, tmp_path / "out", CONFIG)
    for key in ("o_knn", "linear", "o_knn_shuffled", "linear_shuffled"):
        assert found[key] > 0.95, key
        assert found[f"{key}_low"] <= found[key] <= found[f"{key}_high"]
    assert abs(found["context_gap"]) < 0.05
    assert found == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["counts"]["train_objects"] == 120 and found["counts"]["val_images"] == 40
    assert found["counts"]["classes"] == CLASSES and found["protocol"]["size"] == 32
    assert found["backbone"] == "colour"


def test_a_backbone_that_sees_the_place_has_a_gap(root: Path) -> None:
    """Left or right leaves two classes of four: half right where place tells, a quarter where it does not."""
    found = evaluate_objects(Reader("place"), root, None, CONFIG)
    assert found["o_knn"] == pytest.approx(0.5, abs=0.15)
    assert found["o_knn_shuffled"] == pytest.approx(0.25, abs=0.15)
    assert found["context_gap"] == pytest.approx(found["o_knn"] - found["o_knn_shuffled"])
    assert 0 < found["context_gap_low"] < found["context_gap"] < found["context_gap_high"]
    assert found["chance"] == pytest.approx(0.25, abs=0.1)


def test_the_same_again(root: Path) -> None:
    """A real backbone: no trace of the batch size, of threads, or of torch's global generator."""
    backbone = create_backbone("test_resnet", seed=0)
    training = backbone.training
    first = evaluate_objects(backbone, root, None, CONFIG)
    assert backbone.training == training
    torch.manual_seed(5)
    second = evaluate_objects(backbone, root, None, ObjectsConfig(size=32, batch_size=16, k=5, draws=200, workers=1))
    for found in (first, second):  # the number of threads is written there
        del found["protocol"], found["cells"]["test_resnet"][0]["protocol"]
    assert first == second
    images = open_images(root / "val")
    one = extract_objects(backbone, images, size=32, batch_size=64)
    many = extract_objects(backbone, images, size=32, batch_size=7)
    assert (
        torch.allclose(one.x, many.x, atol=1e-5) and torch.equal(one.y, many.y) and torch.equal(one.image, many.image)
    )


def test_boxes_follow_the_stretch_and_images_their_order(root: Path) -> None:
    """The images are 40 × 80; their squares' colours are read right only if boxes are scaled in both directions."""
    images = open_images(root / "val_shuffled")
    found = extract_objects(Reader("colour"), images, size=32, workers=3)
    assert torch.allclose((found.x * 0.5 + 0.5) * 255, torch.from_numpy(COLOURS).float()[found.y], atol=12)
    assert found.image.tolist() == sorted(found.image.tolist())
    assert images.annotations is not None
    assert found.y[found.image == 3].tolist() == images.annotations.objects(3).labels.tolist()


def test_crowds_and_small_objects_are_passed_over(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(root / "val", folder)
    document = json.loads((folder / "annotations.json").read_text())
    document["annotations"][0]["iscrowd"] = 1
    document["annotations"][3]["bbox"] = [3, 3, 4, 20]
    (folder / "annotations.json").write_text(json.dumps(document))
    images = open_images(folder)
    assert len(extract_objects(Reader("place"), images, size=32)) == 79
    assert len(extract_objects(Reader("place"), images, size=32, min_side=4.0)) == 78


def test_one_set_is_split_by_its_ids_only(root: Path, tmp_path: Path) -> None:
    splits = open_splits(root / "train", 0.3)
    assert list(splits.tested) == ["val"]
    assert not set(splits.train.ids) & set(splits.val.ids)
    assert len(splits.train) + len(splits.val) == 60 and 8 <= len(splits.val) <= 28
    folder = tmp_path / "half"
    shutil.copytree(root / "train", folder)
    document = json.loads((folder / "annotations.json").read_text())
    document["images"] = document["images"][30:]
    document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] >= 30]
    (folder / "annotations.json").write_text(json.dumps(document))
    half = open_splits(folder, 0.3)
    assert set(half.val.ids) == set(splits.val.ids) & set(half.val.ids) | set(half.val.ids) - set(splits.train.ids)
    assert set(half.train.ids) <= set(splits.train.ids) and set(half.val.ids) <= set(splits.val.ids)
    found = evaluate_objects(Reader("colour"), root / "train", None, CONFIG)
    assert found["o_knn"] > 0.95
    assert "o_knn_shuffled" not in found and "context_gap" not in found


def test_objects_are_limited_by_whole_images(root: Path) -> None:
    images = open_images(root / "train")
    few = limit_objects(images, 21, 0, "train")
    assert len(few) == 11 and few.ids == limit_objects(images, 21, 0, "train").ids
    assert few.ids != limit_objects(images, 21, 1, "train").ids
    assert limit_objects(images, 120, 0, "train") is images and limit_objects(images, None, 0, "train") is images


def test_unknown_classes_are_an_error_or_left_out_by_wish(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lacking"
    shutil.copytree(root, folder)
    path = folder / "train" / "annotations.json"
    document = json.loads(path.read_text())
    document["annotations"] = [entry for entry in document["annotations"] if entry["category_id"] != 3]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"(?s)1 classes of val have no training objects: class 3.*leave_out"):
        evaluate_objects(Reader("colour"), folder, None, CONFIG)
    lenient = ObjectsConfig(size=32, k=5, draws=200, unknown_classes="leave_out")
    found = evaluate_objects(Reader("colour"), folder, None, lenient)
    assert found["o_knn"] > 0.95 and found["counts"]["val_objects"] < 80


def test_features_that_tell_nothing_are_an_error(root: Path) -> None:
    with pytest.raises(D3sslError, match=r"(?s)same feature.*collapsed"):
        evaluate_objects(Reader("constant"), root, None, CONFIG)


def test_bad_images_are_left_out_up_to_a_share(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(root / "val", folder)
    broken = sorted((folder / "images").iterdir())[4]
    broken.write_bytes(broken.read_bytes()[:200])
    Image.new("RGB", (30, 30)).save(folder / "images" / "007.png")
    images = open_images(folder)
    with pytest.raises(InputError, match=r"(?s)2 of 40 images cannot be used.*004\.png"):
        extract_objects(Reader("colour"), images, size=32, max_bad_share=0.0)
    found = extract_objects(Reader("colour"), images, size=32, max_bad_share=0.05)
    assert len(found) == 76 and {4, 7}.isdisjoint(found.image.tolist())
    assert "004.png" in found.skipped[0] and "annotations say 80×40" in found.skipped[1]


def test_bad_data_and_options(root: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(root / "val" / "images", plain)
    with pytest.raises(InputError, match="no annotations"):
        evaluate_objects(Reader("colour"), plain, None, CONFIG)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        evaluate_objects(Reader("colour"), root, tmp_path / "file", CONFIG)
    for bad in (ObjectsConfig(k=0), ObjectsConfig(val_share=1.0), ObjectsConfig(temperature=-1.0)):
        with pytest.raises(InputError, match="out of range"):
            evaluate_objects(Reader("colour"), root, None, bad)
    other = tmp_path / "other"
    shutil.copytree(root, other)
    text = (other / "val" / "annotations.json").read_text()
    (other / "val" / "annotations.json").write_text(text.replace("class 1", "other"))
    with pytest.raises(InputError, match="other categories"):
        evaluate_objects(Reader("colour"), other, None, CONFIG)


def test_scenes_and_a_timm_backbone_end_to_end(tmp_path: Path) -> None:
    make_scenes(
        tmp_path / "scenes", ScenesConfig(images=60, val_images=20, size=48, num_classes=4, themes=2, workers=1)
    )
    found = evaluate_objects("timm:test_resnet", str(tmp_path / "scenes"), str(tmp_path / "out"), CONFIG)
    assert {"o_knn_low", "linear_high", "o_knn_shuffled", "context_gap_low", "chance"} <= found.keys()
    assert found["backbone"] == "timm:test_resnet" and (tmp_path / "out" / "metrics.json").is_file()


@pytest.mark.parametrize("regions", ["box", "mask"])
def test_objects_remembered_in_photographs_and_asked_about_out_of_context(tmp_path: Path, regions: Any) -> None:
    data = write_data(tmp_path / "data")
    make_scenes(tmp_path / "scenes", small(data, train="natural", val_images=20))
    config = replace(CONFIG, regions=regions, size=64)
    found = evaluate_objects("timm:test_resnet", tmp_path / "scenes", tmp_path / "out", config)
    assert found["counts"]["classes"] == 4 and found["counts"]["train_objects"] == 4 * 24
    assert {"o_knn", "o_knn_shuffled", "context_gap_high"} <= found.keys()


def test_features_are_kept_until_weights_data_or_options_change(root: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(root, folder)
    backbone = create_backbone("test_resnet", seed=0)

    def kept() -> int:
        return len(list(out.rglob("*.safetensors")))

    def evaluate(**options: Any) -> dict[str, Any]:
        return evaluate_objects(backbone, folder, out, replace(CONFIG, **options))

    first = evaluate()
    assert kept() == 3
    assert evaluate(k=1)["cells"] != first["cells"] and kept() == 3
    evaluate(regions="box", size=48)
    assert kept() == 6
    path = folder / "val" / "annotations.json"
    path.write_text(path.read_text().replace('"category_id": 2', '"category_id": 3'))
    evaluate()
    assert kept() == 7
    with torch.no_grad():
        backbone.net.get_parameter("layer1.0.conv1.weight").add_(0.1)
    evaluate()
    assert kept() == 10
    damaged = next(out.rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:40])
    evaluate(k=3)


class Pixels(Backbone):
    """A backbone whose only map is the image itself."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.in_channels, self.timm_name, self.input_size, self.channels = 3, "pixels", 32, [3]
        self.mean, self.std, self.region_path, self.roi_size = (0.0,) * 3, (1.0,) * 3, "map", 1

    def maps(self, images: Tensor) -> list[Tensor]:
        return [images]


def test_masks_are_pooled_by_the_share_of_every_cell(tmp_path: Path) -> None:
    """A triangle in one colour on another: its mask gives its colour alone, its box would give both."""
    write_set(tmp_path / "set", 20, 4, by_place=False)
    path = tmp_path / "set" / "annotations.json"
    document = json.loads(path.read_text())
    for entry in document["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["segmentation"] = [[x + 3, y + 3, x + width - 3, y + 3, x + 3, y + height - 3]]
    path.write_text(json.dumps(document))
    images = open_images(tmp_path / "set")
    found = extract_objects(Pixels(), images, size=160, regions="mask")
    assert torch.allclose(found.x * 255, torch.from_numpy(COLOURS).float()[found.y], atol=3)
    assert images.annotations is not None
    masks = images.annotations.masks(0)
    canvas = np.random.default_rng(0).integers(0, 256, (1, 40, 80, 3), dtype=np.uint8)[:, :, :40]
    rows = encode_masks(Pixels(), canvas, [masks[:, :, :40]])
    naive = [canvas[0][mask[:, :40]].mean(axis=0) / 255 for mask in masks if mask[:, :40].any()]
    assert torch.allclose(rows[0].double(), torch.from_numpy(naive[0]), atol=1e-5)


def test_masks_are_asked_for_before_work(root: Path) -> None:
    with pytest.raises(InputError, match="objects without masks"):
        evaluate_objects(Reader("colour"), root, None, replace(CONFIG, regions="mask"))


def test_few_shots_and_classes(root: Path) -> None:
    seen = evaluate_objects(Reader("colour"), root, None, CONFIG)
    blind = evaluate_objects(Reader("place"), root, None, CONFIG)
    for shots in (1, 5, 10):
        assert seen[f"few_shot_{shots}"] > 0.95 and seen[f"few_shot_{shots}_shuffled"] > 0.95
        assert blind[f"few_shot_{shots}"] == pytest.approx(0.5, abs=0.15)
        assert blind[f"few_shot_{shots}_low"] <= blind[f"few_shot_{shots}"] <= blind[f"few_shot_{shots}_high"]
    assert seen["o_knn_per_class"] > 0.95


def test_torchrun_reads_shares_and_finds_the_same(root: Path, tmp_path: Path) -> None:
    context = torch.multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [context.Process(target=_extract_in_process, args=(n, port, str(root), str(tmp_path))) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    alone = extract_objects(create_backbone("test_resnet", seed=0), open_images(root / "val"), size=32)
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert torch.allclose(found["x"], alone.x, atol=1e-5)
        assert torch.equal(found["y"], alone.y) and torch.equal(found["image"], alone.image)


def _extract_in_process(number: int, port: int, root: str, out: str) -> None:
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=number)
    found = extract_objects(create_backbone("test_resnet", seed=0), open_images(Path(root) / "val"), size=32, workers=1)
    torch.save({"x": found.x, "y": found.y, "image": found.image}, Path(out) / f"{number}.pt")
    torch.distributed.destroy_process_group()


def test_labels_drawn_at_random_give_chance() -> None:
    """Whatever the features, nothing names labels that were drawn by lot: 1 of 4 within three standard errors."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> ObjectFeatures:
        x = torch.from_numpy(rng.normal(size=(count, 16))).float()
        return ObjectFeatures(x=x, y=torch.from_numpy(rng.integers(0, 4, count)), image=torch.arange(count) // 2)

    metrics, _, _, draws = measure_features({"train": draw(600), "val": draw(800)}, CONFIG, 0)
    for key in ("o_knn", "linear", "o_knn_per_class", "few_shot_10"):
        assert metrics[key] == pytest.approx(0.25, abs=0.046), key
        low, high = np.percentile(draws[key], [2.5, 97.5])
        assert (metrics[f"{key}_low"], metrics[f"{key}_high"]) == (pytest.approx(low), pytest.approx(high))
