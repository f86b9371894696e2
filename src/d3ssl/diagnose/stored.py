"""Probe sets on disk: one ``.npz`` file (plain arrays, no pickle) with a checksum, so that backbones of another day are
compared on the same probes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from d3ssl.diagnose.sets import ProbeSet, arrays, from_arrays
from d3ssl.errors import CheckpointError, InputError
from d3ssl.files import digest, write_atomically

_FORMAT = 1
_REMEDY = "make it again with --save_probes."


class ProbeFile:
    """A saved file of probe sets, read one set at a time. Close it, or use it in a ``with``.

    Raises:
        InputError: no such file, or not one of ours.
        CheckpointError: it is damaged.
    """

    options: dict[str, Any]
    """How the probes were made (fields of ``DiagnoseConfig``)."""
    data: str
    """What they were made of."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError("no such file of probes", path=path, remedy="check the path, or leave --probes out.")
        self._stream = open(self.path, "rb")  # noqa: SIM115  # closed with the file
        try:
            loaded = np.load(self._stream, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise ValueError("it is no archive")
            self._file = loaded
            manifest = json.loads(bytes(loaded["manifest"]).decode())
            if manifest["format"] != _FORMAT:
                raise ValueError(f"its format is {manifest['format']}, not {_FORMAT}")
            self.options, self.data, self._digests = manifest["options"], manifest["data"], manifest["digests"]
            self.channels = int(manifest["channels"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            self._stream.close()
            raise InputError(f"is not a file of probes ({error})", path=path, remedy=_REMEDY) from error

    @property
    def digest(self) -> str:
        """Of all sets together: ``probe_digest`` in diagnosis.json."""
        return digest(*self._digests)

    def __len__(self) -> int:
        return len(self._digests)

    def __iter__(self) -> Iterator[ProbeSet]:
        for number in range(len(self)):
            yield self._read(number)

    def _read(self, number: int) -> ProbeSet:
        prefix = f"set{number}/"
        try:
            own = {name.removeprefix(prefix): self._file[name] for name in self._file.files if name.startswith(prefix)}
            found = from_arrays(own)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"is damaged ({error})", path=self.path, remedy=_REMEDY) from error
        if found.digest != self._digests[number]:
            problem = f"is damaged: probe set {number} has the checksum {found.digest}, not {self._digests[number]}"
            raise CheckpointError(problem, path=self.path, remedy=_REMEDY)
        return found

    def __enter__(self) -> ProbeFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._stream.close()


def save_probes(
    path: str | Path, probes: Iterable[ProbeSet], *, options: dict[str, Any] | None = None, data: str = ""
) -> Generator[ProbeSet, None, None]:
    """Write probe sets to a file while they pass by; it is whole when the last one has been consumed.

    Args:
        options: how they were made.
        data: what they were made of.

    Yields:
        The sets.
    """
    digests: list[str] = []
    channels = 0
    with (
        write_atomically(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for number, own in enumerate(probes):
            for name, array in arrays(own).items():
                _add(archive, f"set{number}/{name}", array)
            digests.append(own.digest)
            channels = own.context.images.shape[-1]
            yield own
        manifest = {"format": _FORMAT, "digests": digests, "channels": channels, "options": options or {}}
        text = json.dumps(manifest | {"data": data}, sort_keys=True)
        _add(archive, "manifest", np.frombuffer(text.encode(), dtype=np.uint8))


def _add(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    entry = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date: the same probes give the same bytes
    with archive.open(entry, "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
