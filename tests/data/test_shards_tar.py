"""The walk through a tar's headers finds what Python's tarfile finds, and nothing that is cut off or odd passes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d3ssl.data.shards.index import check_names
from d3ssl.data.shards.tar import MAX_NAME_BYTES, Contents, scan_tar
from d3ssl.errors import InputError

PART = st.text(st.characters(codec="utf-8", exclude_characters="/\\", exclude_categories=("C", "Z")), min_size=1)
NAMES = st.lists(PART.filter(lambda part: part not in (".", "..")), min_size=1, max_size=30).map("/".join)
FILES = st.lists(st.tuples(NAMES, st.integers(0, 1500)), max_size=5, unique_by=lambda file: file[0])
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def write_tar(path: Path, files: list[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind, encoding="utf-8") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def by_tarfile(path: Path) -> list[tuple[str, int, int]]:
    with tarfile.open(path, "r:", encoding="utf-8") as tar:
        return [(info.name, info.offset_data, info.size) for info in tar]


def listed(found: Contents) -> list[tuple[str, int, int]]:
    return list(zip(found.names, found.offsets.tolist(), found.sizes.tolist(), strict=True))


@settings(max_examples=120, deadline=None)
@given(FILES, st.sampled_from(FORMATS))
def test_names_and_places_are_those_of_tarfile(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, int]], kind: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "scan.tar"
    if kind == tarfile.USTAR_FORMAT:  # its names end at 100 bytes, or 255 with a slash in the right place
        files = [(name, size) for name, size in files if len(name.encode()) <= 100]
    write_tar(path, [(name, b"x" * size) for name, size in files], kind)
    assert listed(scan_tar(path)) == by_tarfile(path)


def test_folders_global_headers_and_other_records_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "made by a test"}) as tar:
        folder = tarfile.TarInfo("photos/")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        info = tarfile.TarInfo("photos/a.jpg")
        info.size, info.mtime = 3, 1.5  # type: ignore[assignment]  # a fraction of a second makes a pax record
        tar.addfile(info, io.BytesIO(b"abc"))
    assert listed(scan_tar(path)) == [("photos/a.jpg", by_tarfile(path)[1][1], 3)]


def test_binary_sizes_of_gnu_and_sizes_in_pax_records(tmp_path: Path) -> None:
    """Sizes of 8 GiB and more, in a sparse file of the disk: no block of it is written."""
    size = 9 << 30
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("a.npy")
        info.size = size
        header = info.tobuf(kind)
        path = tmp_path / f"{kind}.tar"
        with open(path, "wb") as file:
            file.write(header)
            file.truncate(len(header) + size + 1024)
        assert listed(scan_tar(path)) == [("a.npy", len(header), size)]


THREE = [("a.jpg", b"a" * 700), ("b.jpg", b"b" * 512), ("ü/" + "c" * 120 + ".jpg", b"c" * 3)]


def test_a_tar_cut_at_any_byte_is_whole_or_an_error_with_that_byte(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", THREE).read_bytes()
    wanted = listed(scan_tar(tmp_path / "a.tar"))
    end = wanted[-1][1] + 512  # where the end mark begins
    path = tmp_path / "cut.tar"
    for length in [*range(0, end + 512, 37), *range(0, len(whole) + 1, 512)]:
        path.write_bytes(whole[:length])
        if length >= end + 512:
            assert listed(scan_tar(path)) == wanted
            continue
        with pytest.raises(InputError, match=rf"cut\.tar: is cut off at byte {length}"):
            scan_tar(path)


def test_the_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", THREE)
    path.write_bytes(path.read_bytes()[:2300])
    with pytest.raises(InputError, match=r"a\.tar: is cut off at byte 2300: 'b\.jpg' lies at bytes 2048 to 2560"):
        scan_tar(path)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 147), st.integers(0, 1), st.integers(1, 255))
def test_a_damaged_header_is_an_error_with_its_byte(
    tmp_path_factory: pytest.TempPathFactory, place: int, which: int, change: int
) -> None:
    path = write_tar(tmp_path_factory.getbasetemp() / "damaged.tar", THREE)
    at = (0, 1536)[which]  # a header, 700 bytes that take two blocks, a header
    data = bytearray(path.read_bytes())
    data[at + place] ^= change
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"damaged at byte {at}" if at else "is not a tar"):
        scan_tar(path)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6))
def test_any_bytes_are_a_tar_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Damage behind a right checksum: the records and numbers of a header are anything."""
    rng = np.random.default_rng(seed)
    path = write_tar(tmp_path_factory.getbasetemp() / "any.tar", THREE)
    data = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 4))):
        at = 512 * int(rng.integers(0, 12))
        start = at + int(rng.integers(0, 480))
        data[start : start + 30] = rng.bytes(30)
        header = bytes(data[at : at + 148]) + b" " * 8 + bytes(data[at + 156 : at + 512])
        data[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    path.write_bytes(data)
    try:
        found = scan_tar(path)
    except InputError:
        return
    assert ((found.offsets + found.sizes) <= len(data)).all()


def with_type(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"V", "unknown type"),
    ],
)
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes, what: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(with_type(kind).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match=rf"a\.tar: holds .*{what}.*'a\.jpg'"):
        scan_tar(path)


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        (b"30 GNU.sparse.major=1\n", "damaged record"),
        (b"22 GNU.sparse.major=1\n", "sparse"),
        (b"12 size=abc\n", "size"),
        (b"13 size=-512\n", "size"),
        (b"x path=a\n", "length"),
        (b"0 path=a\n", "length"),
        (b"8 patha\n", "length"),
    ],
)
def test_odd_pax_records_are_refused(tmp_path: Path, records: bytes, problem: str) -> None:
    info = tarfile.TarInfo("record")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf() + records.ljust(512, b"\0") + tarfile.TarInfo("a.jpg").tobuf() + bytes(1024))
    with pytest.raises(InputError, match=problem):
        scan_tar(path)


