"""Targets of the log: the same figures in all of them, and none that stops a training or keeps it waiting."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest

from d3ssl.cli.main import main
from d3ssl.train import RuntimeConfig
from d3ssl.train.log import TARGETS, RunLog, beside, read_log
from d3ssl.train.log.target import Start, Target

# --- a target that fails or hangs -----------------------------------------------------------------------------------


class Broken(Target):
    """Fails at one of its methods."""

    title: ClassVar[str] = "A broken target"
    package: ClassVar[str] = "json"
    remedy: ClassVar[str] = "mend it"
    fails_at: ClassVar[str] = ""

    def __init__(self, start: Start) -> None:
        self._may_fail("open")

    def write(self, step: int, figures: dict[str, float]) -> None:
        self._may_fail("write")

    def close(self) -> None:
        self._may_fail("close")

    def _may_fail(self, at: str) -> None:
        if self.fails_at == at:
            raise RuntimeError(f"no {at}")


class Hanging(Broken):
    """Waits forever at its first figures, as for a server that does not answer."""

    go_on: ClassVar[threading.Event]

    def write(self, step: int, figures: dict[str, float]) -> None:
        self.go_on.wait()


def write_lines(run: Path, count: int = 60) -> None:
    own = RunLog(run, 0, ["broken"])
    for step in range(1, count + 1):
        own.write(step, {"loss": 1.0})
    own.close()


@pytest.mark.parametrize("at", ["open", "write", "close"])
def test_a_failing_target_is_warned_of_once(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(TARGETS, "broken", Broken)
    monkeypatch.setattr(Broken, "fails_at", at)
    write_lines(tmp_path)
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, 61))
    error = capfd.readouterr().err
    assert error.count("A broken target cannot be written to") == 1
    assert f"no {at}" in error and "mend it" in error


@pytest.mark.parametrize(("waiting", "reason"), [(1000, "does not end within"), (5, "5 lines wait for it")])
def test_a_hanging_target_keeps_nobody_waiting(
    waiting: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(TARGETS, "broken", Hanging)
    monkeypatch.setattr(Hanging, "go_on", threading.Event(), raising=False)
    monkeypatch.setattr(beside, "WAITING", waiting)
    monkeypatch.setattr(beside, "CLOSE_S", 0.2)
    begin = time.monotonic()
    write_lines(tmp_path)
    assert time.monotonic() - begin < 10
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, 61))
    error = " ".join(capfd.readouterr().err.split())
    assert error.count("cannot be written to") == 1 and reason in error
    Hanging.go_on.set()


def test_the_thread_starts_with_the_first_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader's processes are forked before that."""
    monkeypatch.setitem(TARGETS, "broken", Broken)
    before = threading.active_count()
    own = RunLog(tmp_path, 0, ["broken"])
    assert threading.active_count() == before
    own.close()


@pytest.mark.parametrize(
    ("name", "problem"),
    [("wandbb", "did you mean 'wandb'?"), ("absent", "pip install 'd3ssl[absent]'")],
)
def test_an_unknown_or_absent_target_is_told_before_the_training(
    name: str, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    if name == "absent":
        monkeypatch.setitem(TARGETS, "absent", type("Absent", (Broken,), {"package": "no_such_package"}))
    words = ["--recipe", "scenes-photo", "--out", str(tmp_path / "run"), "--runtime.log_to", f'["{name}"]']
    assert main(["pretrain", "photos/", *words, "--dry_run"]) == 2
    error = " ".join(capfd.readouterr().err.split())
    assert "runtime.log_to names" in error and problem in error


# --- the same figures everywhere ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(photos: Path, tiny_yaml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that logs to all targets that are installed."""
    run = tmp_path_factory.mktemp("logged") / "run"
    targets = [name for name, kind in TARGETS.items() if name != "tensorboard" and find_spec(kind.package)]
    command = [sys.executable, "-m", "d3ssl", "pretrain", str(photos), "--out", str(run), "--config", str(tiny_yaml)]
    command += ["--runtime.tensorboard", "true", "--runtime.log_to", json.dumps(targets), "--train.steps", "4"]
    own = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "MLFLOW_"))}
    done = subprocess.run(command, env={**own, "WANDB_MODE": "offline"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr
    return run


Series = dict[str, list[tuple[int, float]]]


def read_tensorboard(run: Path) -> Series:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def read_mlflow(run: Path) -> Series:
    mlflow: Any = pytest.importorskip("mlflow", reason="mlflow is not installed")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("d3ssl").experiment_id])
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    assert found.data.params["model.backbone"] == "test_resnet"
    names = found.data.metrics
    return {n: [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, n)] for n in names}


def read_wandb(run: Path) -> Series:
    """The client's own records in the file that it keeps offline (a log of LevelDB's format, behind seven bytes)."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportMissingImports]

    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    series: Series = {}
    for content in leveldb_records(file.read_bytes(), 7):
        record = Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") == "run":
            assert record.run.project == "d3ssl" and record.run.run_group == "run"
        if record.WhichOneof("record_type") == "history":
            items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            for name, value in items.items():
                if not name.startswith("_"):
                    series.setdefault(name, []).append((items["_step"], value))
    return series


def leveldb_records(data: bytes, start: int) -> Iterator[bytes]:
    place, parts = start, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield parts
            parts = b""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_target_has_the_figures_of_the_log(name: str, trained: Path) -> None:
    series = {"tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow}[name](trained)
    lines = read_log(trained)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    wanted = {key.replace("loss_", "loss/") for key in lines[0]} - {"step"}
    assert set(series) == wanted and "loss/region" in wanted
    for key in wanted:
        own = [(line["step"], line[key.replace("loss/", "loss_")]) for line in lines]
        assert series[key] == [(step, pytest.approx(value, rel=1e-6)) for step, value in own], key


def test_targets_are_off_unless_asked() -> None:
    assert RuntimeConfig().log_targets == ("tensorboard",)
    assert RuntimeConfig(tensorboard=False, log_to=("mlflow",)).log_targets == ("mlflow",)


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_training_is_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures may not be finite."""
    mlflow: Any = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for start in (0, 4):
        own = RunLog(tmp_path / "run", start, ["mlflow"])
        own.write(start + 1, {"loss_region": float("nan")})
        own.close()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("d3ssl").experiment_id])
    assert sorted(found.info.run_name for found in runs) == ["run", "run, from step 4"]
    assert all(math.isnan(found.data.metrics["loss/region"]) for found in runs)
