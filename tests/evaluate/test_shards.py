"""Evaluation and diagnosis of shards give the figures of the folders that were packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from d3ssl.cli.main import main
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.shards.pack import pack_shards
from d3ssl.diagnose import DiagnoseConfig, diagnose_backbone
from d3ssl.evaluate.splits import open_semantic


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    make_scenes(folder, ScenesConfig(images=60, val_images=20, size=48, num_classes=4, themes=2, workers=1))
    return folder


@pytest.fixture(scope="module")
def shards(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "scenes"
    for split in ("train", "val", "val_shuffled"):
        pack_shards(scenes / split, out / split, "20KB")
    return out


def test_objects_of_shards_with_splits(scenes: Path, shards: Path, tmp_path: Path) -> None:
    found: dict[Path, dict[str, Any]] = {}
    for data in (scenes, shards):
        command = ["evaluate", "objects", "--backbone", "timm:test_resnet", "--data", str(data), "--device", "cpu"]
        out = tmp_path / data.parent.name
        assert main([*command, "--out", str(out), "--size", "48"]) == 0
        found[data] = json.loads((out / "metrics.json").read_text())
    keys = ("o_knn", "linear", "o_knn_shuffled", "context_gap", "o_knn_low", "linear_high")
    assert [found[shards][key] for key in keys] == [found[scenes][key] for key in keys]
    assert len(list((shards / "train").glob("*.tar"))) > 1


def test_semantic_maps_are_painted_from_the_annotations_beside_shards(scenes: Path, shards: Path) -> None:
    one, other = open_semantic(scenes, 0.2), open_semantic(shards, 0.2)
    assert one.train.digest() == other.train.digest() and one.val.digest() == other.val.digest()
    assert (one.val.labels(3) == other.val.labels(3)).all()
    single = open_semantic(f"{shards}/train/{{000..002}}.tar", 0.3)
    assert 0 < len(single.train) + len(single.val) < 60


def test_probes_are_the_same(scenes: Path, shards: Path) -> None:
    config = DiagnoseConfig(size=64, objects=4, seeds=1, draws=100, batch_size=32)
    found = [diagnose_backbone("timm:test_resnet", data, None, config) for data in (scenes / "train", shards / "train")]
    assert found[0]["context_sensitivity"] == found[1]["context_sensitivity"]
    assert found[0]["position_sensitivity"] == found[1]["position_sensitivity"]
