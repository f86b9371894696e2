"""Every kind of file is read to what it holds; what is damaged or too large is an error that names the file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage import data as photographs

from d3ssl.data import images as images_module
from d3ssl.data.images import IMAGE_SUFFIXES, image_size, read_canvas, read_image, read_reduced, reduced_size
from d3ssl.data.stored import to_eight_bits, upright
from d3ssl.errors import InputError


def random_pixels(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def save(folder: Path, name: str, array: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(folder / name, **options)
    return folder / name


def photograph() -> np.ndarray:
    return photographs.astronaut()[:300, :400]


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tif"])
def test_lossless_colour_files_are_read_exactly(tmp_path: Path, name: str) -> None:
    pixels = random_pixels(20, 30, 3)
    path = save(tmp_path, name, pixels)
    np.testing.assert_array_equal(read_image(path), pixels)
    assert image_size(path) == (20, 30)


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.tif"])
def test_grey_files_have_one_channel(tmp_path: Path, name: str) -> None:
    pixels = random_pixels(20, 30)
    assert np.array_equal(read_image(save(tmp_path, name, pixels)), pixels[..., None])


@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.tif", "a.npy"])
def test_16_bit_grey_is_divided_by_257_and_rounded(tmp_path: Path, name: str) -> None:
    pixels = random_pixels(20, 30, dtype=np.uint16)
    path = tmp_path / name
    np.save(path, pixels) if name == "a.npy" else save(tmp_path, name, pixels)
    expected = np.rint(pixels / 257.0).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path)[..., 0], expected)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("name", ["a.png", "a.pgm", "a.tif", "five.tif", "a.npy"])
def test_a_camera_of_fewer_bits_keeps_its_range(tmp_path: Path, name: str, bits: int) -> None:
    most = 2**bits - 1
    pixels = np.random.default_rng(bits).integers(0, most + 1, (20, 30), dtype=np.uint16)
    pixels[3, 4] = most
    path = tmp_path / name
    if name == "five.tif":
        tifffile.imwrite(path, np.stack([pixels] * 5, axis=2), photometric="minisblack", planarconfig="contig")
    else:
        np.save(path, pixels) if name == "a.npy" else save(tmp_path, name, pixels)
    np.testing.assert_array_equal(read_image(path)[..., 0], np.rint(pixels * (255 / most)).astype(np.uint8))


def test_16_bit_colour(tmp_path: Path) -> None:
    pixels = random_pixels(20, 30, 3, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.rint(pixels / 257.0).astype(np.uint8))
    # A 16-bit colour PNG, written by hand as PIL cannot.
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    png = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    difference = read_image(tmp_path / "a.png") - pixels / 257.0
    assert np.abs(difference).max() <= 1


def test_palettes_alpha_and_other_modes_become_grey_or_rgb(tmp_path: Path) -> None:
    rgba = random_pixels(20, 30, 4)
    np.testing.assert_array_equal(read_image(save(tmp_path, "a.png", rgba)), rgba[..., :3])
    np.testing.assert_array_equal(read_image(save(tmp_path, "la.png", rgba[..., :2])), rgba[..., :1])
    few = (np.arange(600).reshape(20, 30) % 7 * 30).astype(np.uint8)
    colours = np.stack([few, 255 - few, few // 2], axis=2)
    np.testing.assert_array_equal(read_image(save(tmp_path, "p.png", colours, "P", optimize=True)).shape, (20, 30, 3))
    palette = Image.fromarray(few).quantize(8).convert("P")
    palette.save(tmp_path / "q.gif")
    assert read_image(tmp_path / "q.gif").shape == (20, 30, 3)
    black_and_white = few > 90
    Image.fromarray(black_and_white).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[..., 0], black_and_white * 255)
    cmyk = save(tmp_path, "c.jpg", photograph(), "CMYK", quality=95)
    assert np.abs(read_image(cmyk).astype(float) - photograph()).mean() < 6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 12])
def test_npy_of_any_number_of_channels(tmp_path: Path, channels: int, dtype: type) -> None:
    pixels = random_pixels(20, 30, channels, dtype=dtype)
    np.save(tmp_path / "a.npy", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy"), to_eight_bits(pixels))
    assert image_size(tmp_path / "a.npy") == (20, 30)


TIFF_LAYOUTS = {
    "samples of a pixel": {"photometric": "minisblack", "planarconfig": "contig"},
    "planes": {"photometric": "minisblack", "planarconfig": "separate"},
    "deflated": {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib", "predictor": True},
    "unnamed last axis": {},
    "unnamed first axis": {},
    "ImageJ": {"imagej": True, "metadata": {"axes": "CYX"}},
    "OME": {"ome": True, "metadata": {"axes": "CYX"}},
    "big-endian": {"photometric": "minisblack", "planarconfig": "contig", "byteorder": ">"},
    "BigTIFF": {"photometric": "minisblack", "planarconfig": "contig", "bigtiff": True},
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", TIFF_LAYOUTS)
def test_tiff_of_five_channels_in_every_layout(tmp_path: Path, layout: str, dtype: type) -> None:
    pixels = random_pixels(20, 30, 5, dtype=dtype)
    first = layout in ("planes", "unnamed first axis", "ImageJ", "OME")
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(pixels, 2, 0) if first else pixels, **TIFF_LAYOUTS[layout])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), to_eight_bits(pixels))
    assert image_size(tmp_path / "a.tif") == (20, 30)


def test_tiff_channels_that_pil_would_drop_are_kept_and_alpha_is_dropped(tmp_path: Path) -> None:
    pixels = random_pixels(20, 30, 5)
    tifffile.imwrite(tmp_path / "extra.tif", pixels, photometric="rgb", extrasamples=(0, 0))
    np.testing.assert_array_equal(read_image(tmp_path / "extra.tif"), pixels)
    tifffile.imwrite(tmp_path / "four.tif", pixels[..., :4], photometric="rgb", extrasamples=(0,))
    np.testing.assert_array_equal(read_image(tmp_path / "four.tif"), pixels[..., :4])
    tifffile.imwrite(tmp_path / "rgba.tif", pixels[..., :4], photometric="rgb", extrasamples=(2,))
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.tif"), pixels[..., :3])
    deep = random_pixels(20, 30, 4, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "rgba16.tif", deep, photometric="rgb", extrasamples=(2,))
    np.testing.assert_array_equal(read_image(tmp_path / "rgba16.tif"), to_eight_bits(deep[..., :3]))
    tifffile.imwrite(
        tmp_path / "la.tif", pixels[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=(2,)
    )
    np.testing.assert_array_equal(read_image(tmp_path / "la.tif"), pixels[..., :1])


def test_a_stack_is_no_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "z.tif", random_pixels(4, 20, 30), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match=r"z\.tif: is a stack .*\n.*every slice"):
        read_image(tmp_path / "z.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_agrees_with_pil(orientation: int) -> None:
    image = Image.fromarray(random_pixels(4, 6, 3))
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(upright(np.asarray(image), orientation), expected)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 0, 9])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "five.tif"])
def test_orientation_is_applied_to_size_image_and_canvas(tmp_path: Path, name: str, orientation: int) -> None:
    stored = np.zeros((32, 48, 3), dtype=np.uint8)
    stored[:16, :24, 0] = 255  # a red quarter at the upper left, in the stored frame
    stored[16:, 24:, 1] = 200
    if name == "five.tif":
        stored = np.concatenate([stored, stored[..., :2]], axis=2)
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / name, stored, photometric="minisblack", planarconfig="contig", extratags=tags)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options: dict[str, Any] = (
            {"quality": 98, "subsampling": 0} if name == "a.jpg" else {"lossless": True} if name == "a.webp" else {}
        )
        save(tmp_path, name, stored, exif=exif, **options)
    expected = upright(stored, orientation if 1 <= orientation <= 8 else 1)
    path = tmp_path / name
    assert image_size(path) == expected.shape[:2]
    found = read_image(path)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 2
    canvas, size = read_canvas(path, 16, stored.shape[2])
    assert size == expected.shape[:2]
    quarters = expected.reshape(2, expected.shape[0] // 2, 2, expected.shape[1] // 2, -1).mean(axis=(1, 3))
    assert np.abs(canvas[4::8, 4::8].astype(float) - quarters).max() < 12


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("size", [16, 64, 150, 224, 256, 512])
def test_canvas_agrees_with_a_full_decode_and_an_antialiased_resize(tmp_path: Path, name: str, size: int) -> None:
    options: dict[str, Any] = {"quality": 92} if name == "a.jpg" else {}
    path = save(tmp_path, name, photograph(), **options)
    canvas, original = read_canvas(path, size)
    assert original == (300, 400)
    assert canvas.shape == (size, size, 3)
    assert canvas.dtype == np.uint8
    assert canvas.flags.writeable
    expected = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    difference = np.abs(canvas.astype(float) - np.asarray(expected))
    # Scaled JPEG decoding is another, slightly sharper antialiasing filter; it must not move anything.
    assert difference.mean() <= (0 if name == "a.png" else 3.5)
    shift = np.abs(canvas[:, 1:].astype(float) - np.asarray(expected)[:, :-1]).mean()
    assert difference.mean() < shift / 2


@pytest.mark.parametrize("size", [100, 128, 224])
def test_the_canvas_is_not_moved_by_scaled_decoding(tmp_path: Path, size: int) -> None:
    pixels = np.zeros((480, 640, 3), dtype=np.uint8)
    pixels[120:360, 160:480] = 255
    canvas, _ = read_canvas(save(tmp_path, "a.jpg", pixels, quality=95), size)
    weight = canvas[..., 0].astype(float)
    edge_x = (
        weight[size // 2].sum() / 255,
        (weight[size // 2] * (np.arange(size) + 0.5)).sum() / weight[size // 2].sum(),
    )
    assert edge_x[0] == pytest.approx(size / 2, abs=0.3)
    assert edge_x[1] == pytest.approx(size / 2, abs=0.3)


@pytest.mark.parametrize(("orientation", "size"), [(1, (300, 400)), (6, (400, 300))])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize(
    ("short_side", "reduced"), [(96, (96, 128)), (299, (299, 399)), (300, (300, 400)), (999, (300, 400))]
)
def test_reduced_images_keep_their_aspect(
    tmp_path: Path, name: str, orientation: int, size: tuple[int, int], short_side: int, reduced: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, name, photograph(), exif=exif)
    found, original = read_reduced(path, short_side)
    assert original == size
    wanted = reduced if orientation == 1 else reduced[::-1]
    assert found.shape == (*wanted, 3)
    assert reduced_size(size, short_side) == wanted
    expected = Image.fromarray(read_image(path)).resize((wanted[1], wanted[0]), Image.Resampling.BILINEAR)
    assert np.abs(found.astype(float) - np.asarray(expected)).mean() <= (0.6 if name == "a.png" else 3.5)


def test_reduced_images_keep_their_channels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", random_pixels(60, 40, 5))
    assert read_reduced(tmp_path / "a.npy", 20)[0].shape == (30, 20, 5)
    np.testing.assert_array_equal(read_reduced(tmp_path / "a.npy", 40)[0], random_pixels(60, 40, 5))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.npy", "a.tif"])
def test_what_is_read_may_be_written_to(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / name, photograph()) if name == "a.npy" else save(tmp_path, name, photograph())
    for array in (read_image(tmp_path / name), read_canvas(tmp_path / name, 8)[0], read_reduced(tmp_path / name, 8)[0]):
        array[0] = 0


def test_canvas_channels(tmp_path: Path) -> None:
    grey = save(tmp_path, "g.jpg", photograph()[..., 0])
    canvas, _ = read_canvas(grey, 32)
    assert canvas.shape == (32, 32, 3)
    assert np.array_equal(canvas[..., 0], canvas[..., 2])
    assert read_canvas(grey, 32, channels=1)[0].shape == (32, 32, 1)
    five = np.stack([photograph()[..., index % 3] for index in range(5)], axis=2)
    np.save(tmp_path / "five.npy", five)
    canvas, size = read_canvas(tmp_path / "five.npy", 32, channels=5)
    assert size == (300, 400)
    plane = Image.fromarray(np.ascontiguousarray(five[..., 4])).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(canvas[..., 4], np.asarray(plane))
    for path, channels in ((tmp_path / "five.npy", 3), (grey, 5)):
        with pytest.raises(InputError, match="channels where"):
            read_canvas(path, 32, channels=channels)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("name", ["a.jpg", "p.jpg", "a.png", "a.tif", "five.tif", "a.npy", "a.webp", "a.bmp"])
def test_truncated_files_are_errors(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, photograph())
    elif name == "five.tif":
        tifffile.imwrite(path, random_pixels(40, 50, 5), photometric="minisblack", planarconfig="contig")
    else:
        options: dict[str, Any] = {"progressive": True} if name == "p.jpg" else {}
        save(tmp_path, name, photograph(), **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    for read in (read_image, lambda file: read_canvas(file, 64, 5 if name == "five.tif" else 3)):
        with pytest.raises(InputError, match=r"(?s)cannot be read as an image.*What to do") as caught:
            read(path)
        assert str(path) in str(caught.value)


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_give_an_image_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int, length: int, kind: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    stream = io.BytesIO()
    Image.fromarray(photograph()[::8, ::8]).save(stream, ("JPEG", "PNG", "TIFF", "WEBP")[kind])
    damaged = bytearray(stream.getvalue())
    rng = np.random.default_rng(seed)
    start = int(rng.integers(0, len(damaged) - length))
    damaged[start : start + length] = rng.bytes(length)
    path.write_bytes(damaged)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's and tifffile's remarks on broken metadata
        try:
            array = read_image(path, max_pixels=10**6)
        except InputError:
            return
    assert array.dtype == np.uint8


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"not an image at all", b"\xff\xd8\xff", b"II*\0", b"\x93NUMPY\x01\0"]
)
def test_what_is_no_image_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size, lambda file: read_canvas(file, 8)):
        with pytest.raises(InputError, match=r"a\.jpg: cannot be read as an image"):
            read(path)


def test_missing_files_and_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="cannot be opened"):
        image_size(tmp_path)


@pytest.mark.parametrize("array", [np.zeros((4, 5), np.float32), np.zeros((4, 5), np.int32), np.zeros(7, np.uint8)])
def test_npy_that_is_no_image(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=r"save them as 8-bit|is no image"):
        read_image(tmp_path / "a.npy")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy"):
        read_image(tmp_path / "a.npy")


def bomb(folder: Path, name: str, side: int) -> Path:
    """A tiny file whose header promises side × side pixels."""
    path = folder / name
    if name.endswith(".png"):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 100) + b"IDAT" + bytes(104))
    elif name.endswith(".jpg"):
        data = bytearray(simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8)))
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", side, side)
        path.write_bytes(data)
    else:
        samples = 5 if name == "five.tif" else 3
        tifffile.imwrite(path, np.zeros((16, 16, samples), np.uint8), photometric="rgb")
        with tifffile.TiffFile(path, mode="r+") as tiff:
            tiff.pages.first.tags[256].overwrite(side)  # type: ignore[union-attr]
            tiff.pages.first.tags[257].overwrite(side)  # type: ignore[union-attr]
    return path


@pytest.mark.parametrize("side", [10_000, 13_000, 30_000])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "five.tif"])
def test_bombs_are_refused_by_their_header(
    tmp_path: Path, name: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(images_module, "_decode", refuse)
    monkeypatch.setattr(Image.Image, "load", refuse)
    path = bomb(tmp_path, name, side)
    with pytest.raises(InputError, match=r"too many pixels \(.*\n.*shrink"):
        read_image(path, max_pixels=50_000_000)
    if side > (10_300 if name == "five.tif" else 13_400):  # above the limit that holds without saying so
        for read in (image_size, read_image, lambda file: read_canvas(file, 8)):
            with pytest.raises(InputError, match="too many pixels"):
                read(path)
    else:
        assert image_size(path) == (side, side)


def test_suffixes_are_lower_case_with_a_dot() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


def test_a_png_with_a_zeroed_middle_is_damaged(tmp_path: Path) -> None:
    """PIL alone shows the part before the hole and black behind it."""
    random = np.random.default_rng(0)
    path = tmp_path / "a.png"
    Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    whole = read_image(path)
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(data[:half] + b"\0" * 50 + data[half + 50 :])
    with pytest.raises(InputError, match="damaged"):
        read_image(path)
    path.write_bytes(data[:half])
    with pytest.raises(InputError, match="ends at byte"):
        read_canvas(path, 32)
    path.write_bytes(data)
    assert np.array_equal(read_image(path), whole)
