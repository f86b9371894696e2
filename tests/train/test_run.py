"""Whole runs: repeatable, resumable bit for bit, stoppable, equal on one process and two."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from d3ssl.cli.main import main
from d3ssl.errors import CheckpointError
from d3ssl.train import checkpoint, read_log
from d3ssl.train.loader import StepSampler


def train(photos: Path, tiny_yaml: Path, out: Path, *more: str) -> Path:
    assert main(["pretrain", "--config", str(tiny_yaml), "--data", str(photos), "--out", str(out), *more]) == 0
    return out


def state_of(run: Path) -> dict:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def assert_same(one: object, other: object, where: str = "") -> None:
    """Bitwise equality of nested dicts, lists and tensors."""
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor) and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert isinstance(other, dict) and one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert isinstance(other, list) and len(one) == len(other), where
        for number, item in enumerate(one):
            assert_same(item, other[number], f"{where}[{number}]")
    else:
        assert one == other, where


def assert_same_state(one: Path, other: Path) -> None:
    a, b = state_of(one), state_of(other)
    for key in ("step", "learner", "optimizer", "data_digest"):
        assert_same(a[key], b[key], key)


@pytest.fixture(scope="module")
def finished(photos: Path, tiny_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(photos, tiny_yaml, tmp_path_factory.mktemp("runs") / "whole")


def test_two_runs_give_identical_weights(finished: Path, photos: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    other = train(photos, tiny_yaml, tmp_path / "again", "--runtime.workers", "2")  # the loader's workers do not matter
    assert_same_state(finished, other)
    assert (finished / "backbone.safetensors").read_bytes() == (other / "backbone.safetensors").read_bytes()


def test_another_seed_gives_other_weights(finished: Path, photos: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    other = train(photos, tiny_yaml, tmp_path / "seed", "--train.seed", "1")
    assert (finished / "backbone.safetensors").read_bytes() != (other / "backbone.safetensors").read_bytes()


def test_resumed_equals_uninterrupted(
    finished: Path, photos: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch
) -> None:
    """Stopped after step 3 (between two regular checkpoints), resumed: weights, EMA, optimiser and log are equal."""
    from d3ssl.train.loop import Trainer

    step = Trainer.train_step

    def stop_at_three(self: Trainer, batches, stop=None):  # type: ignore[no-untyped-def]
        result = step(self, batches, stop)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(Trainer, "train_step", stop_at_three)
    out = tmp_path / "stopped"
    with pytest.raises(SystemExit) as stopped:
        train(photos, tiny_yaml, out)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert state_of(out)["step"] == 3
    assert not (out / "backbone.safetensors").exists()  # partial output is not mistaken for whole
    monkeypatch.undo()
    train(photos, tiny_yaml, out, "--resume")
    assert_same_state(finished, out)
    losses = [[line["loss"] for line in read_log(run)] for run in (finished, out)]
    assert losses[0] == losses[1]
    assert [line["step"] for line in read_log(out)] == [1, 2, 3, 4, 5, 6]


SAVE_AND_KILL = """
import os, signal, sys, time, torch
from pathlib import Path
from d3ssl.train import checkpoint
run, seen = Path(sys.argv[1]), []
for delay in (0.05, 0.11, 0.17, 0.23, 0.31, 0.37):
    child = os.fork()
    if child == 0:
        state = {"learner": {"w": torch.zeros(2_000_000)}, "step": 0}
        while True:
            state["step"] += 1
            state["learner"]["w"].fill_(state["step"])
            checkpoint.save(run, state)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if (run / "checkpoint.pt").exists():
        state = torch.load(run / "checkpoint.pt", weights_only=True)
        assert bool((state["learner"]["w"] == state["step"]).all())
        seen.append(state["step"])
assert seen
"""


def test_kill_during_saves_leaves_a_loadable_checkpoint(tmp_path: Path) -> None:
    """A process that does nothing but save is killed at odd moments; what is left is always whole."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # a forked child cannot use its parent's threads
    subprocess.run([sys.executable, "-c", SAVE_AND_KILL, str(tmp_path)], check=True, env=environment)


