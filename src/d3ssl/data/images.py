"""Reading image files: the only work that the CPU does for an image is one decode and one resize."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from d3ssl.data import png, tiff
from d3ssl.data.pil_formats import DAMAGE, PIL_FORMATS, open_picture
from d3ssl.data.place import Place, as_place, open_place
from d3ssl.data.stored import StoredImage, to_eight_bits, upright
from d3ssl.errors import D3sslError, InputError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".npy")
)
"""Lower-case suffixes of the files that count as images in a folder. What a file is, its content decides."""
MAX_PIXELS = 178_956_970
"""Height times width above which a file is refused unseen: where PIL refuses too (0.5 GB as RGB)."""
BYTES_PER_PIXEL = 3
"""For files of many channels or of 16 bits, the limit is of the bytes that so many pixels have as 8-bit RGB."""
_NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_ORIENTATION = 0x0112
_GREY_MODES = ("1", "L", "LA")


class TooManyPixels(InputError):
    """An image is refused unseen because of its size."""


def image_size(path: str | Place) -> tuple[int, int]:
    """Height and width of the upright image, px, from the file's header only.

    Raises:
        InputError: no such file, not an image, or more than ``MAX_PIXELS`` pixels.
    """
    with _opened(as_place(path), MAX_PIXELS) as stored:
        return stored.upright_size


def read_image(path: str | Place, *, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "H W C"]:
    """Read a whole image: 0..255, upright (EXIF orientation applied), one or more channels.

    Grey gives one channel; palettes, CMYK and the like become RGB; alpha is dropped. 16 bits become 8 by the
    bits that the image uses, see ``to_eight_bits`` (16-bit colour PNGs: the high byte is kept). TIFF and NumPy files
    (``.npy`` of shape (H, W) or (H, W, C), uint8 or uint16) may have any number of channels. Animations: the
    first frame.

    Args:
        path: the file; as everywhere here, of its own or inside a tar shard.
        max_pixels: refuse files of more pixels after reading the header only. PIL has a limit of its own, the default.

    Raises:
        InputError: no such file, not an image, damaged, truncated or too large.
    """
    path = as_place(path)
    with _opened(path, max_pixels) as stored:
        return upright(_decode(path, stored, 0), stored.orientation)


def read_canvas(path: str | Place, size: int, channels: int = 3) -> tuple[UInt8[np.ndarray, "S S C"], tuple[int, int]]:
    """Read an image and stretch it to a square canvas: one decode, one resize (bilinear, antialiased).

    JPEG files are decoded at the smallest scale of n/8 that is no smaller than the canvas.

    Args:
        path: the file.
        size: side of the canvas, px.
        channels: channels of the canvas; grey images are repeated to make three.

    Returns:
        The canvas (size, size, channels), 0..255, and the upright image's original height and width, px.

    Raises:
        InputError: as ``read_image``; or the image has another number of channels.
    """
    path = as_place(path)
    with _opened(path, MAX_PIXELS) as stored:
        array = _fit_channels(path, _decode(path, stored, size), channels)
        return upright(_resize(array, (size, size)), stored.orientation), stored.upright_size


def reduced_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Height and width, px, of an image shrunk to a short side with its aspect kept; small images stay as they are."""
    if min(size) <= short_side:
        return size
    height, width = (max(1, round(side * short_side / min(size))) for side in size)
    return height, width


def read_reduced(path: str | Place, short_side: int) -> tuple[UInt8[np.ndarray, "H W C"], tuple[int, int]]:
    """Read an image and shrink it to a short side, its aspect kept: one decode, one resize (bilinear, antialiased).

    Returns:
        The image, of ``reduced_size`` and with the file's channels, and the upright image's original height and width,
        px.

    Raises:
        InputError: as ``read_image``.
    """
    image, stored = inspect_image(path, short_side)
    return image, stored.upright_size


def inspect_image(path: str | Place, short_side: int) -> tuple[UInt8[np.ndarray, "H W C"], StoredImage]:
    """As ``read_reduced``, with all that the header says (the pixels cannot be decoded from it again).

    Raises:
        TooManyPixels: more than ``MAX_PIXELS`` pixels.
        InputError: as ``read_image``.
    """
    path = as_place(path)
    with _opened(path, MAX_PIXELS) as stored:
        size = stored.upright_size
        height, width = reduced_size(size, short_side)
        array = _decode(path, stored, short_side if (height, width) != size else 0)
        turned = (height, width) if size == (stored.height, stored.width) else (width, height)
        return upright(_resize(array, turned), stored.orientation), stored


@contextmanager
def _opened(path: Place, max_pixels: int) -> Iterator[StoredImage]:
    try:
        file = open_place(path)  # closed below; only the opening is tried here
    except FileNotFoundError as error:
        raise InputError("no such file", path=path, remedy="check the path.") from error
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror})", path=path, remedy="check the path.") from error
    with file:
        try:
            stored = _read_header(path, file)
        except DAMAGE as error:
            raise _damaged(path, error) from error
        except Image.DecompressionBombError as error:
            raise _too_large(path, "by its header", MAX_PIXELS) from error
        if stored.height * stored.width > max_pixels or stored.bytes > BYTES_PER_PIXEL * max_pixels:
            found = f"{stored.width}×{stored.height}"
            found += f" of {stored.channels} channels" if stored.channels > BYTES_PER_PIXEL else ""
            raise _too_large(path, found, max_pixels)
        yield stored


