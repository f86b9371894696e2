"""The run's log: valid JSON always, a full disk is a clear error, a torn end does not hide the rest."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import pytest

from d3ssl.errors import D3sslError, InputError
from d3ssl.train.log import NAME, RunLog, read_log


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is not JSON")


def test_figures_that_are_not_finite_are_null(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    log.write(1, {"loss": float("nan"), "grad_norm": float("inf"), "lr": 0.5})
    log.close()
    line = json.loads((tmp_path / NAME).read_text(), parse_constant=refuse)
    assert line == {"step": 1, "loss": None, "grad_norm": None, "lr": 0.5}
    assert read_log(tmp_path) == [line]


def test_a_torn_last_line_is_passed_over_and_any_other_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert read_log(tmp_path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"step": 2, "lo\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"log\.jsonl: line 2 is not valid JSON"):
        read_log(tmp_path)


class Full(io.RawIOBase):
    """A file on a full disk."""

    name = NAME

    def writable(self) -> bool:
        return True

    def write(self, _data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_a_clear_error_when_writing_and_when_closing(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    log._lines._file.close()
    log._lines._file = io.TextIOWrapper(io.BufferedWriter(Full()), encoding="utf-8", line_buffering=True)
    with pytest.raises(D3sslError, match=r"log\.jsonl: the disk is full"):
        log.write(1, {"loss": 1.0})
    with pytest.raises(D3sslError, match=r"log\.jsonl: the disk is full"):
        log.close()
