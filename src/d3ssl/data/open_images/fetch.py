"""Fetching one image over HTTP: checked before it is kept, and with patience that grows between attempts."""

from __future__ import annotations

import hashlib
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import simplejpeg
from PIL import Image

from d3ssl.data.images import MAX_PIXELS
from d3ssl.errors import one_line
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
    try:
        with _opener(10 * patience.timeout_s).open(request, timeout=patience.timeout_s) as answer:
            pieces, found = [], 0
            while piece := answer.read1(_PIECE):
                pieces.append(piece)
                found += len(piece)
                if found > MAX_BYTES:
                    raise FetchError(f"has more than {MAX_BYTES} bytes", again=False)
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


def _opener(most_s: float) -> urllib.request.OpenerDirector:
    """Asks over HTTP(S) alone, and gives a server up that has not sent all after so many seconds, however often it
    sends a byte: of the headers, of the content, redirections included."""
    deadline = time.monotonic() + most_s

    def answer(sock: socket.socket, *args: Any, **options: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **options)
        response.fp.close()
        response.fp = io.BufferedReader(_Timed(sock, deadline, most_s))
        return response

    def connect(kind: type[http.client.HTTPConnection], host: str, **options: Any) -> http.client.HTTPConnection:
        connection = kind(host, **options)
        connection.response_class = answer  # type: ignore[assignment]  # called, never looked at
        return connection

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(partial(connect, http.client.HTTPConnection), req)  # type: ignore[arg-type]

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(partial(connect, http.client.HTTPSConnection), req, context=_tls())  # type: ignore[arg-type]

    return urllib.request.build_opener(Http, Https, _Redirects)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Python's own would go on with FTP."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            fp.close()
            raise FetchError(f"the server sends elsewhere, to {newurl[:100]!r}, which is no web address", again=False)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Timed(io.RawIOBase):
    """What a server sends, up to a time."""

    def __init__(self, sock: socket.socket, deadline: float, most_s: float) -> None:
        self._sock, self._deadline, self._most_s = sock, deadline, most_s
        self._raw, self._timeout = sock.makefile("rb", buffering=0), sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int | None:  # type: ignore[override]  # what BufferedReader hands over
        left = self._deadline - time.monotonic()
        if left > 0:
            self._sock.settimeout(left if self._timeout is None else min(left, self._timeout))
            try:
                return self._raw.readinto(buffer)
            except TimeoutError:
                if time.monotonic() < self._deadline:
                    raise
        raise FetchError(f"took longer than {self._most_s:g} s", again=True)

    def close(self) -> None:
        self._raw.close()
        super().close()


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
        raise FetchError(f"is no whole JPEG file ({one_line(error, 100)})", again=True) from error
    return (width, height) if turned else (height, width)
