"""Checkpoints: damage is never loaded, and the one before the newest is kept and offered."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from d3ssl.errors import CheckpointError
from d3ssl.train import checkpoint
from d3ssl.train.config import RunConfig, as_dict

CONFIG = RunConfig(data="d", out="o")


def state(step: int) -> dict:
    weights = torch.arange(30_000, dtype=torch.float32) + step
    return {"step": step, "config": as_dict(CONFIG), "data_digest": "x", "learner": {"w": weights}}


def damage(path: Path, kind: str) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if kind == "flipped bit":
        data[middle] ^= 1
    elif kind == "zeroed block":
        data[middle : middle + 4096] = bytes(4096)
    elif kind == "zeroed end":
        data[-100:] = bytes(100)
    elif kind == "cut":
        del data[middle:]
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["flipped bit", "zeroed block", "zeroed end", "cut"])
def test_damage_is_told_and_the_previous_checkpoint_is_offered(kind: str, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    assert checkpoint.load(tmp_path, CONFIG, "x")["step"] == 2
    damage(tmp_path / "checkpoint.pt", kind)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: .*damaged") as caught:
        checkpoint.load(tmp_path, CONFIG, "x")
    assert f"rename {tmp_path / 'checkpoint.previous.pt'} to checkpoint.pt" in str(caught.value)
    assert "--resume" in str(caught.value) and "remove" not in str(caught.value)
    (tmp_path / "checkpoint.previous.pt").rename(tmp_path / "checkpoint.pt")  # what was said
    found = checkpoint.load(tmp_path, CONFIG, "x")
    assert found["step"] == 1 and torch.equal(found["learner"]["w"], state(1)["learner"]["w"])


def test_without_another_whole_one_nobody_is_told_to_delete_the_run(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, state(step))
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        damage(tmp_path / name, "flipped bit")
    with pytest.raises(CheckpointError, match=r"another --out; there is no whole checkpoint\.previous\.pt") as caught:
        checkpoint.load(tmp_path, CONFIG, "x")
    assert "remove" not in str(caught.value)


def test_plain_torch_reads_it_and_an_old_file_is_still_read(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(3))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    torch.save({"format": 1, **state(4)}, tmp_path / "checkpoint.pt")  # as before there were checksums
    assert checkpoint.load(tmp_path, CONFIG, "x")["step"] == 4


def test_disks_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, state(step))
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.previous.pt", "checkpoint.pt"]
    assert torch.load(tmp_path / "checkpoint.previous.pt", weights_only=True)["step"] == 2
    (tmp_path / "checkpoint.pt").unlink()  # killed between the two renames
    assert checkpoint.exists(tmp_path)
    with pytest.raises(CheckpointError, match=r"no such checkpoint\n.*rename .*checkpoint\.previous\.pt to checkpoint"):
        checkpoint.load(tmp_path, CONFIG, "x")


KILL_POINTS = """
import os, sys, torch
from pathlib import Path
from d3ssl.train import checkpoint
run, kill_at, calls = Path(sys.argv[1]), int(sys.argv[2]), 0

def counted(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == kill_at:
            os._exit(9)
        return function(*args, **kwargs)
    return call

for name in ("link", "replace", "fsync", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
for step in (1, 2, 3, 4):
    checkpoint.save(run, {"step": step, "w": torch.full((1000,), float(step))})
"""


@pytest.mark.parametrize("point", [6, 7, 8, 9])
def test_at_every_point_of_a_kill_the_newest_is_whole(point: int, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILL_POINTS, str(tmp_path), str(point)], timeout=120)
    assert done.returncode == 9
    newest = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert bool((newest["w"] == newest["step"]).all())
    for step in (7, 8):  # the names that a kill left behind do not matter
        checkpoint.save(tmp_path, {"step": step})
    assert torch.load(tmp_path / "checkpoint.previous.pt", weights_only=True)["step"] == 7
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 8
