"""The code of docs/extending.md works as it stands there."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import d3ssl
from d3ssl.cli.main import main
from d3ssl.contracts import CanvasBatch
from d3ssl.data.formats import FORMATS
from d3ssl.data.images import image_size
from d3ssl.data.sources import open_images
from d3ssl.doctor.config import DoctorConfig
from d3ssl.doctor.run import examine
from d3ssl.errors import InputError
from d3ssl.methods import HOSTS, Learner, MethodConfig, Plan, find_host
from d3ssl.models.backbone import create_backbone
from d3ssl.regions.config import RegionsConfig
from d3ssl.seeds import Draws
from d3ssl.train import CanvasConfig, ModelConfig, RunConfig, RuntimeConfig, TrainConfig, read_log
from d3ssl.train.optimizer import OptimizerConfig
from d3ssl.views import RegionsSpec, ViewMaker, ViewsConfig
from tests.train.conftest import make_photos

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
HOST, TRAINING, OPERATION, READER, LOSS, FORMAT = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
SMALL = RunConfig(
    data="photos",
    out="run",
    proposals=RegionsConfig(method="grid", workers=1),
    canvas=CanvasConfig(size=40, max_candidates=9),
    views=ViewsConfig(size=32, regions_per_image=2, min_visible=0.1, min_side=1.0),
    model=ModelConfig(backbone="test_resnet"),
    optimizer=OptimizerConfig(name="adamw", lr=1e-3),
    train=TrainConfig(steps=4, batch_size=4),
    runtime=RuntimeConfig(device="cpu", workers=0, log_every=1, tensorboard=False),
)


@pytest.fixture
def simsiam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The page's first file, imported from the folder where the test runs."""
    (tmp_path / "simsiam.py").write_text(HOST, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module("simsiam")
    HOSTS.pop("simsiam")
    del sys.modules["simsiam"]


def test_a_method_is_one_short_file() -> None:
    assert len(HOST.splitlines()) < 50


def test_somebody_elses_method_trains_with_both_modules(
    simsiam: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The page's own call, made small: what it passes is kept, the rest is that of a tiny run."""
    make_photos(tmp_path / "photos")
    passed: list[RunConfig] = []

    def run_small(**own: Any) -> RunConfig:
        passed.append(replace(SMALL, **own | {"host": replace(own["host"], hidden=16, out=8)}))
        return passed[0]

    monkeypatch.setattr(d3ssl, "RunConfig", run_small, raising=False)
    exec(compile(TRAINING, "extending.md", "exec", dont_inherit=True), {})  # our own page
    assert "simsiam + DC + DP" in capsys.readouterr().out
    lines = read_log(tmp_path / "run")
    assert len(lines) == 4
    assert all(line["loss_region"] > 0 and line["loss_deposition"] > 0 for line in lines)
    assert all(line["teacher_momentum"] == 0 for line in lines)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["learner"]
    weights = [name for name in state if name.startswith("student.") and name.endswith(".weight")]
    assert weights
    for name in weights:
        assert torch.equal(state[name], state[name.replace("student.", "teacher.", 1)]), name
    assert (tmp_path / "run" / "backbone.safetensors").exists()


def test_a_method_of_an_installed_package_has_options_on_the_command_line(
    simsiam: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    HOSTS.pop("simsiam")  # as if the package had not been imported
    (tmp_path / "simsiam-1.0.dist-info").mkdir()
    section, line = re.search(r'```toml\n\[project\.entry-points\."(.*?)"\]\n(.*?)\n```', PAGE).groups()  # type: ignore[union-attr]
    (tmp_path / "simsiam-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: simsiam\nVersion: 1.0\n")
    entry = f"[{section}]\n{line.replace(chr(34), '')}\n"
    (tmp_path / "simsiam-1.0.dist-info" / "entry_points.txt").write_text(entry)
    try:
        assert find_host("simsiam") is simsiam.SimSiam
        command = re.search(r"```sh\n(d3ssl pretrain .*?)\n```", PAGE)
        assert command is not None
        assert main(command[1].split()[1:]) == 0
        shown = capfd.readouterr().err
        assert "projector 1024–2048" in shown and "EMA, momentum 0\n" in shown
        with pytest.raises(SystemExit):
            main(["pretrain", "--method.host", "simsiam", "--help"])
        assert "--host.hidden HIDDEN" in capfd.readouterr().out
    finally:
        HOSTS["simsiam"] = simsiam.SimSiam


def test_an_operation_a_reader_and_a_loss_of_somebody_elses(simsiam: ModuleType) -> None:
    names: dict[str, Any] = {}
    for block in (OPERATION, READER, LOSS):
        exec(compile(block, "extending.md", "exec", dont_inherit=True), names)  # our own page
    plan: Plan = simsiam.SimSiam(hidden=16, out=8).plan(32, RegionsSpec(regions_per_image=2, min_side=1.0))
    image = replace(plan.objectives["region"], reader=names["Peak"](), loss=names["NegativeCosine"]())
    views = {name: replace(spec, operations=(names["Fade"](),)) for name, spec in plan.views.items()}
    plan = replace(plan, objectives={"image": image}, views=views)
    plan.check()
    assert "fade(most=0.5)" in plan.table() and "peak()" in plan.table()
    learner = Learner(plan, create_backbone("test_resnet"))
    batch = CanvasBatch(
        canvas=torch.randint(256, (4, 3, 40, 40), dtype=torch.uint8),
        image_size=torch.full((4, 2), 40.0),
        boxes=torch.tensor([[[4.0, 4.0, 30.0, 30.0]]]).repeat(4, 1, 1),
        valid=torch.ones(4, 1, dtype=torch.bool),
        labels=None,
        index=torch.arange(4),
    )
    made = ViewMaker(plan.views, plan.regions, learner.backbone.mean, learner.backbone.std)(batch, Draws(seed=0))
    output = learner(made, 0.0)
    assert -1 <= output.loss.item() <= 1
    assert output.watched.shape == (4, 8)
    output.loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.student.backbone.parameters())


def test_the_teacher_may_end_at_any_momentum(simsiam: ModuleType) -> None:
    plan = replace(simsiam.SimSiam(hidden=16, out=8).plan(32, RegionsSpec()), momentum=0.9, momentum_end=0.9)
    learner = Learner(plan, create_backbone("test_resnet"))
    assert [learner.after_step(progress, [])["teacher_momentum"] for progress in (0.0, 0.5)] == [0.9, 0.9]
    assert "EMA, momentum 0.9\n" in plan.table()
    assert MethodConfig().host in HOSTS


def test_a_data_format_of_somebody_elses(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    photos = sorted((tmp_path / "photos").iterdir())
    rows = ["file,height,width,left,top,right,bottom,class"]
    for photo in photos:
        height, width = image_size(photo)
        rows += [f"{photo.name},{height},{width},2,3,20,22,cup", f"{photo.name},{height},{width},8,8,30,31,fork"]
    (tmp_path / "photos" / "objects.csv").write_text("\n".join(rows) + "\n")
    before = list(FORMATS)
    try:
        exec(compile(FORMAT, "extending.md", "exec", dont_inherit=True), {"__name__": "extending"})  # our own page
        images = open_images(tmp_path / "photos")
        assert len(images) == len(photos)
        assert images.annotated.names == ("cup", "fork")
        assert images.annotated.objects(1).boxes.tolist() == [[2, 3, 20, 22], [8, 8, 30, 31]]
        proposals = RegionsConfig(method="annotations", workers=1)
        run = replace(SMALL, data=str(tmp_path / "photos"), out=str(tmp_path / "run"), proposals=proposals)
        found = examine(tmp_path / "photos", run, DoctorConfig(workers=1, draws=5))
        assert [check.status for check in found.checks if check.name == "boxes outside images"] == ["ok"]
        d3ssl.pretrain(replace(run, train=TrainConfig(steps=2, batch_size=4)))
        assert len(read_log(tmp_path / "run")) == 2
        table = tmp_path / "photos" / "objects.csv"
        table.write_text(table.read_text().replace("20,22,cup", "900,22,cup"))
        with pytest.raises(InputError, match=r"objects\.csv: annotation 1: its bbox"):
            open_images(tmp_path / "photos")
    finally:
        FORMATS[:] = before
