"""Small files that would become gigabytes in memory are refused; what comes near the limits is read."""

from __future__ import annotations

import gzip
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from d3ssl.data.images import TooManyPixels, image_size, read_canvas, read_image
from d3ssl.data.open_images import columns
from d3ssl.data.open_images.classes import read_classes
from d3ssl.data.open_images.columns import SIZE_COLUMNS, stream
from d3ssl.errors import InputError
from d3ssl.files import read_json

MEGABYTE = 1_000_000


def peak_bytes() -> int:
    """The most memory that this process has ever had."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def wide_tiff(path: Path, side: int, channels: int, compression: str | None = "zlib") -> Path:
    """Zeros: a few kilobytes."""
    pixels = np.zeros((side, side, channels), np.uint8)
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig", compression=compression)
    return path


def test_a_tiff_of_many_channels_counts_all_of_them(tmp_path: Path) -> None:
    """36,000,000 pixels are few, 2.3 GB are not."""
    path = wide_tiff(tmp_path / "a.tif", 16, 64)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in (256, 257):
            tiff.pages.first.tags[tag].overwrite(6000)  # type: ignore[union-attr]
    for read in (image_size, read_image, lambda file: read_canvas(file, 8, 64)):
        with pytest.raises(TooManyPixels, match=r"6000×6000 of 64 channels"):
            read(path)
    assert read_image(wide_tiff(tmp_path / "b.tif", 100, 64)).shape == (100, 100, 64)


@pytest.mark.parametrize(("shape", "dtype"), [((6000, 6000, 64), np.uint8), ((12000, 12000, 3), np.uint16)])
def test_an_array_of_many_channels_or_bits(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    path = tmp_path / "a.npy"
    with open(path, "wb") as file:
        content = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(np.dtype(dtype))}
        np.lib.format.write_array_header_1_0(file, content)
        file.truncate(file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)  # a hole: takes no disk
    with pytest.raises(TooManyPixels):
        read_image(path)


def test_a_strip_that_is_larger_than_its_image_is_not_unpacked(tmp_path: Path) -> None:
    path = wide_tiff(tmp_path / "a.tif", 16, 5)
    packed = zlib.compress(bytes(10**9), 1)
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages.first.tags[279]  # type: ignore[union-attr]
        places = tiff.pages.first.tags[273].valueoffset, tag.valueoffset  # type: ignore[union-attr]
    data = bytearray(path.read_bytes())
    for place, value in zip(places, (len(data), len(packed)), strict=True):
        struct.pack_into("<I", data, place, value)
    path.write_bytes(bytes(data) + packed)
    before = peak_bytes()
    with pytest.raises(InputError, match="strips or tiles are larger than the image"):
        read_image(path)
    assert peak_bytes() - before < 300 * MEGABYTE


def sizes_table(path: Path, rows: str, repeated: int) -> Path:
    """A compressed table of sizes, whose rows are repeated."""
    with gzip.open(path, "wt", encoding="ascii", compresslevel=1) as file:
        file.write("ImageID,Width,Height\n")
        for _ in range(repeated):
            file.write(rows)
    return path


@pytest.mark.parametrize("text", ["0" * MEGABYTE, "\n" * MEGABYTE, "0123456789abcdef,5,5\n" * 50_000])
def test_a_compressed_table_is_not_read_beyond_what_a_table_can_be(tmp_path: Path, text: str) -> None:
    path = sizes_table(tmp_path / "a.csv.gz", text, 400)
    assert path.stat().st_size < 8 * MEGABYTE
    before = peak_bytes()
    with pytest.raises(InputError):  # the first also has too long a line
        for _ in stream(path, SIZE_COLUMNS, {}, 16 * MEGABYTE):
            pass
    assert peak_bytes() - before < 400 * MEGABYTE


def test_a_table_that_is_one_line(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.csv.gz", "wb", compresslevel=1) as file:
        for _ in range(400):
            file.write(bytes(MEGABYTE).replace(b"\0", b"x"))
    before = peak_bytes()
    with pytest.raises(InputError, match="no column"):
        list(stream(tmp_path / "a.csv.gz", SIZE_COLUMNS, {}, MEGABYTE))
    with pytest.raises(InputError, match="line 1"):
        read_classes(tmp_path / "a.csv.gz")
    assert peak_bytes() - before < 100 * MEGABYTE


def test_a_table_that_compresses_well_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sizes_table(tmp_path / "a.csv.gz", "0123456789abcdef,5,5\n" * 1000, 3)
    assert sum(len(chunk["Width"]) for chunk in stream(path, SIZE_COLUMNS, {}, MEGABYTE)) == 3000
    monkeypatch.setattr(columns, "_SMALL", 0)
    with pytest.raises(InputError, match="expands to more than 100 times its size"):
        list(stream(path, SIZE_COLUMNS, {}, MEGABYTE))
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-20] + b"no deflate, no deflate")
    with pytest.raises(InputError, match="cannot be read"):
        list(stream(path, SIZE_COLUMNS, {}, MEGABYTE))


@pytest.mark.parametrize("text", ["1" * 5000, "[" + "9" * 400 + "]", "[" * 100_000, "[" * 900 + "1" + "]" * 900 + "x"])
def test_json_that_is_too_deep_or_has_huge_integers_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: is not valid JSON"):
        read_json(tmp_path / "a.json")
