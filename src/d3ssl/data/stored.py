"""An image file whose header has been read and whose pixels have not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

_PIECE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """What the header says, and how to get the pixels."""

    height: int
    """As stored, before the orientation is applied, px."""
    width: int
    """As stored, px."""
    orientation: int = 1
    """EXIF orientation 1..8: how the stored pixels are to be turned to stand upright."""
    bits: int = 8
    """Bits of a channel as stored; 16 become 8 when decoded."""
    channels: int = 1
    """As stored, where there may be many; kinds of file that have four at most do not say it."""
    decode: Callable[[int], UInt8[np.ndarray, "H W C"]]
    """Decodes the pixels as stored. The argument is the least height and width wanted: a decoder that can decode at a
    smaller scale cheaply may do so; 0 asks for the full size."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width after the orientation is applied, px."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)

    @property
    def bytes(self) -> int:
        """Of the pixels, as far as ``channels`` says."""
        return self.height * self.width * self.channels * -(-self.bits // 8)


def to_eight_bits(array: np.ndarray) -> UInt8[np.ndarray, "H W C"]:
    """Bring (H, W) or (H, W, C) pixels of 8 or 16 bits to (H, W, C) of 8 bits.

    0..2ⁿ − 1 becomes 0..255, rounded, where n is 16, or fewer for an image whose largest value takes fewer bits (8 at
    least): cameras of 10, 12 or 14 bits leave the high ones empty, and would be nearly black otherwise.

    Raises:
        ValueError: another type or shape.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"an array of shape {array.shape} is no image; (H, W) or (H, W, C) is")
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return _scaled(np.ascontiguousarray(array))
    raise ValueError(f"pixels of type {array.dtype}; save them as 8-bit or 16-bit unsigned integers")


def _scaled(array: np.ndarray) -> UInt8[np.ndarray, "H W C"]:
    """Piece by piece: the products take twice the image's memory."""
    most = 2 ** max(8, int(array.max()).bit_length()) - 1
    found = np.empty(array.shape, dtype=np.uint8)
    flat, filled = array.reshape(-1), found.reshape(-1)
    for start in range(0, len(flat), _PIECE):
        piece = slice(start, start + _PIECE)
        filled[piece] = (flat[piece].astype(np.uint32) * 255 + most // 2) // most
    return found


def upright(array: UInt8[np.ndarray, "H W C"], orientation: int) -> UInt8[np.ndarray, "H2 W2 C"]:
    """Turn stored pixels upright. ``orientation`` is the value of EXIF tag 0x0112 (Exif 2.32, section 4.6.4)."""
    if orientation >= 5:  # 5..8: rows and columns are exchanged
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
