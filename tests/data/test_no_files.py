"""Pipes, sockets and devices under the names of files are refused at once, wherever files are read: nothing waits."""

from __future__ import annotations

import io
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.images import read_image
from d3ssl.data.number_png import read_map
from d3ssl.data.open_images.columns import open_text
from d3ssl.data.place import Member
from d3ssl.data.scenes.cutouts import NotUsable, read_cutout
from d3ssl.data.shards.tar import scan_tar
from d3ssl.data.sources import open_images
from d3ssl.doctor.look import UNREADABLE, look_at
from d3ssl.errors import InputError
from d3ssl.files import open_file, read_json
from tests.data.test_formats import build_voc


@pytest.fixture(autouse=True)
def nothing_waits() -> Iterator[None]:
    """A test that waits for a pipe fails instead."""

    def fail(_: int, __: FrameType | None) -> None:
        raise AssertionError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 60.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["pipe", "device"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def place(kind: str, path: Path) -> Path:
    """A pipe that nobody writes, or a link to a device that never ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    return path


def photographs(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_files_are_opened_and_folders_and_missing_ones_are_their_own_errors(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with open_file(tmp_path / "a") as file:
        assert file.read() == b"abc"
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "b")
    with pytest.raises(InputError, match=r"cannot be read .Is"):
        read_json(tmp_path)


def test_images_and_shards(kind: str, tmp_path: Path) -> None:
    image = place(kind, tmp_path / "x.jpg")
    with pytest.raises(InputError, match=r"x\.jpg: cannot be opened .a pipe, a socket or a device, not a file"):
        read_image(image)
    facts, message = look_at(image)
    assert facts["status"] == UNREADABLE and "not a file" in str(message)
    with pytest.raises(NotUsable):
        read_cutout(image, 100.0)
    with pytest.raises(InputError, match="not a file"):
        read_map(image)
    shard = place(kind, tmp_path / "x.tar")
    with pytest.raises(InputError, match=r"x\.tar: cannot be read .*not a file"):
        scan_tar(shard)
    with pytest.raises(InputError, match="cannot be opened"):
        read_image(Member(shard, "a.jpg", 512, 10))


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a.csv", "train-annotations-bbox.csv", "a.tar", "a.parquet"])
def test_data_that_is_none(kind: str, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        open_images(place(kind, tmp_path / name))


def test_tables(kind: str, tmp_path: Path) -> None:
    for name in ("a.csv", "a.csv.gz"):
        with pytest.raises(InputError, match="not a file"):
            open_text(place(kind, tmp_path / name))


def test_an_annotation_of_voc(kind: str, tmp_path: Path) -> None:
    tree = build_voc(tmp_path)
    place(kind, next(iter(sorted(tree.glob("**/Annotations/*.xml")))))
    with pytest.raises(InputError, match="not a file"):
        open_images(tree)


def test_a_folder_with_shards(kind: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        content = (photographs(tmp_path / "photos") / "0.png").read_bytes()
        info = tarfile.TarInfo("0.png")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    shutil.rmtree(tmp_path / "photos")
    place(kind, tmp_path / "1.tar")
    with pytest.raises(InputError, match=r"1\.tar: cannot be read"):
        open_images(tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "doctor {data} --recipe quickstart --proposals.method grid --workers 1",
        "regions {data} --out {out}/r.parquet --method grid --workers 1",
        "views {data} --out {out}/views --recipe quickstart --proposals.method grid --images 2",
    ],
)
def test_commands_end(command: str, kind: str, tmp_path: Path) -> None:
    data = photographs(tmp_path / "photos", 6)
    place(kind, data / "x.jpg")
    main(command.format(data=data, out=tmp_path).split())
