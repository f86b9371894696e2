"""Writing files so that a partial one is never mistaken for a whole one."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d3ssl.errors import D3sslError, InputError

_INTEGER_DIGITS = 18
"""Of an integer in JSON, its sign included: all of these fit into 64 bits, as arrays keep them."""


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it to ``path``.

    A process killed at any moment leaves either the old file or the new one, whole. On an exception the temporary
    file is removed and ``path`` is untouched.

    Raises:
        D3sslError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # another thread or machine may write it too
    with _explain(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = _new_mode(temporary)
            yield temporary
            _finish(temporary, mode)
            os.replace(temporary, path)
            _fsync_folder(path.parent)
        finally:
            if os.path.lexists(temporary):  # unlink would raise where the folder itself is in the way
                temporary.unlink()


@contextmanager
def write_new(path: str | Path) -> Iterator[Path]:
    """Yield a path of the same name in a hidden folder beside; on success what was made there, a file or a folder, is
    moved to ``path``. On an exception nothing is left.

    Raises:
        InputError: something is there already.
        D3sslError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    check_new(path)
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with _explain(path):
        try:
            hidden.mkdir(parents=True)
            mode = _new_mode(hidden / path.name)
            yield hidden / path.name
            made = [hidden / path.name, *(hidden / path.name).rglob("*")]
            for file in [own for own in made if own.is_file()]:
                _finish(file, mode)
            os.rename(hidden / path.name, path)
            _fsync_folder(path.parent)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def check_new(path: Path) -> None:
    """Raise InputError if something is there already."""
    if os.path.lexists(path):
        raise InputError("is there already", path=path, remedy="choose another --out, or remove it first.")


def _new_mode(path: Path) -> int:
    """The permissions that a new file of this process has here. Some writers (safetensors) choose narrower ones."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return mode


def _finish(file: Path, mode: int) -> None:
    file.chmod(mode)
    with open(file, "rb+") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    """A full disk and a place that cannot be written, as errors for people."""
    try:
        yield
    except Exception as error:
        if _is_full_disk(error):
            raise full_disk(path) from error
        if isinstance(error, OSError) and error.errno in (
            errno.EACCES,
            errno.EROFS,
            errno.ENOTDIR,
            errno.EEXIST,
            errno.EISDIR,
        ):
            problem = f"cannot be written ({error.strerror})"
            raise D3sslError(problem, path=path, remedy="choose another --out.") from error
        raise


def _is_full_disk(error: BaseException | None) -> bool:
    """Whether the error, or one behind it, says so: torch and safetensors put errors of their own in front."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(f"(os error {code})" in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):  # safetensors
            return True
        error = error.__cause__ or error.__context__
    return False


def full_disk(path: Path) -> D3sslError:
    """What people are told."""
    remedy = "free some space or choose another --out; what was there before is untouched."
    return D3sslError("the disk is full", path=path, remedy=remedy)


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: str | Path) -> Path:
    """Make a folder for results, before long work starts.

    Raises:
        InputError: a file is in the way, or the place cannot be written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be made a folder ({error.strerror})"
        raise InputError(problem, path=path, remedy="choose another --out.") from error
    if not os.access(path, os.W_OK):
        raise InputError("is a folder that cannot be written", path=path, remedy="choose another --out.")
    return path


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically: indented, with a final newline; NaN is refused (``ValueError``)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def only_files(path: str | bytes | os.PathLike[str], flags: int) -> int:
    """The ``opener`` of ``open`` for whatever a user names or keeps in a folder: pipes and devices, which have no end
    or are waited for, are refused whatever they are called.

    Raises:
        OSError: no such file, or no regular one.
    """
    handle = os.open(path, flags | os.O_NONBLOCK)  # or opening a pipe would wait for its writer
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "a pipe, a socket or a device, not a file", os.fspath(path))


def open_file(path: str | Path) -> io.BufferedReader:
    """Open a regular file for reading its bytes.

    Raises:
        OSError: as ``only_files``.
    """
    return open(path, "rb", opener=only_files)


def read_text(path: str | Path, encoding: str = "utf-8") -> str:
    """The text of a regular file.

    Raises:
        OSError: as ``only_files``.
        UnicodeDecodeError: it is no such text.
    """
    with open(path, encoding=encoding, opener=only_files) as file:
        return file.read()


def read_json(path: str | Path) -> Any:
    """Read a JSON file, with a clear error when it is missing or damaged. Integers have 64 bits at most."""
    try:
        return json.loads(read_text(path), parse_int=_integer)
    except FileNotFoundError as error:
        raise InputError("no such file", path=path, remedy="check the path.") from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path, remedy="check the path.") from error
    except (ValueError, RecursionError) as error:
        remedy = "the file is damaged or of another kind; make it again."
        raise InputError(f"is not valid JSON ({error})", path=path, remedy=remedy) from error


def _integer(digits: str) -> int:
    if len(digits) > _INTEGER_DIGITS:
        raise ValueError(f"the integer {digits[:30]}… has more than {_INTEGER_DIGITS} digits")
    return int(digits)


def digest(*parts: bytes | str) -> str:
    """Hexadecimal SHA-256 (first 16 digits) of the parts, each with its length, so that boundaries count."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "little"))
        sha.update(data)
    return sha.hexdigest()[:16]