def test_records_that_would_fill_the_memory_are_not_read(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("record")
        info.type, info.size = kind, MAX_NAME_BYTES + 1
        path = tmp_path / "a.tar"
        with open(path, "wb") as file:
            file.write(info.tobuf())
            file.truncate(1 << 33)
        with pytest.raises(InputError, match="record of 65537 bytes"):
            scan_tar(path)


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_compressed_tars_are_told(tmp_path: Path, pack: Callable[[bytes], bytes], kind: str) -> None:
    path = write_tar(tmp_path / "a.tar", THREE)
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(InputError, match=rf"a\.tar: is compressed \({kind}\)(?s:.*)pack the images again"):
        scan_tar(path)


def test_what_is_no_tar(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"no tar " * 1000)
    with pytest.raises(InputError, match=r"a\.tar: is not a tar"):
        scan_tar(path)
    with pytest.raises(InputError, match=r"b\.tar: cannot be read \(No such file"):
        scan_tar(tmp_path / "b.tar")


def test_joined_tars_are_refused_as_the_second_would_never_be_read(tmp_path: Path) -> None:
    one, other = write_tar(tmp_path / "a.tar", THREE[:1]), write_tar(tmp_path / "b.tar", THREE[1:])
    with open(one, "ab") as file:
        file.write(other.read_bytes())
    with pytest.raises(InputError, match="behind its end mark"):
        scan_tar(one)


@pytest.mark.parametrize(
    "name", ["/etc/a.jpg", "../a.jpg", "a/../../b.jpg", "a\\b.jpg", "a\nb.jpg", "\x1b[2Ja.jpg", "\udcff.jpg"]
)
def test_hostile_names_are_refused(name: str) -> None:
    contents = Contents(names=("ok.jpg", name), offsets=np.array([512, 1024]), sizes=np.array([1, 1]))
    with pytest.raises(InputError, match=r"a\.tar: holds a file of the name"):
        check_names(Path("a.tar"), contents)


def test_dots_in_plain_names_are_no_offence() -> None:
    names = ("a..b.jpg", "..a.jpg", "./a/.../b.jpg")
    check_names(Path("a.tar"), Contents(names=names, offsets=np.zeros(3, np.int64), sizes=np.zeros(3, np.int64)))
