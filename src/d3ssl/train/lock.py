"""One process at a time in a run's folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from d3ssl.console import warn
from d3ssl.errors import InputError
from d3ssl.files import full_disk

NAME = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_here: set[Path] = set()
"""Folders that this process holds: a process does not exclude itself, and loses its lock with any file it closes."""


@contextmanager
def lock_run(run: Path, what: str = "training") -> Iterator[None]:
    """Hold the lock RUN/.lock: a POSIX record lock, which network disks know too and which ends with its process.

    The file says who holds it and stays when the lock is given back. On a disk that knows no locks, a warning is given.

    Args:
        what: what writes into the folder, for messages.

    Raises:
        InputError: another process holds it, or the file cannot be written.
        D3sslError: the disk is full.
    """
    if run.resolve() in _here:
        remedy = "wait until it ends, or choose another --out."
        raise InputError(f"another {what} of this very process writes into this folder", path=run, remedy=remedy)
    with _open(run / NAME) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise _held(run, file, what) from error
            if error.errno not in _NO_LOCKS:
                raise
            remedy = f"make sure that no other {what} writes into this folder."
            warn(f"{run}: the disk knows no locks ({error.strerror})", remedy)
        _sign(file)
        _here.add(run.resolve())
        try:
            yield
        finally:
            _here.discard(run.resolve())


def _open(path: Path) -> FileIO:
    """Unbuffered, so that closing it never fails."""
    try:
        return open(path, "ab+", buffering=0)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full_disk(path) from error
        problem = f"cannot be opened for writing ({error.strerror})"
        raise InputError(problem, path=path, remedy="make it writable, or choose another --out.") from error


def _sign(file: FileIO) -> None:
    """Say who holds the lock; that is for messages only, so a full disk does not matter here."""
    now = time.strftime("%Y-%m-%d %H:%M:%S %z")
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "started": now}
    try:
        file.truncate(0)
        file.write(json.dumps(holder).encode() + b"\n")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _held(run: Path, file: FileIO, what: str) -> InputError:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        who = f"process {holder['pid']} on {holder['host']}, since {holder['started']}"
    except (ValueError, LookupError, TypeError):  # taken just now
        who = "its process is not known yet"
    remedy = "wait until it ends, stop it (kill with its process number, on that host), or choose another --out."
    return InputError(f"another {what} writes into this folder ({who})", path=run, remedy=remedy)
