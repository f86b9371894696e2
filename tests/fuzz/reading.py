"""The readers of files, as the fuzz test calls them: in a process of its own, whose time and memory are watched."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

MOST_S = 5.0
"""For one input."""
MOST_BYTES = 1_000_000_000
"""For one input: how far the largest memory of the process may lie above that before the first input."""


def _coco(folder: Path, content: bytes) -> None:
    from d3ssl.data.annotations import CocoAnnotations
    from d3ssl.data.coco import MAX_BAD_SHARE
    from d3ssl.data.formats import find_format
    from d3ssl.data.formats.coco import Coco
    from d3ssl.doctor.annotations import bad_objects, check_objects
    from d3ssl.errors import InputError
    from d3ssl.files import read_json

    file = folder / "annotations.json"
    file.write_bytes(content)
    try:
        if found := bad_objects(read_json(file)):
            check_objects(*found, MAX_BAD_SHARE)
    except InputError:
        pass  # reading says it again
    source = find_format(file)
    assert isinstance(source, Coco)
    annotations = source.found()
    if isinstance(annotations, CocoAnnotations):
        for index in range(len(annotations)):
            annotations.masks(index)


def _voc(folder: Path, content: bytes) -> None:
    from d3ssl.data.sources import open_images

    (folder / "Annotations" / "a.xml").write_bytes(content)
    open_images(folder)


def _manifest(folder: Path, content: bytes) -> None:
    from d3ssl.models import load_backbone

    (folder / "manifest.json").write_bytes(content)
    load_backbone(folder)


def _regions(folder: Path, content: bytes) -> None:
    from d3ssl.regions.table import read_regions

    (folder / "r.parquet").write_bytes(content)
    read_regions(folder / "r.parquet")


def _tar(folder: Path, content: bytes) -> None:
    from d3ssl.data.sources import open_images

    for old in folder.iterdir():  # the index of the last one
        old.unlink()
    (folder / "0.tar").write_bytes(content)
    for place in open_images(folder).paths:
        _read(place)


def _image(folder: Path, content: bytes) -> None:
    (folder / "a.jpg").write_bytes(content)
    _read(folder / "a.jpg")


def _read(place: object) -> None:
    from d3ssl.data.images import image_size, read_canvas, read_image
    from d3ssl.doctor.look import look_at

    look_at(place)  # type: ignore[arg-type]
    image_size(place)  # type: ignore[arg-type]
    channels = read_image(place).shape[2]  # type: ignore[arg-type]
    read_canvas(place, 32, channels)  # type: ignore[arg-type]


READ, REFUSED = "read", "refused with an error of d3ssl's"
"""How reading may end."""
READERS: dict[str, Callable[[Path, bytes], None]] = {
    "coco": _coco,
    "voc": _voc,
    "manifest": _manifest,
    "regions": _regions,
    "tar": _tar,
    "image": _image,
}


def serve(name: str, folder: Path, pipe: Connection) -> None:
    """Read what comes, and answer with what happened and with the largest memory ever, bytes."""
    from d3ssl.errors import D3sslError

    while True:
        content = pipe.recv_bytes()
        try:
            READERS[name](folder, content)
            end = READ
        except D3sslError:
            end = REFUSED
        except BaseException:
            end = traceback.format_exc()
        pipe.send((end, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


class Reading:
    """A process that reads; a new one after each that had to be ended."""

    def __init__(self, name: str, template: Path, folder: Path, sound: bytes) -> None:
        """``sound``: an input that can be read; it loads what reading loads once."""
        self.name, self.folder, self.sound = name, folder, sound
        shutil.copytree(template, folder)
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(self.name, self.folder, theirs), daemon=True)
        self._process.start()
        theirs.close()
        end, self._before = self._ask(self.sound, 120.0)
        assert end == READ, end

    def _ask(self, content: bytes, most_s: float) -> tuple[str, int]:
        self._pipe.send_bytes(content)
        try:
            if self._pipe.poll(most_s):
                return self._pipe.recv()
        except EOFError:
            return f"the process died (exit code {self._process.exitcode})", 0
        return f"it took more than {most_s:g} s", 0

    def read(self, content: bytes) -> str:
        """``READ`` or ``REFUSED``; anything else is a fault, and says which."""
        end, most = self._ask(content, MOST_S)
        if most == 0:
            self.close()
            self._start()
        elif most - self._before > MOST_BYTES:
            end = f"it took {(most - self._before) / 1e9:.1f} GB"
            self._before = most
        return end

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()
