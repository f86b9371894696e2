"""TIFF files with any number of channels.

PIL reads the TIFF files whose channels are colours; for others (multispectral, microscopy) it drops channels or fails,
so those are read with tifffile. What counts is the first image of the file.
"""

from __future__ import annotations

import math
from typing import BinaryIO

import numpy as np
import tifffile

from d3ssl.data.place import Place
from d3ssl.data.stored import StoredImage, to_eight_bits
from d3ssl.errors import InputError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, little- and big-endian."""
MAX_CHANNELS = 64
"""An unnamed axis longer than this is not taken for the channels."""
_TILE = 1 << 20
"""Pixels of a tile, or bytes of a packed one, that may be of any image: a small one is padded."""
_ORIENTATION = 274
_GREY, _RGB = 1, 2
_ALPHA = (1, 2)
_UNCOMPRESSED_OR_DEFLATE = (1, 8, 32946)


def open_tiff(path: Place, file: BinaryIO) -> StoredImage | None:
    """Read the header of a TIFF file; None if it is an ordinary colour or grey image, which PIL reads better.

    The channels are the samples of a pixel, or the pages if the file names them as channels or leaves them unnamed
    and there are at most 64. Alpha (an extra sample declared as such) is dropped; other extra samples are channels.

    Args:
        path: names the file in errors.
        file: its content, from the beginning; it must stay open until the pixels are decoded.

    Raises:
        InputError: a stack of slices or time points.
    """
    with tifffile.TiffFile(file) as tiff:
        page, series = tiff.pages.first, tiff.series[0]
        if len(series.pages) == 1 and _is_ordinary(page):
            return None
        axis = _channel_axis(path, series.axes, series.shape)
        alpha = bool(page.extrasamples) and int(page.extrasamples[-1]) in _ALPHA and len(series.pages) == 1
        tag = page.tags.get(_ORIENTATION)
        orientation = int(tag.value) if tag is not None and 1 <= int(tag.value) <= 8 else 1
        bits, channels = 8 * series.dtype.itemsize, 1 if axis is None else int(series.shape[axis])
        height, width = (side for place, side in enumerate(series.shape) if place != axis)
        _check_segments(series)

    def decode(_least_side: int) -> np.ndarray:
        file.seek(0)
        with tifffile.TiffFile(file) as again:
            array = again.series[0].asarray()
        if axis is not None:
            array = np.moveaxis(array, axis, -1)
            array = array[..., :-1] if alpha else array
        return to_eight_bits(array)

    said = {"height": int(height), "width": int(width), "orientation": orientation}
    return StoredImage(**said, bits=bits, channels=channels, decode=decode)


def _check_segments(series: tifffile.TiffPageSeries) -> None:
    """A strip or tile is unpacked whole, whatever the size of the image is said to be."""
    page = series.keyframe
    packed = max((count for own in series.pages if own is not None for count in own.databytecounts), default=0)
    if math.prod(page.chunks) > max(math.prod(page.shape), _TILE) or packed > 2 * page.nbytes + _TILE:
        raise ValueError("its strips or tiles are larger than the image")


def _is_ordinary(page: tifffile.TiffPage) -> bool:
    samples, extra = page.samplesperpixel, [int(kind) for kind in page.extrasamples]
    if page.photometric == _GREY:
        return samples == 1
    if page.photometric != _RGB:
        return True  # palette, CMYK, YCbCr …: colour spaces that PIL converts
    if page.dtype == np.uint16 and page.compression in _UNCOMPRESSED_OR_DEFLATE:
        return False  # PIL would keep only the high byte
    return samples == 3 or (samples == 4 and extra[:1] != [] and extra[0] in _ALPHA)


def _channel_axis(path: Place, axes: str, shape: tuple[int, ...]) -> int | None:
    """Which axis of an image series holds the channels; None if it has two axes only."""
    if len(shape) == 2:
        return None
    if len(shape) == 3:
        for name in "SC":
            if name in axes:
                return axes.index(name)
        unnamed = not set(axes) & set("ZT")
        place = 0 if shape[0] < shape[2] else 2
        if unnamed and shape[place] <= MAX_CHANNELS and shape[place] < shape[1]:
            return place
    problem = f"is a stack of images (axes {axes}, shape {shape}), not one image"
    raise InputError(problem, path=path, remedy="save every slice or time point as a file of its own.")
