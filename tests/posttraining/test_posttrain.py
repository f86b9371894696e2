"""From a folder and weights to better weights: what is written, what stays, what comes back at strength 0."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

import d3ssl
from d3ssl.contracts import CanvasBatch
from d3ssl.errors import InputError
from d3ssl.files import read_json
from d3ssl.methods.kept import KeptRows, has_kept
from d3ssl.models.load import load_backbone
from d3ssl.posttraining import posttrain_run, set_strength
from d3ssl.seeds import Draws
from d3ssl.train import RunConfig, checkpoint
from d3ssl.train.loader import CanvasDataset, collate
from d3ssl.train.loop import Trainer
from d3ssl.train.recipe import recipe
from tests.posttraining.examples import BOXES, SMALL, config


@pytest.fixture(scope="module")
def run(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("post") / "run"
    return posttrain_run(config(tiles, out, proposals__method="felzenszwalb"))


def test_a_run_holds_the_frontier_and_a_backbone_for_plain_timm(run: Path) -> None:
    found = read_json(run / "metrics.json")
    assert [row["strength"] for row in found["frontier"]] == [number / 8 for number in range(9)]
    assert 0 <= found["strength"] <= 1
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    net = timm.create_model("test_resnet", num_classes=0)
    net.load_state_dict(load_file(run / "backbone.safetensors"), strict=True)


def test_another_strength_of_a_finished_run(run: Path) -> None:
    start = load_backbone("timm:test_resnet:random:1").net.state_dict()
    set_strength(run, 0.0)
    for key, value in load_backbone(run).net.state_dict().items():
        assert torch.equal(value, start[key])
    end = {
        key.removeprefix("student.backbone.net."): value
        for key, value in checkpoint_learner(run).items()
        if key.startswith("student.backbone.net.")
    }
    set_strength(run, 1.0)
    for key, value in load_backbone(run).net.state_dict().items():
        assert torch.equal(value, end[key])
    assert any(not torch.equal(end[key], start[key]) for key in end)
    with pytest.raises(InputError, match="strength"):
        set_strength(run, 1.5)


def checkpoint_learner(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(run)["learner"]


def test_no_strength_without_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a finished run"):
        set_strength(tmp_path, 0.5)


def test_from_python_a_module_stays_as_it_was(tiles: Path) -> None:
    start = load_backbone("timm:test_resnet:random:2")
    before = {key: value.clone() for key, value in start.net.state_dict().items()}
    options = {key: value for key, value in SMALL.items() if key != "model__weights"}
    found = d3ssl.posttrain(start, tiles, train__steps=2, **(options | {"proposals__method": "felzenszwalb"}))
    assert all(torch.equal(value, before[key]) for key, value in start.net.state_dict().items())
    assert found.net.state_dict().keys() == before.keys()


def test_weights_are_needed(tiles: Path, tmp_path: Path) -> None:
    own = config(tiles, tmp_path / "run")
    with pytest.raises(InputError, match="starts from weights"):
        posttrain_run(dataclasses.replace(own, model=dataclasses.replace(own.model, weights=None)))


def test_a_moving_teacher_is_refused(tiles: Path, tmp_path: Path) -> None:
    own = recipe("quickstart", data=str(tiles), out=str(tmp_path / "run"), model__weights="timm:test_resnet")
    with pytest.raises(InputError, match="not frozen"):
        posttrain_run(own)


def batch_of(own: RunConfig) -> tuple[Trainer, CanvasBatch]:
    from d3ssl.data.sources import open_images
    from d3ssl.regions.compute import compute_regions
    from d3ssl.regions.table import read_regions

    images, path = open_images(own.data), Path(own.out) / "regions.parquet"
    compute_regions(images, own.proposals, path)
    dataset = CanvasDataset(images, read_regions(path), own.canvas, 0, masks=own.plan.needs_masks)
    loaded = collate([dataset[number] for number in range(8)])
    assert not isinstance(loaded, InputError)
    return Trainer(own, dataset, 10, torch.device("cpu")), loaded.batch


def test_kept_rows_are_those_of_the_view_itself(tiles: Path, tmp_path: Path) -> None:
    own = config(tiles, tmp_path, proposals__method="felzenszwalb")
    trainer, batch = batch_of(own)
    assert has_kept(trainer.learner) and trainer.kept is not None
    whole = Trainer(
        dataclasses.replace(own, runtime=dataclasses.replace(own.runtime, keep_rows=False)),
        trainer.dataset,
        10,
        torch.device("cpu"),
    )
    views = whole.make_views(batch, 0)
    fresh = whole.learner.read_teacher(views.views["alone"], views.slots, "alone")
    drawn = trainer.views.sample(batch, Draws(seed=own.train.seed))
    first = trainer.kept.rows(batch, drawn)["alone"]
    counted = drawn.slots.weight.flatten() > 0
    assert counted.any()
    for head, rows in first.items():
        torch.testing.assert_close(rows[counted], fresh[head][counted], atol=1e-5, rtol=1e-4)
    again = KeptRows(trainer.learner).rows(batch, drawn)["alone"]
    assert all(torch.equal(again[head], rows) for head, rows in first.items())


def test_the_teacher_and_batch_statistics_stay(tiles: Path, tmp_path: Path) -> None:
    run = posttrain_run(config(tiles, tmp_path / "run", steps=2, **BOXES))
    learner, start = checkpoint_learner(run), load_backbone("timm:test_resnet:random:1").net.state_dict()
    for key, value in start.items():
        assert torch.equal(learner[f"teacher.backbone.net.{key}"], value)
        if "running_" in key:
            assert torch.equal(learner[f"student.backbone.net.{key}"], value)


def test_a_diagnosis_on_the_way_changes_nothing(tiles: Path, tmp_path: Path) -> None:
    """It leaves frozen batch norms frozen: a network put back into training mode as a whole would thaw them."""
    runs = [
        posttrain_run(config(tiles, tmp_path / str(every), steps=4, runtime__diagnose_every=every, **BOXES))
        for every in (None, 1)
    ]
    plain, diagnosed = (checkpoint_learner(run) for run in runs)
    assert all(torch.equal(plain[key], diagnosed[key]) for key in plain)


def test_stopping_changes_nothing(tiles: Path, tmp_path: Path) -> None:
    """3 steps, then 3 more: the kept rows are computed again, to the same bits."""
    options = {"proposals__method": "felzenszwalb", "runtime__save_every": 3}
    straight = posttrain_run(config(tiles, tmp_path / "a", steps=6, **options))
    own = config(tiles, tmp_path / "b", steps=6, **options)

    class Stop(Exception):
        pass

    def interrupt(trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
        if trainer.step == 4:
            raise Stop
        return step(trainer, *args, **kwargs)

    step = Trainer.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupt)
        with pytest.raises(Stop):
            posttrain_run(own)
    resumed = posttrain_run(own, resume=True)
    one, other = load_file(straight / "backbone.safetensors"), load_file(resumed / "backbone.safetensors")
    learner = [checkpoint_learner(run) for run in (straight, resumed)]
    assert all(torch.equal(learner[0][key], learner[1][key]) for key in learner[0])
    assert all(torch.equal(one[key], other[key]) for key in one)
