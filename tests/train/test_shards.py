"""Training from shards is training from the folder that was packed, to the byte."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from d3ssl.cli.main import main
from d3ssl.data.shards.pack import pack_shards
from d3ssl.data.sources import open_images
from d3ssl.regions import compute
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.table import check_regions, read_regions
from d3ssl.train.config import CanvasConfig
from d3ssl.train.loader import CanvasDataset, LoadedBatch, StepSampler, loading
from tests.train.test_run import assert_same_state, train


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_shards(photos, tmp_path_factory.mktemp("shards") / "photos", "30KB")


@pytest.fixture(scope="module")
def regions(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("regions") / "regions.parquet"
    compute_regions(open_images(photos), RegionsConfig(method="grid", size=40, workers=1), path)
    return path


def make_dataset(data: Path, regions: Path) -> CanvasDataset:
    images, table = open_images(data), read_regions(regions)
    check_regions(table, images)
    return CanvasDataset(images, table, CanvasConfig(size=40, max_candidates=4), seed=5, masks=True)


def batches(data: Path, regions: Path, workers: int) -> list[str]:
    """A checksum of all bytes of every batch, in order."""
    found = []
    with loading(make_dataset(data, regions), StepSampler(1, 6, 4, 1, 0, 1), workers) as loaded:
        for batch in loaded:
            assert isinstance(batch, LoadedBatch) and batch.bad == ()
            parts = (batch.batch.canvas, batch.batch.image_size, batch.batch.boxes, batch.batch.valid)
            labels = batch.batch.labels
            assert labels is not None
            tensors = (*parts, labels, batch.batch.index)
            found.append(hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest())
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_bytes_in_the_same_order(photos: Path, shards: Path, regions: Path, workers: int) -> None:
    assert len(list(shards.glob("*.tar"))) > 1
    wanted = batches(photos, regions, 0)
    assert batches(shards, regions, workers) == wanted
    assert len(set(wanted)) == 5


def test_the_regions_file_is_the_same_to_the_byte(
    photos: Path, shards: Path, regions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one process and by two that are spawned, so that the images travel to them pickled."""
    monkeypatch.setattr(compute, "CHUNK", 4)
    for workers in ("1", "2"):
        out = tmp_path / f"{workers}.parquet"
        command = ["regions", str(shards), "--method", "grid", "--size", "40", "--workers", workers]
        assert main([*command, "--out", str(out)]) == 0
        assert out.read_bytes() == regions.read_bytes()


def test_the_data_set_survives_the_way_to_a_loader_process(shards: Path, regions: Path) -> None:
    dataset = make_dataset(shards, regions)
    other = pickle.loads(pickle.dumps(dataset))
    assert other.load(3)[0]["canvas"].tobytes() == dataset.load(3)[0]["canvas"].tobytes()


def test_a_run_from_shards_gives_the_weights_of_the_folder(
    photos: Path, shards: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    folder = train(photos, tiny_yaml, tmp_path / "folder")
    packed = train(shards, tiny_yaml, tmp_path / "shards", "--runtime.workers", "2")
    assert_same_state(folder, packed)
    assert (folder / "backbone.safetensors").read_bytes() == (packed / "backbone.safetensors").read_bytes()
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 6


def test_a_shard_cut_while_a_run_reads_it_is_reported_image_by_image(
    photos: Path, regions: Path, tmp_path: Path
) -> None:
    shards = pack_shards(photos, tmp_path / "shards", "30KB")
    dataset = make_dataset(shards, regions)
    with open(shards / "000.tar", "rb+") as file:
        file.truncate(5000)
    bad = [message for number in range(len(dataset)) for message in dataset.load(number)[1]]
    assert bad and all("000.tar: 00" in message and "cut off at byte 5000" in message for message in bad)


def test_views_are_drawn_from_shards(shards: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    command = ["views", f"{shards}/{{000..001}}.tar", "--config", str(tiny_yaml), "--images", "3"]
    assert main([*command, "--out", str(tmp_path / "pictures")]) == 0
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3
