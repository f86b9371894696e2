"""PNG files whose pixels are numbers: of classes, of objects, of segments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from PIL import Image

from d3ssl.data import png
from d3ssl.data.images import MAX_PIXELS
from d3ssl.errors import InputError
from d3ssl.files import open_file

NUMBER_MODES = ("P", "L", "1", "I;16", "I;16B", "I")
"""PIL's names for one number a pixel."""
_DEPTH_AT = 24
"""Byte of a PNG at which bit depth and colour type stand (PNG specification, IHDR)."""
_GREY = 0
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, RuntimeError, MemoryError)


def read_map(path: Path, modes: Sequence[str] = NUMBER_MODES) -> Integer[np.ndarray, "H W ..."]:
    """The stored values of a PNG: of a palette the indices, not the colours.

    Args:
        modes: the kinds of picture that are permitted (PIL's names).

    Raises:
        InputError: no such file, not a PNG, damaged, or of another kind.
    """
    try:
        with open_file(path) as file, Image.open(file, formats=("PNG",)) as image:
            mode = image.mode
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}×{image.height} px are too many")
            if mode in modes:
                place = file.tell()
                png.check_chunks(file)
                file.seek(_DEPTH_AT)
                depth, kind = file.read(2)
                file.seek(place)  # PIL reads on from where its header ended
                values = np.array(image)
                return _unstretched(values, depth) if kind == _GREY else values
    except FileNotFoundError as error:
        raise InputError(
            "no such file", path=path, remedy="add the map of this image, or leave the image out."
        ) from error
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).replace(str(path), "the file").split()) or type(error).__name__
        problem = f"cannot be read as a map of classes ({reason})"
        raise InputError(problem, path=path, remedy="a map is a whole PNG; make it again.") from error
    kind = "a map of class numbers" if "P" in modes else "a map of segment numbers in RGB"
    remedy = "save a palette or grey PNG of class numbers." if "P" in modes else "save an 8-bit RGB PNG."
    raise InputError(f"is a PNG of PIL's mode {mode}, not {kind}", path=path, remedy=remedy)


def _unstretched(values: np.ndarray, depth: int) -> Integer[np.ndarray, "H W"]:
    """PIL stretches grey of 1, 2 and 4 bits to the whole range (1 bit: to False, True)."""
    if values.dtype == bool:
        return values.astype(np.uint8)
    return values // (255 // (2**depth - 1)) if depth < 8 else values
