"""Features that leave those of the start are measured, logged, and told once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d3ssl.methods import Learner
from d3ssl.models.load import load_backbone
from d3ssl.seeds import Draws
from d3ssl.train import pretrain, read_log
from d3ssl.train.collapse import DRIFT, drift_cosine
from d3ssl.views import ViewMaker
from tests.posttraining.examples import BOXES, config
from tests.views.canvases import make_batch


def test_the_figure_is_the_cosine_of_the_cells(tmp_path: Path) -> None:
    plan = config(tmp_path, tmp_path, **BOXES).plan
    learner = Learner(plan, load_backbone("timm:test_resnet:random:1"))
    with torch.no_grad():
        for value in learner.student.parameters():
            value.add_(0.3 * value.std() * torch.randn_like(value) if value.numel() > 1 else 0.0)
    views = ViewMaker(plan.views, plan.regions, (0.5,) * 3, (0.2,) * 3)(make_batch(4), Draws(seed=0))
    parts = {name: float(value) for name, value in learner(views, 0.0).parts.items()}
    images = views.views["x1"].images
    with torch.no_grad():
        cells = [
            network.backbone.maps(images)[-1].permute(0, 2, 3, 1).flatten(0, 2)
            for network in (learner.student, learner.teacher)
        ]
    mean = cells[1].mean(0)
    wanted = torch.cosine_similarity(cells[0] - mean, cells[1] - mean).mean()
    found = drift_cosine(plan, parts)
    assert found is not None and found < 0.99
    assert found == pytest.approx(float(wanted), abs=1e-4)


@pytest.mark.parametrize(("rate", "is_told"), [(1e-4, False), (0.3, True)])
def test_a_rate_that_is_too_high_is_told_once(
    rate: float, is_told: bool, tiles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = config(tiles, tmp_path / "run", 4, optimizer__lr=rate, runtime__log_every=1, **BOXES)
    run = pretrain(own, finish=lambda *_: None)
    figures = [line[DRIFT] for line in read_log(run)]
    assert figures[0] == pytest.approx(1.0, abs=1e-4)  # the first step is taken from the start itself
    assert (min(figures) < 0.3) == is_told
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("the features leave those of the start") == is_told
    assert ("--strength" in told) == is_told


def test_nothing_is_said_where_nothing_compares_a_view_with_itself(tiles: Path, tmp_path: Path) -> None:
    own = config(tiles, tmp_path / "run", 1, host__keep=0.0, **BOXES)
    assert DRIFT not in read_log(pretrain(own, finish=lambda *_: None))[-1]
