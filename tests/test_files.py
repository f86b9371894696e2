"""Files are whole or absent, and JSON is valid."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from d3ssl.errors import D3sslError, InputError
from d3ssl.files import digest, read_json, write_atomically, write_json, write_new, write_text


def test_a_file_is_written_with_its_folder_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/a.txt"
    with write_atomically(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    write_text(path, "zwei: ä")
    assert path.read_text(encoding="utf-8") == "zwei: ä"
    assert os.listdir(path.parent) == ["a.txt"]


def test_two_writers_of_a_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with write_atomically(path) as first:
        first.write_text("first")
        with write_atomically(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_halfway() -> None:
        with write_atomically(path) as temporary:
            temporary.write_text("half of the new")
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fail_halfway()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import os, signal, sys\n"
        "from d3ssl.files import write_atomically\n"
        "with write_atomically(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half of the new')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_clear_error_and_leaves_the_old_file(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(D3sslError, match=r"a\.txt: the disk is full\n.*free some space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_disk_that_fills_while_a_checkpoint_is_saved(tmp_path: Path) -> None:
    """torch.save speaks of a RuntimeError then, with the cause behind it."""

    class Full(io.RawIOBase):
        written = 0

        def writable(self) -> bool:
            return True

        def write(self, data) -> int:  # type: ignore[no-untyped-def]
            self.written += len(data)
            if self.written > 20_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return len(data)

    path = tmp_path / "checkpoint.pt"
    path.write_text("old")

    def save() -> None:
        with write_atomically(path) as temporary:
            temporary.touch()
            torch.save({"w": torch.zeros(20_000)}, Full())  # type: ignore[arg-type]

    with pytest.raises(D3sslError, match="the disk is full"):
        save()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_a_disk_that_fills_while_weights_are_written(tmp_path: Path) -> None:
    """safetensors has the code in its text only; other errors of its own pass."""
    for code in (errno.ENOSPC, errno.EDQUOT):
        message = f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})"
        with pytest.raises(D3sslError, match="the disk is full"), write_atomically(tmp_path / "a.safetensors"):
            raise SafetensorError(message)
    with pytest.raises(SafetensorError, match="invalid"), write_atomically(tmp_path / "a.safetensors"):
        raise SafetensorError("invalid header")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    def write() -> None:
        with write_atomically(tmp_path / "a.txt") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("new")

    with pytest.raises(D3sslError, match="the disk is full"):
        write()
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file/a.txt", tmp_path / "file/deeper/a.txt", tmp_path / "folder"):
        with pytest.raises(D3sslError, match=r"cannot be written .*\n.*choose another"):
            write_text(path, "new")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"loss": [1.5, 2], "name": "ä", "none": None}
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_text().endswith("}\n")
    with pytest.raises(ValueError):
        write_json(path, float("nan"))
    assert read_json(path) == value
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")
    for content in (b'{"a": ', b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.json: is not valid JSON"):
            read_json(path)


def test_digest_is_the_same_everywhere_and_sees_boundaries() -> None:
    assert digest("a", b"bc") == "9a8acca1b6c6c0be"
    assert digest("ä") == digest("ä".encode())
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", ""), digest()}) == 5


def test_weights_can_be_read_by_those_who_may_read_other_new_files(tmp_path: Path) -> None:
    """safetensors creates its files for their owner alone."""
    plain = tmp_path / "plain"
    plain.write_text("")
    with write_atomically(tmp_path / "a.safetensors") as temporary:
        safetensors.torch.save_file({"a": torch.zeros(1)}, temporary)
    with write_new(tmp_path / "b") as folder:
        folder.mkdir()
        safetensors.torch.save_file({"a": torch.zeros(1)}, folder / "b.safetensors")
    for file in (tmp_path / "a.safetensors", tmp_path / "b" / "b.safetensors"):
        assert file.stat().st_mode == plain.stat().st_mode
