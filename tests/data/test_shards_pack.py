"""Packing: the same images for d3ssl and for other readers of tars, the same tars every time, never half a set."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d3ssl.cli.main import main
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.shards import pack as pack_module
from d3ssl.data.shards.pack import pack_shards, parse_size
from d3ssl.data.sources import open_images
from d3ssl.errors import D3sslError, InputError
from tests.data.test_shards import content_of, webdataset_samples


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    random = np.random.default_rng(0)
    for number in range(12):
        path = folder / ("sub/dir" if number % 3 else "ä") / f"{number:02d}.{'png' if number % 2 else 'bmp'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 30 + number, 3), dtype=np.uint8)).save(path)
    return folder


def tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def test_shards_hold_what_the_folder_holds_for_every_reader(photos: Path, tmp_path: Path) -> None:
    pack_shards(photos, tmp_path / "shards", "20KB")
    folder, shards = open_images(photos), open_images(tmp_path / "shards")
    assert shards.ids == folder.ids and shards.digest() == folder.digest()
    assert [content_of(path) for path in shards.paths] == [content_of(path) for path in folder.paths]
    assert len(tars(tmp_path / "shards")) > 2
    assert all(path.stat().st_size <= 20_000 for path in tars(tmp_path / "shards"))
    found = {}
    for path in tars(tmp_path / "shards"):
        with tarfile.open(path) as tar:
            for info in tar:
                assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "") and info.isreg()
                found[info.name] = tar.extractfile(info).read()  # type: ignore[union-attr]
    assert list(found) == list(folder.ids)
    assert list(found.values()) == [path.read_bytes() for path in folder.paths]  # type: ignore[union-attr]
    samples = [sample for path in tars(tmp_path / "shards") for sample in webdataset_samples(path)]
    assert [len(sample) for sample in samples] == [2] * 12  # the key and one image
    assert not (tmp_path / "shards.parts").exists()


def test_the_same_images_give_the_same_tars(photos: Path, tmp_path: Path) -> None:
    pack_shards(photos, tmp_path / "one", "30KB")
    shutil.copytree(photos, tmp_path / "copy")  # other times of change
    pack_shards(tmp_path / "copy", tmp_path / "two", "30KB")
    pack_shards(tmp_path / "one", tmp_path / "three", "30KB")  # from shards
    assert len(tars(tmp_path / "one")) > 1
    for other in ("two", "three"):
        for path in tars(tmp_path / "one"):
            assert path.read_bytes() == (tmp_path / other / path.name).read_bytes()
        assert tars(tmp_path / other)[-1].name == tars(tmp_path / "one")[-1].name


LETTERS = st.characters(codec="utf-8", exclude_characters="/\\.", exclude_categories=("C", "Z"))
PARTS = st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=1, max_size=5)
NAMES = PARTS.map(lambda parts: unicodedata.normalize("NFC", "/".join(parts) + ".png"))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, st.integers(0, 3000), min_size=1, max_size=8),
       st.integers(10_000, 30_000))  # fmt: skip
def test_any_names_and_sizes_go_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, int], limit: int
) -> None:
    root = tmp_path_factory.mktemp("any")
    for number, (name, size) in enumerate(files.items()):
        try:
            (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "in" / name).write_bytes(bytes([number]) * size)
        except (FileExistsError, NotADirectoryError):
            return
    folder = open_images(root / "in")
    pack_shards(root / "in", root / "out", str(limit))
    shards = open_images(root / "out")
    assert shards.ids == folder.ids and shards.digest() == folder.digest()
    assert [content_of(path) for path in shards.paths] == [content_of(path) for path in folder.paths]
    for path in tars(root / "out"):
        with tarfile.open(path) as tar:
            assert path.stat().st_size <= limit or len(tar.getnames()) == 1


def test_annotations_are_copied_and_scenes_keep_their_splits(tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", ScenesConfig(images=6, val_images=3, size=48, num_classes=3, themes=2, workers=1))
    for split in ("train", "val"):
        command = ["shards", "pack", str(tmp_path / "scenes" / split), "--out", str(tmp_path / "shards" / split)]
        assert main([*command, "--size", "10KB"]) == 0
        folder, shards = open_images(tmp_path / "scenes" / split), open_images(tmp_path / "shards" / split)
        assert shards.ids == folder.ids and shards.digest() == folder.digest()
        assert folder.annotations is not None and shards.annotations is not None
        for row in range(len(folder)):
            assert (folder.annotations.objects(row).boxes == shards.annotations.objects(row).boxes).all()
        name = f"{split}/annotations.json"
        assert (tmp_path / "scenes" / name).read_bytes() == (tmp_path / "shards" / name).read_bytes()
    part = f"{tmp_path}/shards/train/{{000..001}}.tar"
    assert 0 < len(open_images(part)) < 6
    with pytest.raises(InputError, match="names images that are not among those to be packed"):
        pack_shards(part, tmp_path / "part")


def test_a_stopped_packing_goes_on_and_is_no_data_before_it_is_whole(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_shards(photos, tmp_path / "whole", "20KB")
    out, written = tmp_path / "out", []
    check = pack_module._check_written

    def stop_at_the_third(temporary: Path, path: Path, *rest) -> None:  # type: ignore[no-untyped-def]
        written.append(path.name)
        if written == ["000.tar", "001.tar", "002.tar"]:
            raise KeyboardInterrupt
        check(temporary, path, *rest)

    monkeypatch.setattr(pack_module, "_check_written", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        pack_shards(photos, out, "20KB")
    assert not out.exists()
    assert [path.name for path in tars(tmp_path / "out.parts")] == ["000.tar", "001.tar"]
    with pytest.raises(InputError, match=r"out\.parts: was begun with other images or another size"):
        pack_shards(photos, out, "40KB")
    (tmp_path / "out.parts" / ".002.tar.1.tmp").write_bytes(b"torn")
    pack_shards(photos, out, "20KB")
    assert written[2:4] == ["002.tar", "002.tar"] and len(written) == len(tars(out)) + 1
    for path in tmp_path.joinpath("whole").iterdir():
        if path.suffix != ".index":
            assert path.read_bytes() == (out / path.name).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())
    pack_shards(photos, out, "20KB")  # nothing to do
    assert len(written) == len(tars(out)) + 1


def test_a_killed_packing_leaves_no_half_of_a_shard(photos: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom d3ssl.data.shards import pack\n"
        "check = pack._check_written\n"
        "def kill(written, path, *rest):\n"
        "    if path.name == '001.tar': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    check(written, path, *rest)\n"
        "pack._check_written = kill\npack.pack_shards(sys.argv[1], sys.argv[2], '20KB')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(photos), str(tmp_path / "out")], capture_output=True)
    assert done.returncode == -9
    assert [path.name for path in tars(tmp_path / "out.parts")] == ["000.tar"]
    pack_shards(photos, tmp_path / "out", "20KB")
    assert open_images(tmp_path / "out").digest() == open_images(photos).digest()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_set_with_a_shard_missing_or_cut_or_added_is_told(photos: Path, tmp_path: Path) -> None:
    out = pack_shards(photos, tmp_path / "out", "20KB")
    whole = (out / "001.tar").read_bytes()
    (out / "001.tar").unlink()
    with pytest.raises(InputError, match=r"out: the shard 001\.tar is missing"):
        open_images(out)
    assert len(open_images(f"{out}/{{000,002}}.tar")) < 12  # a part, asked for by name
    (out / "001.tar").write_bytes(whole[:-512])
    with pytest.raises(InputError, match=r"001\.tar: has \d+ bytes, and d3ssl-shards\.json says"):
        open_images(out)
    (out / "001.tar").write_bytes(whole)
    shutil.copy(out / "000.tar", out / "more.tar")
    with pytest.raises(InputError, match=r"more\.tar: is not in d3ssl-shards\.json"):
        open_images(out)
    (out / "more.tar").unlink()
    assert len(open_images(out)) == 12
    (out / "d3ssl-shards.json").write_text("[]")
    with pytest.raises(InputError, match=r"d3ssl-shards\.json: is not a list of packed shards"):
        open_images(out)


def test_what_cannot_be_packed(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is there already and holds something else"):
        pack_shards(photos, photos)
    done = pack_shards(photos, tmp_path / "done")
    with pytest.raises(InputError, match="is there already"):
        pack_shards(photos, done, "20KB")
    link = photos / "gone.png"
    link.symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"1 images cannot be found: .*gone\.png"):
        pack_shards(photos, tmp_path / "out")
    link.unlink()
    shutil.copy(photos / "ä" / "00.bmp", photos / "ä" / "00.b.bmp")
    with pytest.raises(InputError, match=r"ä/00\.b\.bmp and ä/00\.bmp are alike up to the first dot"):
        pack_shards(photos, tmp_path / "out")
    (photos / "ä" / "00.b.bmp").unlink()
    (tmp_path / "in-the-way.parts").mkdir()
    (tmp_path / "in-the-way.parts" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"in-the-way\.parts: is in the way"):
        pack_shards(photos, tmp_path / "in-the-way")
    monkeypatch.setattr(pack_module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore
    with pytest.raises(D3sslError, match=r"takes 0\.07 MB, and 0\.00 MB are free"):
        pack_shards(photos, tmp_path / "out")
    monkeypatch.setattr(pack_module, "MAX_IMAGE_BYTES", 100)
    with pytest.raises(InputError, match="shards take images of up to 100"):
        pack_shards(photos, tmp_path / "out")


def test_images_that_change_and_disks_that_fail_are_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = pack_module._sizes

    def then_change(images):  # type: ignore[no-untyped-def]
        found = sizes(images)
        images.paths[0].write_bytes(b"other")
        return found

    monkeypatch.setattr(pack_module, "_sizes", then_change)
    with pytest.raises(InputError, match="bytes before and has 5 now"):
        pack_shards(photos, tmp_path / "out")
    monkeypatch.undo()

    crc = pack_module.zlib.crc32
    answers = iter(range(10**6))
    monkeypatch.setattr(pack_module.zlib, "crc32", lambda content: crc(content) + (next(answers) == 13))
    with pytest.raises(D3sslError, match=r"000\.tar: cannot be read back as it was written"):
        pack_shards(photos, tmp_path / "other")
    assert not tars(tmp_path / "other.parts")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GB", 10**9), ("500 MB", 5 * 10**8), ("1.5kb", 1500), ("2GiB", 2**31), ("77", 77), ("3B", 3), ("1TB", 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1XB", "1GBB", "nan", "inf GB", "1 2 MB", "0.1B"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="is no size"):
        parse_size(text)


def test_the_list_says_what_was_packed(photos: Path, tmp_path: Path) -> None:
    out = pack_shards(photos, tmp_path / "out", "20KB")
    listed = json.loads((out / "d3ssl-shards.json").read_text())
    assert listed["images"] == 12 and listed["data_digest"] == open_images(photos).digest()
    assert listed["shards"] == {path.name: path.stat().st_size for path in tars(out)}


def test_an_unknown_action_names_the_known_one(capfd: pytest.CaptureFixture) -> None:
    assert main(["shards", "unpack"]) == 2
    assert "did you mean 'pack'" in capfd.readouterr().err
