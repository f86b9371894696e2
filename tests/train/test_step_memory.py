"""A step that does not fit into memory is refused before the first one, with a division that would fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from d3ssl import memory
from d3ssl.cli.main import main
from d3ssl.data.sources import open_images
from d3ssl.doctor.run import examine
from d3ssl.errors import InputError
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.table import read_regions
from d3ssl.train import pretrain, step_memory
from d3ssl.train.loader import CanvasDataset
from d3ssl.train.loop import Trainer
from tests.doctor.test_doctor import LOOSE, PLANTED, RUN, good_images


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return good_images(tmp_path / "data", 8)


def trainer_of(data: Path, tmp_path: Path, batch_size: int = 8) -> tuple[Trainer, CanvasDataset]:
    config = replace(RUN, data=str(data), train=replace(RUN.train, batch_size=batch_size))
    images = open_images(data)
    compute_regions(images, config.proposals, tmp_path / "r.parquet")
    dataset = CanvasDataset(images, read_regions(tmp_path / "r.parquet"), config.canvas, 0)
    return Trainer(config, dataset, 10, torch.device("cpu")), dataset


def test_activations_are_counted_and_the_trial_leaves_no_trace(data: Path, tmp_path: Path) -> None:
    trainer, dataset = trainer_of(data, tmp_path)
    before = {key: value.clone() for key, value in trainer.learner.state_dict().items()}
    torch.manual_seed(3)
    found = step_memory.activation_bytes(trainer, dataset)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
    for key, value in trainer.learner.state_dict().items():
        assert torch.equal(value, before[key]), key
    # Two views of 32 px and one of 16: the first map of test_resnet has 32 channels at half of the side, twice.
    assert 2 * 32 * 16 * 16 * 4 * 2 < found < 4_000_000


def test_a_step_that_does_not_fit_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, dataset = trainer_of(data, tmp_path)
    each = step_memory.activation_bytes(trainer, dataset)
    rest = 3 * sum(weight.nbytes for weight in trainer.parameters)
    for images, advised in ((9, None), (5, 2), (2.5, 4), (1, "none")):
        monkeypatch.setattr(step_memory, "free_memory", lambda room=images: int(rest + room * each))
        if advised is None:
            step_memory.check_memory(trainer, dataset)
            continue
        with pytest.raises(InputError, match=r"a step of 8 images takes .* GB of memory or more") as raised:
            step_memory.check_memory(trainer, dataset)
        assert (f"--train.accumulate {advised}" in str(raised.value)) == (advised != "none")
    monkeypatch.setattr(step_memory, "free_memory", lambda: None)  # another system
    step_memory.check_memory(trainer, dataset)


def test_a_run_is_refused_before_its_first_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_memory, "free_memory", lambda: 1_000_000)
    with pytest.raises(InputError, match="GB are free"):
        pretrain(replace(RUN, data=str(data), out=str(tmp_path / "run")))
    assert not (tmp_path / "run" / "config.yaml").exists()  # so that the same folder can be used again


def test_the_doctor_says_whether_a_step_fits(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3ssl.doctor.estimates.free_memory", lambda: 1_000_000)
    found = examine(data, RUN, replace(LOOSE, time=True))
    assert {check.status for check in found.checks if check.name == "memory"} == {"fail"} and found.fails


@pytest.mark.parametrize("name", ["channels", "unreadable files"])
def test_one_bad_image_does_not_end_the_timing(tmp_path: Path, name: str) -> None:
    data = good_images(tmp_path / "data", 6)
    file, save = PLANTED[name]
    save(data / file)
    found = examine(data, RUN, replace(LOOSE, time=True))
    assert not [check for check in found.checks if check.name == "a training step"]
    assert found.estimates["training_images_per_s"] > 0


def test_free_memory_is_that_of_the_machine_or_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CGROUP", str(tmp_path))
    whole = memory.free_memory()
    assert whole is not None and whole > 0
    (tmp_path / "memory.current").write_text("7000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory() == pytest.approx(whole, rel=0.5)
    (tmp_path / "memory.max").write_text("10000000\n")
    assert memory.free_memory() == 3_000_000
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 500000\nactive_file 9\n")
    assert memory.free_memory() == 3_500_000


def test_the_command_says_it_in_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setattr(step_memory, "free_memory", lambda: 1_000_000)
    words = f"pretrain {data} --out {tmp_path}/run --recipe quickstart --proposals.method grid --canvas.size 32 "
    words += "--views.size 32 --runtime.workers 0 --model.backbone test_resnet --train.steps 1 --train.batch_size 4"
    assert main(words.split()) == 2
    assert "of memory or more" in capfd.readouterr().err
