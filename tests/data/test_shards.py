"""Shards as DATA: which files are images, what is read from them, the index, and the errors."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photographs

from d3ssl.data.formats.folder import walk
from d3ssl.data.images import image_size, read_canvas, read_image, read_reduced
from d3ssl.data.place import Member, Place, open_place
from d3ssl.data.shards import index
from d3ssl.data.shards import members as members_module
from d3ssl.data.shards.find import find_shards
from d3ssl.data.shards.members import read_members
from d3ssl.data.sources import open_images
from d3ssl.errors import InputError


def png(value: int = 7, size: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((size, size), value, dtype=np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", encoding="utf-8") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def webdataset_samples(path: Path) -> Iterator[dict[str, bytes]]:
    """The layout as its own tools read it: a stream of files; neighbours with the same key are a sample."""
    sample: dict[str, bytes] = {}
    key = None
    with tarfile.open(path, "r|", encoding="utf-8") as tar:
        for info in tar:
            found = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", info.name)
            if not info.isreg() or found is None:
                continue
            if found[1] != key and sample:
                yield sample
                sample = {}
            key = found[1]
            content = tar.extractfile(info)
            assert content is not None
            sample |= {"__key__": key.encode(), found[2].lower(): content.read()}
    if sample:
        yield sample


def content_of(place: Place) -> bytes:
    with open_place(place) as file:
        return file.read()


ENDINGS = ("jpg", "PNG", "json", "cls", "seg.png", "mask.png", "txt")
SAMPLES = st.lists(st.lists(st.sampled_from(ENDINGS), min_size=1, max_size=4, unique=True), max_size=6)


@settings(max_examples=100, deadline=None)
@given(SAMPLES, st.sampled_from(["", "a/", "./a.b/", "a.b/c/"]))
def test_images_are_those_of_the_samples(
    tmp_path_factory: pytest.TempPathFactory, samples: list[list[str]], folder: str
) -> None:
    files = {f"{folder}{number:03d}.{end}": bytes([number]) for number, sample in enumerate(samples) for end in sample}
    path = write_tar(tmp_path_factory.getbasetemp() / "samples.tar", files)
    wanted, several = {}, False
    for sample in webdataset_samples(path):
        images = [end for end in sample if end in ("jpg", "png")] or [e for e in sample if e.endswith(".png")]
        several |= len(images) > 1
        if images:
            wanted[sample["__key__"].decode().removeprefix("./")] = sample[images[0]]
    if several:
        with pytest.raises(InputError, match=r"samples\.tar: holds a sample with 2 images"):
            read_members([path], one_a_sample=True)
        return
    found = read_members([path], one_a_sample=True)
    assert {re.sub(r"\.[^/]*$", "", name): content_of(member) for name, member in found.items()} == wanted


def test_a_shard_is_read_as_a_folder_of_the_same_files_is(tmp_path: Path) -> None:
    """Ids, order, digest; hidden files and files that are no images are passed over in both."""
    names = ("b.png", "a/z.PNG", "a/b/c.png", "Z.png", "ä.png", ".hidden.png", ".cache/x.png", "._b.png", "notes.txt")
    for number, name in enumerate(names):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(png(number))
    first = {f"./{name}": (tmp_path / "folder" / name).read_bytes() for name in names[:3]}
    second = {name.replace("ä", "a\u0308"): (tmp_path / "folder" / name).read_bytes() for name in names[3:]}
    write_tar(tmp_path / "shards" / "1.tar", first)
    write_tar(tmp_path / "shards" / "0.tar", second)
    folder, shards = open_images(tmp_path / "folder"), open_images(tmp_path / "shards")
    assert shards.ids == folder.ids == ("Z.png", "a/b/c.png", "a/z.PNG", "b.png", "ä.png")
    assert shards.digest() == folder.digest()
    for one, other in zip(folder.paths, shards.paths, strict=True):
        assert content_of(one) == content_of(other)
        np.testing.assert_array_equal(read_image(one), read_image(other))
    assert str(shards.paths[1]) == f"{tmp_path}/shards/1.tar: ./a/b/c.png"
    assert shards.subset([3, 0]).digest() == folder.subset([3, 0]).digest()
    assert pickle.loads(pickle.dumps(shards)).paths == shards.paths


def files_of_all_kinds(folder: Path) -> list[Path]:
    folder.mkdir()
    photo = Image.fromarray(photographs.astronaut()[:150, :200])
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "b.webp", "c.bmp", "d.gif", "e.tif", "f.ppm", "g.jpg"):
        photo.save(folder / name)
    photo.convert("L").save(folder / "h.jpg", exif=exif)
    deep = np.random.default_rng(0).integers(0, 2**16, (40, 50, 5), dtype=np.uint16)
    Image.fromarray(deep[..., 0]).save(folder / "i.png")
    tifffile.imwrite(folder / "j.tif", deep, photometric="minisblack", planarconfig="contig", compression="zlib")
    tifffile.imwrite(folder / "k.tif", deep, photometric="minisblack", planarconfig="contig", bigtiff=True)
    np.save(folder / "l.npy", deep)
    np.save(folder / "m.npy", np.asfortranarray(deep[..., :3]))
    return sorted(folder.iterdir())


def test_every_kind_of_file_is_read_from_a_shard_as_from_a_file(tmp_path: Path) -> None:
    paths = files_of_all_kinds(tmp_path / "kinds")
    write_tar(tmp_path / "kinds.tar", {path.name: path.read_bytes() for path in paths})
    images = open_images(tmp_path / "kinds.tar")
    assert images.ids == tuple(path.name for path in paths)
    for path, member in zip(paths, images.paths, strict=True):
        channels = read_image(path).shape[2]
        np.testing.assert_array_equal(read_image(member), read_image(path))
        np.testing.assert_array_equal(read_canvas(member, 32, channels)[0], read_canvas(path, 32, channels)[0])
        np.testing.assert_array_equal(read_reduced(member, 20)[0], read_reduced(path, 20)[0])
        assert image_size(member) == image_size(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.95])
def test_damaged_images_in_a_shard_are_named(tmp_path: Path, share: float) -> None:
    """Cut images do not read on into the files behind them in the tar."""
    paths = files_of_all_kinds(tmp_path / "kinds")
    contents = {path.name: path.read_bytes() for path in paths if path.name[0] not in "cdf"}
    write_tar(tmp_path / "cut.tar", {name: data[: int(len(data) * share)] for name, data in contents.items()})
    for member in open_images(tmp_path / "cut.tar").paths:
        assert isinstance(member, Member)
        with pytest.raises(InputError, match=rf"cut\.tar: {member.name}: cannot be read as an image"):
            read_image(member)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 20000)),
        st.tuples(st.just("seek"), st.integers(0, 20000)),
        st.tuples(st.just("end"), st.integers(-9000, 10)),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(OPERATIONS)
def test_a_member_is_a_file_like_any_other(tmp_path_factory: pytest.TempPathFactory, operations: list) -> None:
    content = np.random.default_rng(1).bytes(15000)
    path = tmp_path_factory.getbasetemp() / "window"
    path.write_bytes(b"before" + content + b"behind")
    oracle = io.BytesIO(content)
    with Member(path, "a", 6, len(content)).open() as file:
        assert file.readable() and file.seekable() and not file.writable()
        for what, number in operations:
            if what == "read":
                assert file.read(number) == oracle.read(number)
            elif what == "seek":
                assert file.seek(number) == oracle.seek(number)
            else:
                assert file.seek(number, os.SEEK_END) == oracle.seek(number, os.SEEK_END)
            assert file.tell() == oracle.tell()
        with pytest.raises(OSError):
            file.seek(-1)


def document(names: list[str]) -> str:
    images = [{"id": number, "file_name": name, "height": 8, "width": 8} for number, name in enumerate(names)]
    objects = [
        {"id": number, "image_id": number, "category_id": 1, "bbox": [0, 0, number + 1, 2]}
        for number in range(len(names))
    ]
    categories = [{"id": 1, "name": "thing"}]
    return json.dumps({"images": images, "annotations": objects, "categories": categories})


def test_annotations_beside_shards_name_the_images(tmp_path: Path) -> None:
    """Whatever the samples are: here ``a`` would have two images."""
    write_tar(tmp_path / "0.tar", {"b.png": png(), "a.png": png(), "a.jpg": png(), "other.png": png()})
    write_tar(tmp_path / "1.tar", {"c/d.e.png": png(3)})
    (tmp_path / "annotations.json").write_text(document(["c/d.e.png", "b.png", "a.png"]))
    for data in (tmp_path, tmp_path / "annotations.json", f"{tmp_path}/{{0..1}}.tar"):
        images = open_images(data)
        assert images.ids == ("a.png", "b.png", "c/d.e.png")
        assert images.annotations is not None and images.root == tmp_path
        assert [images.annotations.objects(row).boxes[0, 2] for row in range(3)] == [3, 2, 1]
    part = open_images(tmp_path / "1.tar")
    assert part.ids == ("c/d.e.png",) and part.annotations is not None and len(part.annotations) == 1
    (tmp_path / "1.tar").unlink()
    with pytest.raises(InputError, match=r"annotations\.json: names 1 of 3 images that are missing.*c/d\.e\.png"):
        open_images(tmp_path)
    (tmp_path / "annotations.json").write_text(document(["x.png"]))
    with pytest.raises(InputError, match="names 1 of 1 images that are missing"):
        open_images(tmp_path / "0.tar")


def test_patterns_name_shards(tmp_path: Path) -> None:
    for number in range(12):
        write_tar(tmp_path / f"{number:03d}.tar", {f"{number}.png": png()})
    write_tar(tmp_path / "x" / "7.tar", {"x.png": png()})
    assert len(open_images(f"{tmp_path}/{{000..011}}.tar")) == 12
    assert open_images(f"{tmp_path}/{{008..010}}.tar").ids == ("10.png", "8.png", "9.png")
    assert open_images(f"{tmp_path}/00{{2,5}}.tar").ids == ("2.png", "5.png")
    assert open_images(f"{tmp_path}/{{x,x}}/{{7..7}}.tar").ids == ("x.png",)
    with pytest.raises(InputError, match=r"names 3 of 5 shards that are missing: .*012\.tar"):
        open_images(f"{tmp_path}/{{010..014}}.tar")
    with pytest.raises(InputError, match="mean nothing"):
        open_images(f"{tmp_path}/{{abc}}.tar")
    with pytest.raises(InputError, match="stands for 100,000,000 names"):
        find_shards(f"{tmp_path}/{{0000..9999}}/{{0000..9999}}.tar")
    with pytest.raises(InputError, match="stands for"):
        find_shards(f"{tmp_path}/{{0..99999999999}}.tar")
    with pytest.raises(InputError, match="no such file or folder"):
        open_images(tmp_path / "{0..1}.png")


def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "two" / "0.tar", {"a.png": png()})
    write_tar(tmp_path / "two" / "1.tar", {"./a.png": png()})
    with pytest.raises(InputError, match=r"1\.tar: holds the image '\./a\.png', which .*0\.tar holds too"):
        open_images(tmp_path / "two")
    write_tar(tmp_path / "both" / "0.tar", {"a.png": png()})
    (tmp_path / "both" / "b.png").write_bytes(png())
    with pytest.raises(InputError, match=r"holds tar shards and also images, such as b\.png"):
        open_images(tmp_path / "both")
    write_tar(tmp_path / "none.tar", {"a.txt": b"text"})
    with pytest.raises(InputError, match=r"none\.tar: holds no images"):
        open_images(tmp_path / "none.tar")
    (tmp_path / "zipped").mkdir()
    (tmp_path / "zipped" / "0.tar.gz").write_bytes(b"\x1f\x8b")
    for data in (tmp_path / "zipped", tmp_path / "zipped" / "0.tar.gz"):
        with pytest.raises(InputError, match=r"0\.tar\.gz: is compressed"):
            open_images(data)
    monkeypatch.setattr(members_module, "MAX_IMAGE_BYTES", 10)
    with pytest.raises(InputError, match=r"0\.tar: a\.png: has \d+ bytes; images of up to 10"):
        open_images(tmp_path / "two" / "0.tar")
    write_tar(tmp_path / "evil.tar", {"../a.png": png()})
    with pytest.raises(InputError, match="leads out of the tar"):
        open_images(tmp_path / "evil.tar")


def test_a_cut_shard_is_told_before_work_and_when_it_is_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {f"{number}.png": png(number, 40) for number in range(5)})
    images = open_images(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:2500])
    with pytest.raises(InputError, match=r"0\.tar: is cut off at byte 2500"):
        open_images(path)
    last = images.paths[4]
    assert isinstance(last, Member)
    with pytest.raises(InputError, match=rf"0\.tar: 4\.png: its shard is cut off at byte 2500.*{last.offset}"):
        read_canvas(last, 8)
    assert read_canvas(images.paths[0], 8)[1] == (40, 40)
    path.unlink()
    with pytest.raises(InputError, match=r"0\.tar: 0\.png: no such file"):
        read_image(images.paths[0])


class Scans:
    """Counts how often headers are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, scan = 0, index.scan_tar

        def counted(path: Path):  # type: ignore[no-untyped-def]
            self.count += 1
            return scan(path)

        monkeypatch.setattr(index, "scan_tar", counted)


