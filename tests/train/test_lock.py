"""A run's folder belongs to one training at a time, and a refused one leaves it as it is."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from d3ssl.cli.main import main
from d3ssl.errors import InputError
from d3ssl.train.lock import lock_run

TINY = """
canvas: {size: 40, max_candidates: 8}
proposals: {method: grid, workers: 1}
views: {size: 32, regions_per_image: 2, min_side: 2}
model: {backbone: test_resnet}
host: {region_path: c4, roi_size: 2, projector_hidden: 16, projector_out: 8, loss: info_nce}
optimizer: {name: adamw, lr: 1.0e-3}
train: {steps: 2, batch_size: 4}
runtime: {workers: 0, log_every: 1, save_every: 1, tensorboard: false}
"""
HOLD = """
import sys, time
from pathlib import Path
from d3ssl.train.lock import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


def hold(run: Path) -> subprocess.Popen:
    run.mkdir(exist_ok=True)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def end(holder: subprocess.Popen) -> None:
    holder.kill()
    holder.communicate(timeout=60)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    holder = hold(tmp_path / "run")
    try:
        with pytest.raises(InputError, match=r"another training") as caught, lock_run(tmp_path / "run"):
            pass
    finally:
        end(holder)
    assert f"process {holder.pid} on {socket.gethostname()}, since 20" in str(caught.value)
    assert "What to do: wait" in str(caught.value)
    for _ in range(2):  # free, and given back
        with lock_run(tmp_path / "run"):
            assert f'"pid": {os.getpid()}' in (tmp_path / "run" / ".lock").read_text()


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_a_second_training_is_refused_and_writes_nothing(
    more: list[str], photos: Path, tiny_yaml: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    holder = hold(out)
    (out / ".checkpoint.pt.0123.tmp").write_bytes(b"being written by the other one")
    before = contents(out)
    try:
        assert main(["pretrain", "--config", str(tiny_yaml), "--data", str(photos), "--out", str(out), *more]) == 2
    finally:
        end(holder)
    assert f"process {holder.pid}" in capfd.readouterr().err.replace("\n", " ")
    assert contents(out) == before


def test_a_disk_without_locks_is_warned_of(tmp_path: Path, monkeypatch, capfd: pytest.CaptureFixture) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with lock_run(tmp_path):
        pass
    assert "knows no locks" in capfd.readouterr().err


def test_a_refused_resume_leaves_the_run_as_it_is(
    photos: Path, tiny_yaml: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """Other options, other images, a damaged checkpoint: nothing of the run is written, its regions neither."""
    base = ["pretrain", "--config", str(tiny_yaml), "--out", str(tmp_path / "run")]
    assert main([*base, "--data", str(photos)]) == 0
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in sorted(photos.iterdir())[:6]:
        (fewer / path.name).write_bytes(path.read_bytes())
    before = {name: data for name, data in contents(tmp_path / "run").items() if name != ".lock"}

    def refused(data: Path, *more: str) -> str:
        capfd.readouterr()
        assert main([*base, "--data", str(data), "--resume", *more]) == 2
        found = contents(tmp_path / "run")
        found.pop(".lock")
        assert found == before
        return " ".join(capfd.readouterr().err.split())

    slic = ["--proposals.method", "slic"]
    assert "proposals.method: grid → slic" in refused(photos, *slic)
    assert "other images or regions" in refused(fewer)
    path = tmp_path / "run" / "checkpoint.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before["checkpoint.pt"] = bytes(data)
    assert "its checksum does not match" in refused(photos, *slic)


def test_a_process_does_not_write_twice_into_one_folder(tmp_path: Path) -> None:
    with lock_run(tmp_path), pytest.raises(InputError, match="this very process"), lock_run(tmp_path):
        pass
    with lock_run(tmp_path):
        pass
