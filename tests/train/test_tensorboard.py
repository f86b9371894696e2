"""TensorBoard's events are a convenience: where they cannot be written, a run goes on with its log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from d3ssl.train.log import RunLog, read_log
from d3ssl.train.log.target import Start
from d3ssl.train.log.tensorboard import TensorBoard

FULL_DISK = """
import errno, os, sys
from pathlib import Path
from tensorboardX.record_writer import RecordWriter
from d3ssl.train.log import RunLog

def refuse(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

log = RunLog(Path(sys.argv[1]), 0, ["tensorboard"])
setattr(RecordWriter, sys.argv[2], refuse)
for step in range(1, 60):
    log.write(step, {"loss": 1.0, "loss_base": 1.0})
log.close()
"""


@pytest.mark.parametrize("method", ["write", "flush", "close"])
def test_a_full_disk_neither_stops_nor_blocks_a_training(method: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("TensorBoard") == 1
    assert "No space left on device" in done.stderr.replace("\n", " ")
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, 60))


def test_a_folder_that_cannot_be_made_does_not_stop_a_training(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    (tmp_path / "tensorboard").write_text("a file is in the way")
    log = RunLog(tmp_path, 0, ["tensorboard"])
    log.write(1, {"loss": 1.0})
    log.close()
    assert capfd.readouterr().err.count("TensorBoard") == 1
    assert [line["step"] for line in read_log(tmp_path)] == [1]


def test_resumed_steps_replace_those_behind_the_checkpoint(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = TensorBoard(Start(run=tmp_path))
    for step in (1, 2, 3):
        before.write(step, {"loss": float(step)})
    before.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.rename(
        tmp_path / "tensorboard" / "events.out.tfevents.1000000000.before"
    )  # a new file is named by the second it begins in
    after = TensorBoard(Start(run=tmp_path, step=2))
    after.write(3, {"loss": 30.0})
    after.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]
