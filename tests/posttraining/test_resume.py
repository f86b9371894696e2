"""Between stop and resume: what changed is named, and a kill loses no more than the steps since the checkpoint."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.errors import CheckpointError
from d3ssl.files import read_json
from d3ssl.models.load import load_backbone
from d3ssl.posttraining import posttrain_run, set_strength
from d3ssl.train import RunConfig, checkpoint, pretrain, read_log
from tests.posttraining.examples import BOXES, config


def weights(path: Path, seed: int) -> str:
    """A file of weights, and its spec."""
    torch.manual_seed(seed)
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    return f"timm:test_resnet:{path}"


@pytest.fixture(scope="module")
def made(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATA, START.pth and a RUN of one step, in a folder to copy."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "data").mkdir()
    for path in sorted(tiles.iterdir())[:10]:
        shutil.copy(path, folder / "data")
    weights(folder / "start.pth", 1)
    return folder


def stopped(made: Path, folder: Path) -> RunConfig:
    """The configuration of a run after its first checkpoint."""
    shutil.copytree(made, folder)
    start = f"timm:test_resnet:{folder / 'start.pth'}"
    own = config(folder / "data", folder / "run", 1, model__weights=start, canvas__held_out=0, **BOXES)
    pretrain(own, finish=lambda *_: None)
    return own


def resume(own: RunConfig) -> None:
    pretrain(own, resume=True, finish=lambda *_: None)


def test_a_changed_start_is_named(made: Path, tmp_path: Path) -> None:
    own = stopped(made, tmp_path / "own")
    before = (Path(own.out) / "checkpoint.pt").read_bytes()
    resume(own)
    file = tmp_path / "own/start.pth"
    state = torch.load(file, weights_only=True)
    torch.save({"state_dict": state}, file)  # the same weights in another form
    resume(own)
    state["fc.bias"][0] += 1  # of the classifier, which is exported with the rest
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=rf"other weights than timm:test_resnet:{file} holds now") as caught:
        resume(own)
    assert "put back the weights" in str(caught.value.remedy)
    assert (Path(own.out) / "checkpoint.pt").read_bytes() == before


def test_a_changed_module_is_noticed(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "own")
    own = config(tmp_path / "own/data", tmp_path / "run", 1, canvas__held_out=0, **BOXES)
    own = dataclasses.replace(own, model=dataclasses.replace(own.model, weights=None))
    pretrain(own, backbone=load_backbone("timm:test_resnet:random:1"), finish=lambda *_: None)
    with pytest.raises(CheckpointError, match="than the backbone given from Python holds now"):
        pretrain(own, resume=True, backbone=load_backbone("timm:test_resnet:random:2"), finish=lambda *_: None)
    pretrain(own, resume=True, backbone=load_backbone("timm:test_resnet:random:1"), finish=lambda *_: None)


def test_a_checkpoint_from_before_the_digest_is_read(made: Path, tmp_path: Path) -> None:
    own = stopped(made, tmp_path / "own")
    state = checkpoint.read(Path(own.out))
    del state["start_digest"]
    checkpoint.save(Path(own.out), state)
    resume(own)


def another_image(path: Path) -> None:
    Image.fromarray(np.random.default_rng(9).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: another_image(data / "03.png"), r"other images or regions: changed: 03\.png"),
        (lambda data: another_image(data / "new.png"), r"other images or regions: new: new\.png"),
        (lambda data: (data / "04.png").unlink(), r"other images or regions: missing: 04\.png"),
    ],
)
def test_a_changed_image_is_named(change: object, message: str, made: Path, tmp_path: Path) -> None:
    own = stopped(made, tmp_path / "own")
    assert callable(change)
    change(tmp_path / "own/data")
    with pytest.raises(CheckpointError, match=message):
        resume(own)


def test_an_image_of_the_same_size_is_told(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = stopped(made, tmp_path / "own")
    resume(own)
    assert "were written after" not in capsys.readouterr().err
    os.utime(tmp_path / "own/data/03.png")
    resume(own)
    told = " ".join(capsys.readouterr().err.split())
    assert "1 of 10 images were written after the run had begun: 03.png" in told


def test_the_dial_takes_the_form_of_the_run_s_own_start(tiles: Path, tmp_path: Path) -> None:
    start = weights(tmp_path / "start.pth", 1)
    run = posttrain_run(config(tiles, tmp_path / "run", 1, model__weights=start, **BOXES))
    assert read_json(run / "manifest.json")["start_digest"] == checkpoint.read(run)["start_digest"]
    weights(tmp_path / "start.pth", 2)
    with pytest.raises(CheckpointError, match="was made from other weights"):
        set_strength(run, 0.5)
    weights(tmp_path / "start.pth", 1)
    set_strength(run, 0.5)


@pytest.mark.slow
def test_a_kill_loses_the_current_block_at_most(made: Path, tmp_path: Path) -> None:
    """Killed by SIGKILL in the middle, resumed: the same weights, bit for bit, as those of an uninterrupted run.

    The teacher sees regions alone, and its rows are kept in memory: what was killed computes them again.
    """
    words = [
        *("--backbone", f"timm:test_resnet:{made / 'start.pth'}", "--proposals.method", "felzenszwalb"),
        *("--views.size", "64", "--canvas.size", "64", "--views.min_side", "4", "--canvas.held_out", "0"),
        *("--train.steps", "40", "--train.batch_size", "4", "--runtime.save_every", "4", "--runtime.log_every", "1"),
        *("--runtime.tensorboard", "false", "--runtime.workers", "0", "--schedule.warmup_steps", "0"),
    ]
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    command = [sys.executable, "-m", "d3ssl", "posttrain", str(made / "data"), "--out", str(killed), *words]
    threads = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on their number
    with open(tmp_path / "output", "wb") as output, subprocess.Popen(command, env=threads, stderr=output) as process:
        while not (killed / checkpoint.NAME).exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL, (tmp_path / "output").read_text()
    done, last = checkpoint.read(killed)["step"], read_log(killed)[-1]["step"]
    assert 4 <= done < 40 and done > last - 4 - 1
    assert main(["posttrain", str(made / "data"), "--out", str(straight), *words]) == 0
    assert main(["posttrain", str(made / "data"), "--out", str(killed), *words, "--resume"]) == 0
    assert [line["step"] for line in read_log(killed)] == [*range(1, 41)]
    one, other = (checkpoint.read(run)["learner"] for run in (straight, killed))
    assert all(torch.equal(one[key], other[key]) for key in one)
    for run in (straight, killed):
        set_strength(run, 0.5)  # with so few images, the start is what is exported
    assert (straight / "backbone.safetensors").read_bytes() == (killed / "backbone.safetensors").read_bytes()
    one, other = (torch.load(run / "weights.pth", weights_only=True) for run in (straight, killed))
    assert all(torch.equal(one[key], other[key]) for key in one)
