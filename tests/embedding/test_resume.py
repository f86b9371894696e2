"""The same file whatever the workers, the kills and the bad images; and nothing continues another run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from d3ssl.embedding import EmbedConfig, blocks, embed
from d3ssl.embedding.table import read_about
from d3ssl.errors import D3sslError, InputError
from d3ssl.models import create_backbone
from tests.data.annotated_shapes import write_part

CONFIG = EmbedConfig(size=32, batch_size=2, workers=1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are read."""
    seen: list[str] = []
    read = blocks.read_canvas

    def watched(path: Path, size: int, channels: int):
        seen.append(path.name)
        return read(path, size, channels)

    monkeypatch.setattr(blocks, "read_canvas", watched)
    return seen


def spoil(folder: Path, *numbers: int) -> None:
    for number in numbers:
        path = folder / f"{number}.png"
        path.write_bytes(path.read_bytes()[:60])


def test_workers_do_not_change_a_byte(photos: Path, tmp_path: Path) -> None:
    spoil(photos, 4)
    files = []
    for workers in (0, 1, 2):
        config = EmbedConfig(size=32, batch_size=2, workers=workers, max_bad_share=0.2)
        files.append(embed("timm:test_resnet", photos, tmp_path / f"{workers}.parquet", config).read_bytes())
    assert files[0] == files[1] == files[2]


_KILLED = """
import sys, time
from pathlib import Path
from d3ssl.embedding import EmbedConfig, blocks, embed
blocks.BLOCK = 3
read = blocks.read_canvas
def slow(path, size, channels):
    time.sleep(0.0 if int(path.stem) < 7 else 600)
    return read(path, size, channels)
blocks.read_canvas = slow
embed("timm:test_resnet", sys.argv[1], sys.argv[2], EmbedConfig(size=32, batch_size=2, workers=1))
"""


