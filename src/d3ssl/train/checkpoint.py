"""Checkpoints: tensors and plain data only, loadable with ``weights_only=True``, whole or absent, with a checksum.

RUN/checkpoint.pt is the newest, RUN/checkpoint.previous.pt the one before it. Both are what ``torch.save`` writes and
a trailer that ``torch.load`` does not look at: a mark, and the SHA-256 of all bytes before the trailer.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import secrets
from pathlib import Path
from typing import Any, BinaryIO

import torch

from d3ssl.errors import CheckpointError
from d3ssl.files import write_atomically
from d3ssl.train.config import RunConfig, as_dict, differences

FORMAT = 2
"""1: without a checksum; such files are still read."""
NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
_MARK = b"d3ssl sha256:\0\0\0"
_TRAILER = len(_MARK) + hashlib.sha256().digest_size
_BLOCK = 1 << 20


def save(run: Path, state: dict[str, Any]) -> None:
    """Write RUN/checkpoint.pt atomically and keep the one before as RUN/checkpoint.previous.pt.

    Whenever the process is killed, one of the two is there and whole; a failure is an exception, and leaves the newest
    checkpoint whole.

    Raises:
        D3sslError: the disk is full, or the folder cannot be written.
    """
    with write_atomically(run / NAME) as temporary:
        with open(temporary, "wb") as file:
            hashed = _HashedFile(file)
            torch.save({**state, "format": FORMAT}, hashed)  # type: ignore[arg-type]  # anything that can be written to
            file.write(_MARK + hashed.sha.digest())
            file.flush()
            os.fsync(file.fileno())
        _keep_previous(run)


class _HashedFile:
    """A file that sums up what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha = file, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self.sha.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _keep_previous(run: Path) -> None:
    """Give the newest checkpoint its second name: it stays in place until another one replaces it."""
    if not (run / NAME).exists():
        return
    link = run / f".{NAME}.{secrets.token_hex(4)}.tmp"
    try:
        os.link(run / NAME, link)
    except OSError:  # a disk without hard links: the newest is away for a moment, the previous one is there
        os.replace(run / NAME, run / PREVIOUS)
        return
    try:
        os.replace(link, run / PREVIOUS)
    finally:
        link.unlink(missing_ok=True)  # it stays where both names were one file before


def exists(run: Path) -> bool:
    """Whether there is something to continue from, or that must not be passed over."""
    return (run / NAME).exists() or (run / PREVIOUS).exists()


def load(run: Path, config: RunConfig, data_digest: str | None = None) -> dict[str, Any]:
    """Read RUN/checkpoint.pt and check that it is whole and belongs to this configuration and these data.

    Args:
        run: the run's folder.
        config: of the run that continues.
        data_digest: of its images and regions; None: not known yet, ``check_data`` follows.

    Raises:
        CheckpointError: missing, damaged, of another format, or made for something else.
    """
    path = run / NAME
    if not path.is_file():
        raise CheckpointError("no such checkpoint", path=path, remedy=_other_checkpoint(run) or _NONE)
    state = _read(path, _other_checkpoint(run) or _NO_OTHER)
    changed = differences(state["config"], as_dict(config))
    if changed:
        remedy = "resume with the run's own options (RUN/config.yaml), or choose another --out."
        raise CheckpointError("was made with other options: " + "; ".join(changed), path=path, remedy=remedy)
    if data_digest is not None:
        check_data(run, state, data_digest)
    return state


_NONE = "start again with another --out; there is no checkpoint here to continue from."
_NO_OTHER = f"put back a copy of it if you have one, or start again with another --out; there is no whole {PREVIOUS}."


def read(run: Path) -> dict[str, Any]:
    """What RUN/checkpoint.pt holds, whatever it was made for.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    path = run / NAME
    if not path.is_file():
        raise CheckpointError("no such checkpoint", path=path, remedy=_other_checkpoint(run) or "let the run finish.")
    return _read(path, _other_checkpoint(run) or _NO_OTHER)


def check_data(run: Path, state: dict[str, Any], data_digest: str, changes: str = "") -> None:
    """Make sure that a checkpoint that was read belongs to these images and regions.

    Args:
        changes: what is known to differ, for the message.

    Raises:
        CheckpointError: it belongs to others.
    """
    if state["data_digest"] != data_digest:
        remedy = "resume with the same images and regions, or choose another --out."
        problem = "was made with other images or regions" + (f": {changes}" if changes else "")
        raise CheckpointError(problem, path=run / NAME, remedy=remedy)


def check_start(run: Path, state: dict[str, Any], start_digest: str | None, start: str) -> None:
    """Make sure that the weights which a run started from are still the same. An older checkpoint does not know.

    Args:
        start_digest: of the weights as they are now; None: the run started from random ones.
        start: where they come from, for the message.

    Raises:
        CheckpointError: they are others.
    """
    known = state.get("start_digest")
    if known is not None and known != start_digest:
        problem = f"was made from other weights than {start} holds now (digest {known}, now {start_digest})"
        remedy = "put back the weights that the run started from, or choose another --out."
        raise CheckpointError(problem, path=run / NAME, remedy=remedy)


def _other_checkpoint(run: Path) -> str | None:
    """What to do where the newest checkpoint is of no use; None: there is no other one."""
    path = run / PREVIOUS
    if not path.is_file() or not _is_whole(path):
        return None
    return f"the checkpoint before it is whole: rename {path} to {NAME}, and continue with --resume."


def _read(path: Path, remedy: str) -> dict[str, Any]:
    is_whole = _is_whole(path)
    if is_whole is False:
        raise CheckpointError("is damaged: its checksum does not match", path=path, remedy=remedy)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        first_line = re.split(r"[\n.]", str(error), maxsplit=1)[0]
        problem = f"cannot be read ({first_line}): it is damaged or no checkpoint of d3ssl"
        raise CheckpointError(problem, path=path, remedy=remedy) from error
    if not isinstance(state, dict) or state.get("format") not in (1, FORMAT):
        raise CheckpointError("is not a checkpoint of this version", path=path, remedy=remedy)
    if is_whole is None and state["format"] != 1:
        raise CheckpointError("is damaged: its checksum is missing", path=path, remedy=remedy)
    return state


def _is_whole(path: Path) -> bool | None:
    """Whether a file's checksum is right; None: it has none."""
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        left = file.seek(0, os.SEEK_END) - _TRAILER
        file.seek(max(left, 0))
        trailer = file.read()
        if left < 0 or not trailer.startswith(_MARK):
            return None
        file.seek(0)
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            sha.update(block)
            left -= len(block)
    return sha.digest() == trailer[len(_MARK) :]