def test_headers_are_read_once_and_again_when_the_shard_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    scans = Scans(monkeypatch)
    path = write_tar(tmp_path / "0.tar", {"a.png": png(), "b.png": png()})
    first = open_images(tmp_path)
    assert first.paths == open_images(tmp_path).paths and scans.count == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.tar", "0.tar.index"]
    write_tar(path, {"c.png": png(), "d.png": png()})  # as large as before
    os.utime(path, ns=(1, 1))
    assert open_images(tmp_path).ids == ("c.png", "d.png") and scans.count == 2
    whole = (tmp_path / "0.tar.index").read_bytes()
    for damaged in (whole[:100], b"", whole[:60] + b"xxxx" + whole[64:]):
        (tmp_path / "0.tar.index").write_bytes(damaged)
        assert open_images(tmp_path).ids == ("c.png", "d.png")
    assert "0.tar.index: the index of a shard cannot be read" in capfd.readouterr().err.replace("\n", "")
    assert (tmp_path / "0.tar.index").read_bytes() == whole


def test_an_index_from_elsewhere_is_checked(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """One of the right size and time that names bytes beyond the end, or a hostile name."""
    path = write_tar(tmp_path / "0.tar", {"a.png": png()})
    wanted = open_images(path).paths
    other = write_tar(tmp_path / "other" / "0.tar", {"a.png": bytes(20000)})
    open_images(other)
    stamp = index._stamp(path)
    found = index._read(tmp_path / "other" / "0.tar.index", index._stamp(other))
    assert found is not None
    index._write(path, found, stamp)
    assert open_images(path).paths == wanted
    assert "beyond its end" in capfd.readouterr().err.replace("\n", " ")
    evil = index.Contents(names=("/a.png",), offsets=np.array([512]), sizes=np.array([3]))
    index._write(path, evil, stamp)
    with pytest.raises(InputError, match="absolute"):
        open_images(path)


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """A folder lies where the index would: then it is kept in the user's cache, and if that is no folder, nowhere."""
    scans = Scans(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_tar(tmp_path / "set" / "0.tar", {"a.png": png()})
    (tmp_path / "set" / "0.tar.index").mkdir()
    for _ in range(2):
        assert open_images(tmp_path / "set").ids == ("a.png",)
    assert scans.count == 1
    assert len(list((tmp_path / "cache" / "d3ssl" / "shards").iterdir())) == 1
    assert "cannot be kept" not in capfd.readouterr().err
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert open_images(tmp_path / "set").ids == ("a.png",) and scans.count == 2
    assert "the index of a shard cannot be kept" in capfd.readouterr().err


def test_the_walk_of_a_folder_of_shards_finds_no_images(tmp_path: Path) -> None:
    """Nothing is extracted, and nothing lies beside the shards but their indices."""
    write_tar(tmp_path / "0.tar", {"a.png": png()})
    read_image(open_images(tmp_path).paths[0])
    assert walk(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tar", "0.tar.index"]