def _decode(path: Place, stored: StoredImage, least_side: int) -> UInt8[np.ndarray, "H W C"]:
    try:
        return stored.decode(least_side)
    except DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: Place, error: Exception) -> D3sslError:
    reason = " ".join(str(error).replace(str(path), "the file").split()) or type(error).__name__
    remedy = "the file is damaged, incomplete or of an unknown kind; replace it or take it away."
    if isinstance(error, UnidentifiedImageError):
        remedy = f"replace it, convert it to one of {', '.join(PIL_FORMATS)} or .npy, or take it away."
    return InputError(f"cannot be read as an image ({reason})", path=path, remedy=remedy)


def _too_large(path: Place, found: str, limit: int) -> D3sslError:
    remedy = "shrink the image, cut it into tiles, or take it away."
    return TooManyPixels(f"has too many pixels ({found}; the limit is {limit:,})", path=path, remedy=remedy)


def _read_header(path: Place, file: BinaryIO) -> StoredImage:
    magic = file.read(8)
    file.seek(0)
    if magic[: len(_NPY_MAGIC)] == _NPY_MAGIC:
        return _open_npy(file)
    if magic[:4] in tiff.MAGIC:
        stored = tiff.open_tiff(path, file)
        if stored is not None:
            return stored
        file.seek(0)
    with warnings.catch_warnings():
        # PIL warns from half of its limit on; ours decides.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return _open_with_pil(file)


def _open_npy(file: BinaryIO) -> StoredImage:
    version = np.lib.format.read_magic(file)
    if version not in _NPY_HEADERS:  # (3, 0) names the columns of tables in Unicode
        raise ValueError(f"NumPy's format {version} is not one of arrays of numbers")
    shape, _, dtype = _NPY_HEADERS[version](file)
    if len(shape) not in (2, 3):
        raise ValueError(f"an array of shape {shape} is no image; (H, W) or (H, W, C) is")
    begin = file.tell()
    if file.seek(0, os.SEEK_END) < begin + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the file ends at byte {file.tell()}, within the pixels")

    def decode(_least_side: int) -> UInt8[np.ndarray, "H W C"]:
        file.seek(0)
        return to_eight_bits(np.load(file, allow_pickle=False))

    channels = math.prod(shape[2:])
    return StoredImage(height=shape[0], width=shape[1], bits=8 * dtype.itemsize, channels=channels, decode=decode)


def _open_with_pil(file: BinaryIO) -> StoredImage:
    image = open_picture(file)
    width, height = image.size
    if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        orientation = _orientation(image)
        return StoredImage(
            height=height,
            width=width,
            orientation=orientation,
            decode=lambda side: _decode_jpeg(file, image.mode, side),
        )
    # PIL turns TIFF files upright by itself. Looking for EXIF behind a PNG's pixels would mean decoding them.
    blind = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
    orientation = 1 if blind else _orientation(image)
    said = {"height": height, "width": width, "orientation": orientation, "bits": _bits(file, image)}
    if image.format == "PNG":
        return StoredImage(**said, decode=lambda _: _decode_png(file, image))
    return StoredImage(**said, decode=lambda _: _pixels(image))


def _bits(file: BinaryIO, image: Image.Image) -> int:
    """Of a channel; PIL's modes do not tell 16-bit colour from 8-bit."""
    if image.format == "PNG":
        place = file.tell()
        depth = png.bit_depth(file)
        file.seek(place)
        return depth
    return 1 if image.mode == "1" else 16 if image.mode.startswith("I") else 8


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decode_jpeg(file: BinaryIO, mode: str, least_side: int) -> UInt8[np.ndarray, "H W C"]:
    file.seek(0)
    colours = "GRAY" if mode == "L" else "RGB"
    return simplejpeg.decode_jpeg(file.read(), colours, min_height=least_side, min_width=least_side, strict=True)


def _decode_png(file: BinaryIO, image: Image.Image) -> UInt8[np.ndarray, "H W C"]:
    place = file.tell()
    png.check_chunks(file)
    file.seek(place)  # PIL reads on from where its header ended
    return _pixels(image)


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "H W C"]:
    mode = image.mode
    if mode.startswith("I;16"):
        return to_eight_bits(np.asarray(image))
    if mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits that PIL keeps in 32
        return to_eight_bits(np.asarray(image).astype(np.uint16))
    if mode in ("I", "F"):
        raise ValueError("32-bit pixels; save them as 8-bit or 16-bit unsigned integers")
    return to_eight_bits(np.array(image.convert("L" if mode in _GREY_MODES else "RGB")))


def _fit_channels(path: Place, array: UInt8[np.ndarray, "H W C"], channels: int) -> UInt8[np.ndarray, "H W C2"]:
    found = array.shape[2]
    if found == channels:
        return array
    if found == 1 and channels == 3:
        return np.repeat(array, 3, axis=2)
    problem = f"has {found} channels where {channels} are wanted"
    remedy = f"set the number of channels to {found} (--canvas.channels where there is one), or convert the images."
    raise InputError(problem, path=path, remedy=remedy)


def _resize(array: UInt8[np.ndarray, "H W C"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w C"]:
    """To another height and width."""
    if array.shape[:2] == size:
        return array
    if array.shape[2] == 3:
        return np.array(_stretch(Image.fromarray(array), size))
    planes = [_stretch(Image.fromarray(np.ascontiguousarray(plane)), size) for plane in np.moveaxis(array, 2, 0)]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def _stretch(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
