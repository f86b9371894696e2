"""Fetching one image over HTTP: checked before it is kept, and with patience that grows between attempts."""

from __future__ import annotations

import hashlib
import http.client
import io
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import simplejpeg
from PIL import Image

from d3ssl.data.images import MAX_PIXELS
from d3ssl.seeds import numpy_generator

MAX_BYTES = 64 * 2**20
"""A longer answer is refused: images of Open Images with a longest side of 1024 px have less than 2 MB."""
_PERMANENT = frozenset((400, 401, 403, 404, 405, 410, 451))
"""HTTP states that another attempt does not change."""
_MAX_WAIT_S = 60.0
_PIECE = 2**18


class FetchError(Exception):
    """An attempt failed. ``again``: whether another may succeed; ``wait_s``: how long the server asks to wait."""

    def __init__(self, reason: str, *, again: bool, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.again, self.wait_s = again, wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How an image is asked for."""

    timeout_s: float
    attempts: int
    backoff_s: float
    user_agent: str


def fetch(url: str, patience: Patience, wanted_sha256: str | None, stopped: threading.Event) -> bytes:
    """The bytes of a JPEG file, whole: of the announced length, of the wanted checksum, and it decodes.

    Between attempts it waits backoff·2^k seconds, a random half of it less (so that many do not come back at once), or
    as long as the server asks; a minute at most.

    Raises:
        FetchError: no attempt succeeded; says why the last one failed. ``stopped`` was set.
    """
    for attempt in range(patience.attempts):
        if stopped.is_set():
            raise FetchError("not asked for: the download was stopped", again=True)
        try:
            data = _ask(url, patience)
            if wanted_sha256 is not None and hashlib.sha256(data).hexdigest() != wanted_sha256:
                raise FetchError("its checksum is another than the wanted one", again=True)
            check_jpeg(data)
            return data
        except FetchError as error:
            if not error.again or attempt + 1 == patience.attempts:
                raise
            jitter = 1 - 0.5 * numpy_generator("download", url, attempt).random()
            stopped.wait(min(_MAX_WAIT_S, max(error.wait_s, patience.backoff_s * 2**attempt * jitter)))
    raise FetchError("no attempt was made", again=True)


def _ask(url: str, patience: Patience) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": patience.user_agent})
    deadline = time.monotonic() + 10 * patience.timeout_s  # a server that sends a byte now and then is given up too
    try:
        with urllib.request.urlopen(request, timeout=patience.timeout_s) as answer:
            pieces, found = [], 0
            while piece := answer.read1(_PIECE):
                pieces.append(piece)
                found += len(piece)
                if found > MAX_BYTES:
                    raise FetchError(f"has more than {MAX_BYTES} bytes", again=False)
                if time.monotonic() > deadline:
                    raise FetchError(f"took longer than {10 * patience.timeout_s:g} s", again=True)
            announced = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        with error:
            wait = error.headers.get("Retry-After", "") if error.headers else ""
        wait_s = float(wait) if wait.isdigit() else 0.0
        again = error.code not in _PERMANENT
        raise FetchError(f"the server answers {error.code} {error.reason}", again=again, wait_s=wait_s) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise FetchError(f"the connection failed ({getattr(error, 'reason', None) or error!r})", again=True) from error
    if announced is not None and announced.isdigit() and int(announced) != found:
        raise FetchError(f"{found} of {announced} bytes arrived", again=True)
    return b"".join(pieces)


def check_jpeg(data: bytes) -> tuple[int, int]:
    """Height and width, px, of the upright image, after decoding all of it (at an eighth of its size).

    Raises:
        FetchError: not a whole JPEG file, or one of too many pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            mode = image.mode
            if width * height > MAX_PIXELS:
                raise FetchError(f"has {width}×{height} pixels, more than {MAX_PIXELS:,}", again=False)
            if mode == "CMYK":  # simplejpeg has no such
                image.load()
        if mode != "CMYK":
            simplejpeg.decode_jpeg(data, "GRAY" if mode == "L" else "RGB", min_height=1, min_width=1, strict=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FetchError(f"is no whole JPEG file ({' '.join(str(error).split())[:100]})", again=True) from error
    return (width, height) if turned else (height, width)