def test_backbone_loads_into_plain_timm(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    network = timm.create_model(manifest["timm_name"], num_classes=0)
    missing, unexpected = network.load_state_dict(load_file(finished / "backbone.safetensors"))
    assert not missing
    assert not unexpected
    student = {k: v for k, v in state_of(finished)["learner"].items() if k.startswith("student.backbone.net.")}
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, student[f"student.backbone.net.{name}"]), name


def test_log_has_what_people_watch(finished: Path) -> None:
    lines = read_log(finished)
    expected = {
        "step", "epoch", "loss", "loss_region", "loss_deposition", "embedding_std", "effective_rank", "lr",
        "teacher_momentum", "grad_norm", "images_per_s", "data_wait_share", "regions_per_image", "unreadable_images",
    }  # fmt: skip
    assert all(expected == line.keys() for line in lines)
    assert all(0 <= line["data_wait_share"] <= 1 for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train.stepz", "3"], "train.steps"),
        (["--model.backbone", "resnet18x"], "resnet18"),
        (["--train.batch_size", "3", "--train.accumulate", "2"], "batch_size"),
        (["--recipe", "quikstart"], "quickstart"),
        (["--data", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_bad_options_are_one_clear_error(
    options: list[str], message: str, photos: Path, tmp_path: Path, tiny_yaml: Path, capfd: pytest.CaptureFixture
) -> None:
    base = ["pretrain", "--config", str(tiny_yaml), "--data", str(photos), "--out", str(tmp_path / "run")]
    assert main([*base, *options]) == 2
    error = capfd.readouterr().err
    assert message in error.replace("\n", "")
    assert "What to do" in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_folder_with_a_run_is_not_overwritten(finished: Path, photos: Path, tiny_yaml: Path, capfd) -> None:
    before = (finished / "checkpoint.pt").read_bytes()
    assert main(["pretrain", "--config", str(tiny_yaml), "--data", str(photos), "--out", str(finished)]) == 2
    assert "--resume" in capfd.readouterr().err
    assert (finished / "checkpoint.pt").read_bytes() == before


def test_a_wrong_checkpoint_is_refused(finished: Path, photos: Path, tiny_yaml: Path, tmp_path: Path, capfd) -> None:
    base = ["pretrain", "--config", str(tiny_yaml), "--data", str(photos), "--out", str(finished), "--resume"]
    assert main([*base, "--train.steps", "8"]) == 2
    assert "train.steps: 6 → 8" in capfd.readouterr().err.replace("\n", "")
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "checkpoint.pt").write_bytes((finished / "checkpoint.pt").read_bytes()[:5000])
    from d3ssl.train.config import RunConfig

    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(torn, RunConfig(data="d", out="o"), "x")


def test_unreadable_images_are_skipped_and_counted_up_to_a_share(
    photos: Path, tiny_yaml: Path, tmp_path: Path, capfd
) -> None:
    data = tmp_path / "photos"
    data.mkdir()
    for path in photos.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    assert main(["regions", str(data), "--out", str(tmp_path / "r.parquet"), "--method", "grid", "--workers", "1"]) == 0
    size = (data / "003.png").stat().st_size
    (data / "003.png").write_bytes((data / "003.png").read_bytes()[: size // 2] + b"\0" * (size - size // 2))
    more = ["--regions", str(tmp_path / "r.parquet")]
    base = ["pretrain", "--config", str(tiny_yaml), "--data", str(data), *more]
    assert main([*base, "--out", str(tmp_path / "strict"), "--canvas.max_bad_share", "0"]) == 2
    error = capfd.readouterr().err
    assert "003.png" in error.replace("\n", "")
    assert "max_bad_share" in error
    assert main([*base, "--out", str(tmp_path / "lenient"), "--canvas.max_bad_share", "0.9"]) == 0
    assert read_log(tmp_path / "lenient")[-1]["unreadable_images"] > 0


def test_order_is_a_function_of_seed_step_and_rank() -> None:
    whole = [number for part in StepSampler(0, 4, 8, 1, 0, 1) for number in part]
    assert whole == list(range(32))
    for accumulate, world in ((2, 1), (1, 2), (2, 2)):
        parts = [list(StepSampler(0, 4, 8, accumulate, rank, world)) for rank in range(world)]
        steps = [
            sorted(n for r in parts for part in r[s * accumulate : (s + 1) * accumulate] for n in part)
            for s in range(4)
        ]
        assert steps == [list(range(8 * s, 8 * s + 8)) for s in range(4)]
    assert list(StepSampler(2, 4, 8, 1, 0, 1)) == list(StepSampler(0, 4, 8, 1, 0, 1))[2:]


def test_accumulated_parts_add_up_to_one_step(photos: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    out = train(photos, tiny_yaml, tmp_path / "parts", "--train.batch_size", "8", "--train.accumulate", "2")
    assert [line["step"] for line in read_log(out)] == [1, 2, 3, 4, 5, 6]
    assert state_of(out)["step"] == 6


def test_compiled_stages_train_and_keep_their_names(photos: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch) -> None:
    """Which modules are handed to the compiler, without paying for the compilation."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    out = train(photos, tiny_yaml, tmp_path / "compiled", "--runtime.compile", "true", "--train.steps", "1")
    assert "Sequential" in compiled
    assert all("_orig_mod" not in name for name in state_of(out)["learner"])


@pytest.mark.parametrize(
    ("option", "value"),
    [("--train.accumulate", "0"), ("--runtime.log_every", "0"), ("--host.momentum", "1.5"),
     ("--runtime.diagnose_every", "0"), ("--train.clip_grad_norm", "0"),
     ("--train.steps", "0"), ("--runtime.workers", "-1"), ("--views.size", "4"), ("--optimizer.lr", "-1"),
     ("--schedule.warmup_steps", "9"), ("--dc.cutout", "1.5"), ("--dp.weight", "-1"),
     ("--views.min_visible", "2"), ("--host.small_ratio", "0")],
)  # fmt: skip
def test_options_out_of_range_are_told_before_work(
    option: str, value: str, photos: Path, tiny_yaml: Path, tmp_path: Path, capfd
) -> None:
    base = ["pretrain", "--config", str(tiny_yaml), "--data", str(photos), "--out", str(tmp_path / "run")]
    assert main([*base, option, value]) == 2
    assert "What to do" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_out_that_is_a_file(photos: Path, tiny_yaml: Path, tmp_path: Path, capfd) -> None:
    (tmp_path / "file").write_text("")
    assert main(["pretrain", "--config", str(tiny_yaml), "--data", str(photos), "--out", str(tmp_path / "file")]) == 2
    assert "What to do" in capfd.readouterr().err


def test_regions_of_another_size_are_one_clear_error_through_the_loaders(
    photos: Path, tiny_yaml: Path, tmp_path: Path, capfd
) -> None:
    from PIL import Image

    data = tmp_path / "photos"
    data.mkdir()
    for path in photos.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    assert main(["regions", str(data), "--out", str(tmp_path / "r.parquet"), "--method", "grid", "--workers", "1"]) == 0
    for path in data.iterdir():
        size = path.stat().st_size
        Image.open(path).resize((30, 30)).save(path)
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))  # as large a file, so that only the loader can tell
    base = ["pretrain", "--config", str(tiny_yaml), "--data", str(data), "--out", str(tmp_path / "run")]
    assert main([*base, "--regions", str(tmp_path / "r.parquet"), "--runtime.workers", "1"]) == 2
    error = capfd.readouterr().err
    assert "compute the regions again" in error.replace("\n", " ")
    assert "Traceback" not in error


def test_tensorboard_reads_the_same_figures(photos: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = train(photos, tiny_yaml, tmp_path / "run", "--runtime.tensorboard", "true", "--train.steps", "3")
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(line["step"], pytest.approx(line["loss"])) for line in read_log(out)]
    assert {"loss/region", "loss/deposition", "embedding_std", "lr"} <= set(events.Tags()["scalars"])


def test_how_regions_are_found_counts_only_where_the_run_finds_them() -> None:
    """So a run on a given regions file goes on after an update that added options of the regions."""
    from d3ssl.train.config import RunConfig, as_dict, differences

    for regions, expected in ((None, ["proposals.contrast_min: None → 0.8"]), ("regions.parquet", [])):
        now = as_dict(RunConfig(data="photos", out="run", regions=regions))
        before = {**now, "proposals": {k: v for k, v in now["proposals"].items() if k != "contrast_min"}}
        assert differences(before, now) == expected
    assert differences(now, {**now, "train": {**now["train"], "steps": 7}}) == ["train.steps: None → 7"]
