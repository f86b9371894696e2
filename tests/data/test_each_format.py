"""Every format is read by every command that it has enough for; a damaged sample is one error that names the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import d3ssl
from d3ssl.data.images import read_image
from d3ssl.data.sources import open_images, open_parts
from d3ssl.doctor.config import DoctorConfig
from d3ssl.doctor.run import examine
from d3ssl.errors import InputError
from d3ssl.evaluate.objects import ObjectsConfig, evaluate_objects
from d3ssl.evaluate.splits import open_semantic
from d3ssl.models.backbone import create_backbone
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.train import CanvasConfig, ModelConfig, RunConfig, RuntimeConfig, TrainConfig, pretrain, read_log
from d3ssl.train.optimizer import OptimizerConfig
from d3ssl.views import ViewsConfig
from tests.data.format_samples import BOXES, HEIGHT, NAMES, SAMPLES, TRAIN, WIDTH, Sample, segments

GRID = RegionsConfig(method="grid", workers=1)
EVERY = pytest.mark.parametrize("name", list(SAMPLES))


def run_config(data: str, out: Path) -> RunConfig:
    return RunConfig(
        data=data,
        out=str(out),
        proposals=GRID,
        canvas=CanvasConfig(size=32, max_candidates=9),
        views=ViewsConfig(size=32, regions_per_image=2, min_visible=0.1, min_side=1.0),
        model=ModelConfig(backbone="test_resnet"),
        optimizer=OptimizerConfig(name="adamw", lr=1e-3),
        train=TrainConfig(steps=2, batch_size=4),
        runtime=RuntimeConfig(device="cpu", workers=0, log_every=1, tensorboard=False),
    )


def whole(sample: Sample) -> Any:
    """DATA for the commands that take one set: of a pair from Python, the first."""
    return sample.data[0] if isinstance(sample.data, tuple) else sample.data


@EVERY
def test_the_images_and_what_is_said_of_them(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name](tmp_path)
    parts = open_parts(sample.data)
    images = parts.train if parts else open_images(whole(sample))
    assert len(images) == TRAIN and list(images.ids) == sorted(set(images.ids))
    assert read_image(images.paths[5]).shape == (HEIGHT, WIDTH, 3)
    assert images.digest() == (open_parts(sample.data).train if parts else open_images(whole(sample))).digest()  # type: ignore[union-attr]
    if not sample.boxes:
        assert images.annotations is None
        return
    objects = images.annotated.objects(TRAIN - 1)
    found = {images.annotated.names[label]: box for label, box in zip(objects.labels, objects.boxes, strict=True)}
    assert set(found) == set(NAMES)
    for own, box in zip(NAMES, BOXES, strict=True):
        np.testing.assert_allclose(found[own], box, atol=1e-3)
    assert images.annotated.has_masks is sample.masks
    if sample.masks:
        numbers = segments(0)
        named = (images.annotated.names[label] for label in objects.labels)
        masks = dict(zip(named, images.annotated.masks(0), strict=True))
        for number, own in enumerate(NAMES, start=1):
            np.testing.assert_array_equal(masks[own], numbers == number)


@EVERY
def test_doctor_regions_training_and_evaluation(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name](tmp_path)
    run = run_config("data", tmp_path / "run")
    found = examine(whole(sample), run, DoctorConfig(workers=1, draws=5))
    assert [check.name for check in found.checks if check.status == "fail"] == []
    assert len(found.images) >= TRAIN
    images = open_images(whole(sample))
    chosen = GRID if images.annotations is None else RegionsConfig(method="annotations", workers=1)
    table = compute_regions(images, chosen, tmp_path / "regions.parquet")
    assert len(table) == len(images)
    pretrain(run, data=whole(sample))
    assert len(read_log(tmp_path / "run")) == 2
    if sample.boxes:
        config = ObjectsConfig(size=32, k=2, draws=100, shots=(1,), shot_draws=1, val_share=0.4, workers=1)
        metrics = evaluate_objects(create_backbone("test_resnet"), sample.data, config=config)
        assert 0 <= metrics["o_knn"] <= 1 and metrics["counts"]["classes"] == 2
    if sample.masks or name == "ade20k":
        assert open_semantic(sample.data, 0.4).train.labels(0).shape == (HEIGHT, WIDTH)


@EVERY
def test_a_damaged_sample_is_one_error_that_names_the_file(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name](tmp_path)
    named = sample.damage()

    def read() -> None:
        parts = open_parts(sample.data)
        images = parts.train if parts else open_images(whole(sample))
        strict = RegionsConfig(method="grid", workers=1, max_bad_share=0.0)
        compute_regions(images, strict, tmp_path / "regions.parquet")

    with pytest.raises(InputError) as caught:
        read()
    assert named in str(caught.value)
    assert caught.value.remedy


def test_posttraining_takes_a_data_set_from_python(tmp_path: Path) -> None:
    train, _ = SAMPLES["dataset"](tmp_path).data
    options = {"train__steps": 2, "train__batch_size": 4, "canvas__size": 96, "views__size": 96}
    options |= {"proposals__method": "annotations", "proposals__workers": 1, "runtime__workers": 0}
    options |= {"runtime__device": "cpu", "runtime__tensorboard": False, "runtime__diagnose_every": None}
    options["schedule__warmup_steps"] = 0
    found = d3ssl.posttrain(create_backbone("test_resnet").net, train, tmp_path / "run", **options)
    assert found.maps is not None and (tmp_path / "run" / "metrics.json").is_file()
