"""A small diagnosis in the log: the training is the same with it and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.diagnose import Monitor
from d3ssl.errors import D3sslError, InputError
from d3ssl.methods.hosts import Soco
from d3ssl.models import Backbone, create_backbone, load_backbone
from d3ssl.regions.config import RegionsConfig
from d3ssl.train import CanvasConfig, ModelConfig, RunConfig, RuntimeConfig, TrainConfig, pretrain, read_log
from d3ssl.train.optimizer import OptimizerConfig
from d3ssl.views import ViewsConfig


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    root = tmp_path_factory.mktemp("monitor")
    make_scenes(root / "scenes", ScenesConfig(images=24, val_images=2, size=64, workers=1))
    return RunConfig(
        data=str(root / "scenes" / "train"),
        out=str(root / "plain"),
        proposals=RegionsConfig(method="annotations", workers=1),
        canvas=CanvasConfig(size=64, max_candidates=8),
        views=ViewsConfig(size=48, regions_per_image=2, min_side=4.0),
        model=ModelConfig(backbone="test_resnet"),
        host=Soco(region_path="map", roi_size=2, projector_hidden=16, projector_out=8, loss="info_nce"),
        optimizer=OptimizerConfig(name="adamw", lr=1e-3),
        train=TrainConfig(steps=4, batch_size=8),
        runtime=RuntimeConfig(workers=0, log_every=100, tensorboard=False),
    )


def with_monitor(config: RunConfig, name: str) -> RunConfig:
    runtime = replace(config.runtime, diagnose_every=2)
    return replace(config, out=str(Path(config.out).with_name(name)), runtime=runtime)


def test_the_log_has_the_diagnoses_and_the_weights_are_the_same(config: RunConfig) -> None:
    plain = pretrain(config)
    watched = pretrain(with_monitor(config, "watched"), measure=Monitor(48, objects=8))
    lines = read_log(watched)
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert 0 < line["diagnosis_context_sensitivity"] < 10
        assert 0 < line["diagnosis_position_sensitivity"] < 10
        assert line["diagnosis_s"] > 0
    one, other = (load_backbone(run).net.state_dict() for run in (plain, watched))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_features_that_tell_nothing_are_told_and_do_not_end_the_training(
    config: RunConfig, capfd: pytest.CaptureFixture
) -> None:
    def refuse(backbone: Backbone) -> dict[str, float]:
        raise D3sslError("all features are the same")

    run = pretrain(with_monitor(config, "refused"), measure=refuse)
    assert "no diagnosis at step 2: all features are the same" in capfd.readouterr().err
    assert "diagnosis_context_sensitivity" not in read_log(run)[0]


def test_both_or_neither(config: RunConfig) -> None:
    with pytest.raises(InputError, match="go together"):
        pretrain(with_monitor(config, "lacking"))
    with pytest.raises(InputError, match="go together"):
        pretrain(config, measure=lambda backbone: {})


def test_monitor_leaves_the_backbone_as_it_was() -> None:
    backbone = create_backbone("test_resnet", seed=0).train()
    state = {key: value.clone() for key, value in backbone.state_dict().items()}
    monitor = Monitor(48, objects=8)
    first = monitor(backbone)
    assert backbone.training and first == monitor(backbone)
    assert all(torch.equal(state[key], value) for key, value in backbone.state_dict().items())
