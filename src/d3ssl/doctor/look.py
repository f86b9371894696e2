"""One image file, looked at once: read, hashed, decoded small."""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Bool, UInt8, UInt64
from PIL import Image

from d3ssl.data.images import TooManyPixels, inspect_image
from d3ssl.data.place import Place, open_place
from d3ssl.errors import InputError

GOOD, UNREADABLE, BOMB = 0, 1, 2
"""``status`` of a file: it can be read; it cannot; it is refused for the number of its pixels."""
FACTS = np.dtype(
    [
        ("status", np.uint8),
        ("channels", np.uint8),  # as decoded
        ("bits", np.uint8),  # of a channel, as stored
        ("orientation", np.uint8),  # of EXIF, 1..8
        ("blank", np.bool_),  # hardly any contrast: its perceptual hash says nothing
        ("height", np.int32),  # upright, px
        ("width", np.int32),
        ("bytes", np.int64),
        ("content", np.uint64, (2,)),  # first 128 bits of the file's SHA-256
        ("look", np.uint64, (2,)),  # perceptual hash
    ]
)
"""What is kept of an image: 53 bytes, so that a million images fit into 53 MB."""
_SHORT_SIDE = 64
"""Short side in px at which images are decoded: JPEG files at an eighth of their scale, if large."""
_CELLS = 9
_BLANK = 4.0
"""Range of grey levels over the 9×9 cells below which an image is blank."""


def look_at(path: Place) -> tuple[np.ndarray, str | None]:
    """The facts of a file (a scalar of ``FACTS``), and what is wrong with it; whole files are decoded, so that
    truncated ones are found."""
    facts = np.zeros((), dtype=FACTS)
    try:
        with open_place(path) as file:
            facts["content"] = np.frombuffer(hashlib.file_digest(file, "sha256").digest()[:16], dtype="<u8")
            facts["bytes"] = file.tell()
        image, stored = inspect_image(path, _SHORT_SIDE)
    except OSError as error:
        facts["status"] = UNREADABLE
        return facts, f"{path}: cannot be opened ({error.strerror})"
    except InputError as error:
        facts["status"] = BOMB if isinstance(error, TooManyPixels) else UNREADABLE
        return facts, str(error).splitlines()[0]
    facts["height"], facts["width"] = stored.upright_size
    facts["channels"], facts["bits"] = min(image.shape[2], 255), stored.bits
    facts["orientation"] = stored.orientation
    facts["look"], facts["blank"] = perceptual_hash(image)
    return facts, None


def perceptual_hash(image: UInt8[np.ndarray, "H W C"]) -> tuple[UInt64[np.ndarray, "2"], bool]:
    """128 bits that say of 8×8 cells whether the next one to the right, and the next one below, is brighter (dHash in
    both directions, after N. Krawetz, "Kind of Like That", 2013); and whether the image is blank.

    They survive another size, compression or brightness; not a crop, a rotation or a reflection.
    """
    grey = image.mean(axis=2).astype(np.float32)
    cells = np.asarray(Image.fromarray(grey).resize((_CELLS, _CELLS), Image.Resampling.BOX))
    right = cells[:-1, 1:] > cells[:-1, :-1]
    below = cells[1:, :-1] > cells[:-1, :-1]
    return _pack(np.stack([right.ravel(), below.ravel()])), bool(np.ptp(cells) < _BLANK)


def _pack(bits: Bool[np.ndarray, "2 64"]) -> UInt64[np.ndarray, "2"]:
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).ravel()
