"""Which kinds of pictures are read through PIL, and how they are opened: no other decoder of PIL's is ever asked.

PIL knows formats that run programs: what begins like PostScript starts Ghostscript, whatever the file is called.
"""

from __future__ import annotations

import struct
import tokenize
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import tifffile
from PIL import Image, UnidentifiedImageError

PIL_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is read through PIL, by PIL's names: PPM is PGM and PNM too. ``.npy`` is read through NumPy."""
# What decoders raise on damaged data. The list is as long as it is because they check little themselves.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    tokenize.TokenError,  # of NumPy, for the header of a .npy file
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    tifffile.TiffFileError,
)


def open_picture(file: str | Path | BinaryIO | BytesIO, formats: tuple[str, ...] = PIL_FORMATS) -> Image.Image:
    """Open a picture of one of the formats; pixels are read later, as by ``Image.open``.

    Raises:
        UnidentifiedImageError: it is of another kind, or damaged at the beginning.
    """
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        raise UnidentifiedImageError(f"it is not whole, or of no kind that is read: {', '.join(formats)}") from error
