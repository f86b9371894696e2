"""The doctor's command, its files, and what it says of a whole data set and of what a run would cost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from d3ssl.cli.main import main
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.shards.pack import pack_shards
from d3ssl.doctor.estimates import amount, duration, sizes_of_run
from d3ssl.doctor.examination import Examination
from d3ssl.doctor.run import examine
from d3ssl.errors import InputError
from d3ssl.train import pretrain
from tests.doctor.test_doctor import LOOSE, RUN, good_images, save_truncated, statuses


def quick(extra: list[str]) -> list[str]:
    small = ["--proposals.method", "grid", "--proposals.workers", "1", "--canvas.size", "40", "--views.size", "32"]
    return ["--recipe", "quickstart", "--train.batch_size", "4", *small, "--workers", "1", "--draws", "5", *extra]


def test_exit_codes_files_and_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = good_images(tmp_path / "data", 5)
    shutil.copy(data / "good_002.png", data / "again.png")
    out, file = tmp_path / "out", tmp_path / "other.json"
    assert main(["doctor", str(data), *quick(["--out", str(out), "--json", str(file)])]) == 0  # warnings alone
    found = json.loads((out / "doctor.json").read_text())
    assert found == json.loads(file.read_text())
    assert (found["images"], found["fails"]) == (6, False)
    page = (out / "report.html").read_text()
    assert "Nothing was found that would make training fail" in page and page.count("<img") >= 2
    assert "exact duplicates" in capsys.readouterr().out
    save_truncated(data / "cut.jpg")
    assert main(["doctor", str(data), *quick([])]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "training would fail: unreadable files" in told and "cut.jpg" in told and "What to do" in told
    assert main(["doctor", str(tmp_path / "none")]) == 2
    assert main(["doctor", str(data), "--near_bits", "99"]) == 2
    assert main(["doctor", str(data), "--train.batch_size", "1"]) == 2
    assert main(["doctor", str(data), "--unknown", "1"]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["doctor", str(tmp_path / "empty")]) == 2


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder / "set", ScenesConfig(images=80, val_images=1, size=48, workers=1))
    return folder / "set" / "train"


def plain(found: Examination) -> str:
    summary = found.summary()
    del summary["estimates"]
    return json.dumps(summary)


def test_processes_change_nothing(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = examine(scenes, RUN, LOOSE)
    monkeypatch.setattr("d3ssl.doctor.scan._FEW", 10)
    assert plain(examine(scenes, RUN, replace(LOOSE, workers=2))) == plain(alone)


def test_shards_are_told_of_as_their_folder_is(scenes: Path, tmp_path: Path) -> None:
    shards = pack_shards(scenes, tmp_path / "shards", "200KB")
    assert len(list(shards.glob("*.tar"))) > 1
    of_folder, of_shards = examine(scenes, RUN, LOOSE), examine(shards, RUN, LOOSE)
    assert np.array_equal(of_shards.scan.facts, of_folder.scan.facts)
    assert statuses(of_shards) == statuses(of_folder)


def test_a_sample_is_chosen_by_the_ids(scenes: Path, tmp_path: Path) -> None:
    found = examine(scenes, RUN, replace(LOOSE, sample=20))
    assert len(found.chosen) == 20 and len(found.images) == 80
    names = {found.images.ids[index] for index in found.chosen}
    for name in list(names)[:10]:  # of fewer images, those of the sample that are there are chosen again
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(scenes / "images" / name, tmp_path / name)
    others = [name for name in found.images.ids if name not in names]
    for name in others[:30]:
        shutil.copy(scenes / "images" / name, tmp_path / name)
    again = examine(tmp_path, RUN, replace(LOOSE, sample=10))
    assert {again.images.ids[index] for index in again.chosen} == set(list(names)[:10])


def test_bias_is_told_for_scenes_with_habits(scenes: Path) -> None:
    found = examine(scenes, RUN, LOOSE)
    assert statuses(found)["class co-occurrence"] == statuses(found)["class positions"] == "note"
    assert found.objects is not None
    assert found.objects.figures["cooccurrence_bias"]["value"] > 0.2
    assert all(pair["deviations"] > 4 or pair["deviations"] < -4 for pair in found.objects.figures["pairs"])


def test_the_size_of_a_checkpoint_and_the_time_of_steps(scenes: Path, tmp_path: Path) -> None:
    found = examine(scenes, RUN, replace(LOOSE, time=True))
    estimates = found.estimates
    assert estimates["steps"] == 10 and estimates["images_seen"] == 40
    assert estimates["training_images_per_s"] > 0
    assert estimates["training_s"] >= 40 / estimates["training_images_per_s"] - 1e-6
    pretrain(replace(RUN, data=str(scenes), out=str(tmp_path / "run")))
    saved = (tmp_path / "run/checkpoint.pt").stat().st_size
    assert estimates["checkpoint_bytes"] == pytest.approx(saved, rel=0.1)
    kept = (tmp_path / "run/backbone.safetensors").stat().st_size
    assert estimates["backbone_bytes"] == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize("name", ["adamw", "lars", "sgd"])
def test_optimizer_state_is_counted(name: str) -> None:
    run = replace(RUN, optimizer=replace(RUN.optimizer, name=name))
    sizes, none = sizes_of_run(run, 1), sizes_of_run(replace(run, optimizer=replace(run.optimizer, momentum=0.0)), 1)
    trained = sizes["weights_bytes"] - sizes["checkpoint_bytes"]  # the gradients
    if name == "adamw":
        assert sizes["checkpoint_bytes"] > 3 * trained
    else:
        assert none["checkpoint_bytes"] < sizes["checkpoint_bytes"]


def test_batch_memory_is_that_of_the_views() -> None:
    sizes = sizes_of_run(RUN, workers=2)
    canvas = 4 * 40 * 40 * 3
    plan = RUN.plan
    assert sorted(plan.used_views) == ["x1", "x1_cut", "x2", "x2_small_cut", "x3"]  # four of 32 px, one of 16
    views = 4 * (4 * 32 * 32 + 16 * 16) * 3 * torch.finfo(torch.float32).bits // 8
    assert sizes["batch_bytes"] == canvas + views
    assert sizes["loader_bytes"] == canvas * 9


def test_a_step_that_fails_is_a_failure(scenes: Path) -> None:
    run = replace(RUN, views=replace(RUN.views, min_visible=1.0, min_side=31.0))
    found = examine(scenes, run, replace(LOOSE, time=True))
    assert statuses(found)["a training step"] == "fail"
    with pytest.raises(InputError, match="draws"):
        examine(scenes, RUN, replace(LOOSE, draws=1))


def test_words_for_amounts() -> None:
    assert [amount(n) for n in (7, 1500, 2.5e6, 3e9)] == ["7 B", "1.5 kB", "2.5 MB", "3.0 GB"]
    assert [duration(n) for n in (7, 120, 5400, 200_000)] == ["7 s", "2.0 min", "1.5 h", "2.3 days"]
