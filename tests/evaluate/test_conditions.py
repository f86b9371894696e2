"""Controlled conditions from annotated photographs to figures, with readers whose answers are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from d3ssl.data.scenes import make_scenes
from d3ssl.evaluate import ObjectsConfig, evaluate_objects
from d3ssl.evaluate.detection import DetectionConfig, evaluate_detection
from d3ssl.evaluate.intervals import DRAWS
from d3ssl.evaluate.segmentation import SegmentationConfig, evaluate_segmentation
from d3ssl.evaluate.splits import open_splits
from d3ssl.models import Backbone
from tests.data.annotated_shapes import controlled, write_backgrounds, write_data

CONDITIONS = ("val", "replaced", "congruent", "elsewhere", "anywhere")
PASTED = CONDITIONS[1:]
CONFIG = ObjectsConfig(size=64, batch_size=16, k=5, draws=200, workers=2, shots=(10,))


class Reader(Backbone):
    """Sees the middle of an object alone, or the surroundings of its box alone."""

    def __init__(self, sees_object: bool) -> None:
        torch.nn.Module.__init__(self)
        self.sees_object, self.in_channels, self.input_size = sees_object, 3, 64
        self.timm_name = "object" if sees_object else "surroundings"
        self.mean, self.std, self.region_path, self.roi_size = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "map", 1

    def pool(self, images: Tensor, boxes: list[Tensor], region_path: object = None) -> Tensor:
        rows = []
        for image, own in zip(images, boxes, strict=True):
            for x1, y1, x2, y2 in own.round().int().tolist():
                x, y = (x1 + x2) // 2, (y1 + y2) // 2
                around = torch.ones(image.shape[1:], dtype=torch.bool)
                around[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2] = False
                middle = image[:, y - 3 : y + 3, x - 3 : x + 3].flatten(1)
                rows.append((middle if self.sees_object else image[:, around]).median(dim=1).values)
        return torch.stack(rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("annotated") / "data", train=12, val=16)


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One neighbour at most, so that most of the surroundings are background."""
    folder = tmp_path_factory.mktemp("conditions")
    backgrounds = write_backgrounds(folder / "photos", count=4)
    options = {"backgrounds": str(backgrounds), "max_objects": 2, "val_images": 60}
    make_scenes(folder / "one", controlled(data, **options))
    make_scenes(folder / "two", controlled(data, blends=("none", "gaussian"), **options))
    return folder


def draws(out: Path) -> dict[str, np.ndarray]:
    (file,) = out.rglob(DRAWS)
    with np.load(file) as found:
        return dict(found)


def test_a_reader_of_the_object_loses_nothing(made: Path, tmp_path: Path) -> None:
    found = evaluate_objects(Reader(True), made / "one", tmp_path, CONFIG)
    for key in ("o_knn", "linear", "few_shot_10"):
        assert {found[key], *(found[f"{key}_{name}"] for name in PASTED)} == {1.0}
    for key in ("pasting_gap", "background_gap", "scene_gap", "context_gap"):
        assert found[key] == found[f"{key}_low"] == found[f"{key}_high"] == 0
    report = (tmp_path / "report.html").read_text()
    assert "When the background changes, object loses 0.0 [0.0, 0.0] points." in report
    assert "O-KNN, elsewhere" in report and found["counts"]["elsewhere_objects"] == 60


def test_a_reader_of_the_surroundings_is_at_chance_in_unfamiliar_ones(made: Path, tmp_path: Path) -> None:
    found = evaluate_objects(Reader(False), made / "one", tmp_path, CONFIG)
    assert found["o_knn"] == found["o_knn_replaced"] == found["o_knn_congruent"] == 1
    for name in ("elsewhere", "anywhere"):
        assert found[f"o_knn_{name}"] == found[f"linear_{name}"] == pytest.approx(0.25, abs=0.12)
    assert found["background_gap"] == found["scene_gap"] == 1 - found["o_knn_elsewhere"]
    assert found["background_gap_low"] < found["background_gap"] < found["background_gap_high"]
    assert found["pasting_gap"] == 0


def test_draws_are_of_the_same_objects_in_every_condition(made: Path, tmp_path: Path) -> None:
    config = ObjectsConfig(size=64, k=5, draws=200, shots=(), max_val_objects=40)
    evaluate_objects(Reader(False), made / "one", tmp_path, config)
    found = draws(tmp_path)
    assert found["o_knn_elsewhere"].std() > 0
    assert np.array_equal(found["o_knn_elsewhere"], found["o_knn_anywhere"])  # the same backgrounds, the same answers
    assert np.array_equal(found["background_gap"], found["o_knn_replaced"] - found["o_knn_elsewhere"])


def test_several_blends_of_an_object_count_as_one(made: Path, tmp_path: Path) -> None:
    one, two = (evaluate_objects(Reader(False), made / name, None, CONFIG) for name in ("one", "two"))
    assert two["counts"]["val_objects"] == 2 * one["counts"]["val_objects"]
    assert two["counts"]["val_images"] == one["counts"]["val_images"]  # photographs
    for key in ("o_knn_elsewhere", "o_knn_elsewhere_low", "o_knn_elsewhere_high"):
        assert two[key] == one[key]


def test_segmentation_takes_the_same_splits(made: Path, tmp_path: Path) -> None:
    config = SegmentationConfig(size=32, levels=1, linear_cells=500, memory=500, draws=100, pictures=1)
    found: dict[str, Any] = evaluate_segmentation("timm:test_resnet", made / "one", tmp_path, config)
    assert list(open_splits(made / "one", 0.2).tested) == list(CONDITIONS)
    for name in PASTED:
        assert 0 < found[f"linear_miou_{name}_low"] <= found[f"linear_miou_{name}"] <= 1
        assert found["counts"][f"{name}_images"] == 60
    assert "linear mIoU, anywhere" in (tmp_path / "report.html").read_text()


def test_a_detector_is_asked_about_the_same_objects_in_every_condition(made: Path, tmp_path: Path) -> None:
    small = {"width": 8, "head_features": 16, "rois": 8, "proposals": 16, "min_score": 0.01, "masks": False}
    config = DetectionConfig(
        size=64, steps=2, batch_size=4, draws=20, max_val_images=6, freeze=True, workers=1, **small
    )
    found = evaluate_detection("timm:test_resnet", made / "one", tmp_path, config)
    assert {name for name in found if name.startswith("box_ap_")} >= {f"box_ap_{name}" for name in PASTED}
    assert {found["counts"][f"tested_{name}_images"] for name in PASTED} == {6}
    assert {f"box_ap{end}" for end in ("", *(f"_{name}" for name in PASTED))} <= draws(tmp_path).keys()
