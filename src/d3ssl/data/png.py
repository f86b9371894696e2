"""Checks that a PNG file is whole: PIL shows the readable part of a damaged one without a word."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

_SIGNATURE_BYTES = 8
_DEPTH_AT = 24
"""Byte at which the bit depth stands, and then the colour type (PNG specification, IHDR)."""


def bit_depth(file: BinaryIO) -> int:
    """Bits of a channel or of a palette's index: 1, 2, 4, 8 or 16."""
    file.seek(_DEPTH_AT)
    return file.read(1)[0]


def check_chunks(file: BinaryIO) -> None:
    """Walk through all chunks up to IEND and compare their checksums (PNG specification, section 5).

    Raises:
        ValueError: a chunk is cut off or damaged; says at which byte.
    """
    file.seek(0)
    data = memoryview(file.read())
    place = _SIGNATURE_BYTES
    while True:
        if place + 12 > len(data):
            raise ValueError(f"the file ends at byte {len(data)}, before its last chunk")
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            raise ValueError(f"the file ends at byte {len(data)}, within the chunk at byte {place}")
        (checksum,) = struct.unpack_from(">I", data, end)
        if zlib.crc32(data[place + 4 : end]) != checksum:
            raise ValueError(f"the chunk at byte {place} is damaged (checksum)")
        if data[place + 4 : place + 8] == b"IEND":
            return
        place = end + 4
