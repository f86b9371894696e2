"""The same command under torchrun: trains on two gloo processes, stops on SIGTERM with a checkpoint, resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch


def command(photos: Path, tiny_yaml: Path, out: Path, *more: str) -> list[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m"]
    words = ["d3ssl", "pretrain", "--config", str(tiny_yaml), "--data", str(photos), "--out", str(out)]
    return [*torchrun, *words, "--train.batch_size", "8", *more]


def steps_of(run: Path) -> list[int]:
    path = run / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
def test_torchrun_stops_on_a_signal_to_the_group_and_resumes(photos: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    """Signalled as by a scheduler: every process at once, the loaders' too, long before a checkpoint was due."""
    out = tmp_path / "run"
    more = ("--train.steps", "60", "--runtime.save_every", "1000", "--runtime.workers", "1")
    words = command(photos, tiny_yaml, out, *more)
    with subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        deadline = time.monotonic() + 240
        while len(steps_of(out)) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        _, error = process.communicate(timeout=120)
    assert process.returncode != 0
    assert (out / "checkpoint.pt").exists(), error
    stopped = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < stopped < 60
    assert not (out / "backbone.safetensors").exists()
    done = subprocess.run([*words, "--resume"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert steps_of(out) == list(range(1, 61))


@pytest.mark.slow
def test_torchrun_accumulates(photos: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    out = tmp_path / "whole"
    words = command(photos, tiny_yaml, out, "--train.accumulate", "2")
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "manifest.json").read_text())["processes"] == 2
    assert steps_of(out) == [1, 2, 3, 4, 5, 6]