def kill_after_two_blocks(photos: Path, out: Path) -> Path:
    """Kill a run while it makes its third block. Returns the folder of the parts."""
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(photos), str(out)], stderr=subprocess.DEVNULL)
    parts = out.with_name(out.name + ".parts")
    deadline = time.monotonic() + 90
    while len(list(parts.glob("*.parquet"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return parts


def test_a_killed_run_loses_one_block_and_gives_the_same_file(
    photos: Path, tmp_path: Path, looked_at: list[str]
) -> None:
    out = tmp_path / "f.parquet"
    parts = kill_after_two_blocks(photos, out)
    assert not out.exists()
    (tmp_path / ".f.parquet.0123abcd.tmp").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"begun and is not whole yet.*\n.*--resume"):
        embed("timm:test_resnet", photos, out, CONFIG)
    assert looked_at == []

    embed("timm:test_resnet", photos, out, CONFIG, resume=True)
    assert looked_at == [f"{number}.png" for number in range(6, 10)]
    assert not parts.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["f.parquet", "photos"]
    embed("timm:test_resnet", photos, tmp_path / "uninterrupted.parquet", CONFIG)
    assert out.read_bytes() == (tmp_path / "uninterrupted.parquet").read_bytes()


def begin_and_fail(photos: Path, out: Path) -> None:
    """A run that ends before its parts are joined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d3ssl.embedding.run.join", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            embed("timm:test_resnet", photos, out, CONFIG)


@pytest.mark.parametrize("finished", [False, True])
def test_nothing_else_continues_a_run(photos: Path, tmp_path: Path, looked_at: list[str], finished: bool) -> None:
    out = tmp_path / "f.parquet"
    if finished:
        embed("timm:test_resnet", photos, out, CONFIG)
    else:
        begin_and_fail(photos, out)
    looked_at.clear()
    other = {
        "another backbone": ("timm:test_resnet:random:1", CONFIG),
        r"level -1 \(now -2\)": ("timm:test_resnet", EmbedConfig(size=32, batch_size=2, level=-2)),
        r"dtype float32 \(now float16\)": ("timm:test_resnet", EmbedConfig(size=32, batch_size=2, dtype="float16")),
        r"batch_size 2 \(now 64\), size 32 \(now 64\)": ("timm:test_resnet", EmbedConfig(size=64)),
    }
    for problem, (spec, config) in other.items():
        with pytest.raises(InputError, match=f"was begun with {problem}"):
            embed(spec, photos, out, config, resume=True)
    Image.new("RGB", (40, 50)).save(photos / "new.png")
    with pytest.raises(InputError, match="was begun with other images"):
        embed("timm:test_resnet", photos, out, CONFIG, resume=True)
    (photos / "new.png").unlink()
    assert looked_at == []
    embed("timm:test_resnet", photos, out, EmbedConfig(size=32, batch_size=2, workers=2), resume=True)
    assert looked_at == [] and len(pq.read_table(out)) == 10


def test_other_annotations_do_not_continue_a_run(tmp_path: Path) -> None:
    folder, out = tmp_path / "set", tmp_path / "f.parquet"
    write_part(folder, {"ant": 2}, 0)
    config = EmbedConfig(size=64, of="boxes")
    embed("timm:test_resnet", folder, out, config)
    path = folder / "annotations.json"
    path.write_text(path.read_text().replace('"ant"', '"cat"'))
    with pytest.raises(InputError, match="was begun with other regions"):
        embed("timm:test_resnet", folder, out, config, resume=True)


def test_what_is_there_is_not_written_over(photos: Path, tmp_path: Path, looked_at: list[str]) -> None:
    out = tmp_path / "f.parquet"
    with pytest.raises(InputError, match="nothing to continue"):
        embed("timm:test_resnet", photos, out, CONFIG, resume=True)
    embed("timm:test_resnet", photos, out, CONFIG)
    whole = out.read_bytes()
    looked_at.clear()
    with pytest.raises(InputError, match=r"is there already.*\n.*--resume"):
        embed("timm:test_resnet", photos, out, CONFIG)
    embed("timm:test_resnet", photos, out, CONFIG, resume=True)
    assert looked_at == [] and out.read_bytes() == whole
    out.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="is not a whole Parquet file"):
        embed("timm:test_resnet", photos, out, CONFIG, resume=True)
    pq.write_table(pa.table({"id": ["a"]}), out)
    with pytest.raises(InputError, match="not one of d3ssl embed"):
        embed("timm:test_resnet", photos, out, CONFIG, resume=True)


def test_a_damaged_part_is_made_again(photos: Path, tmp_path: Path, looked_at: list[str]) -> None:
    out = tmp_path / "f.parquet"
    begin_and_fail(photos, out)
    part = tmp_path / "f.parquet.parts" / "000001.parquet"
    part.write_bytes(part.read_bytes()[:200])
    looked_at.clear()
    embed("timm:test_resnet", photos, out, CONFIG, resume=True)
    assert looked_at == ["3.png", "4.png", "5.png"]
    embed("timm:test_resnet", photos, tmp_path / "g.parquet", CONFIG)
    assert out.read_bytes() == (tmp_path / "g.parquet").read_bytes()


def test_two_runs_at_once_are_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "f.parquet"

    def meanwhile(*_: object) -> int:
        with pytest.raises(InputError, match="another run of this very process writes into this folder"):
            embed("timm:test_resnet", photos, out, CONFIG, resume=True)
        return 0

    monkeypatch.setattr("d3ssl.embedding.run.join", meanwhile)
    embed("timm:test_resnet", photos, out, CONFIG)


def test_bad_images_are_left_out_and_named(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    spoil(photos, 1, 9)
    out = tmp_path / "f.parquet"
    with pytest.raises(
        InputError, match=r"2 of 10 images cannot be used so far:\n  1\.png: .*\n  9\.png: .*\n.*--max_bad_share"
    ):
        embed("timm:test_resnet", photos, out, CONFIG)
    assert not out.exists()
    embed("timm:test_resnet", photos, out, EmbedConfig(size=32, batch_size=2, max_bad_share=0.2), resume=True)
    assert pq.read_table(out)["id"].to_pylist() == [f"{number}.png" for number in (0, 2, 3, 4, 5, 6, 7, 8)]
    assert list(read_about(out)["skipped"]) == ["1.png", "9.png"]
    assert "2 of 10 images are left out" in capfd.readouterr().err


def test_no_readable_image_is_an_error(photos: Path, tmp_path: Path) -> None:
    spoil(photos, *range(10))
    with pytest.raises(InputError, match="10 of 10 images cannot be used"):
        embed("timm:test_resnet", photos, tmp_path / "f.parquet", EmbedConfig(size=32, max_bad_share=1.0))


def test_an_error_on_the_way_leaves_no_output(photos: Path, tmp_path: Path) -> None:
    network = create_backbone("test_resnet", seed=0)
    maps = network.maps

    def fail_later(images: torch.Tensor) -> list[torch.Tensor]:
        if len(list((tmp_path / "f.parquet.parts").glob("*.parquet"))) == 2:
            raise D3sslError("the device is gone")
        return maps(images)

    network.maps = fail_later  # type: ignore[method-assign]
    with pytest.raises(D3sslError, match="the device is gone"):
        embed(network, photos, tmp_path / "f.parquet", CONFIG)
    assert not (tmp_path / "f.parquet").exists()
    network.maps = maps  # type: ignore[method-assign]
    embed(network, photos, tmp_path / "f.parquet", CONFIG, resume=True)
    assert len(pq.read_table(tmp_path / "f.parquet")) == 10
