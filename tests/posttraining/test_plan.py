"""Post-training as a plan: what the modules change in it, and what they leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d3ssl.cli.main import main
from d3ssl.methods import Learner, decouple, deposition
from d3ssl.methods.hosts.posttrain import Posttrain
from d3ssl.methods.plan import Plan
from d3ssl.models import load_backbone
from d3ssl.views import RegionsSpec
from tests.methods.examples import make_views


def plan(host: Posttrain, *, dc: bool, dp: bool) -> Plan:
    own = host.plan(64, RegionsSpec(regions_per_image=3))
    own = decouple(own) if dc else own
    return deposition(own) if dp else own


@pytest.mark.parametrize("teacher", ["alone", "whole"])
@pytest.mark.parametrize(("dc", "dp"), [(True, False), (False, True), (True, True)])
def test_modules_leave_what_keeps_the_photograph(teacher: str, dc: bool, dp: bool) -> None:
    own = plan(Posttrain(teacher=teacher), dc=dc, dp=dp)  # type: ignore[arg-type]
    assert [(pair.student, pair.teacher) for pair in own.objectives["keep"].pairs] == [("x1", "x1")]
    cut = {pair.student for pair in own.objectives["region-1"].pairs}
    assert cut == ({"x1", "x2_small_cut"} if dc else {"x1", "x2_small"})
    if dp:
        seen = {pair.teacher for pair in own.objectives["deposition"].pairs}
        assert seen == ({"alone"} if teacher == "alone" else {"x1", "x2"})


@pytest.mark.parametrize(
    "host", [Posttrain(), Posttrain(teacher="whole"), Posttrain(levels=(-1, -2)), Posttrain(paste=True)]
)
def test_trains_with_both_modules(host: Posttrain) -> None:
    own = plan(host, dc=True, dp=True)
    learner = Learner(own, load_backbone("timm:test_resnet:random:1")).train()
    loss = learner(make_views(own), 0.0).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in learner.student.parameters() if p.requires_grad)


def test_dry_run_shows_the_plan(tmp_path: Path, tiles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["posttrain", str(tiles), "--backbone", "timm:test_resnet:random", "--out", str(tmp_path / "run")]
    assert main([*words, "--method.deposition", "true", "--dry_run"]) == 0
    assert "posttrain + DC + DP" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
