"""A server that sends slowly is given up after ten times the patience, and only web addresses are followed."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from d3ssl.data.open_images.fetch import FetchError, Patience, fetch


@contextmanager
def server(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """Calls ``answer`` with each connection, after the request was read."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)

        def serve() -> None:
            while not done.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.recv(65536)
                    answer(connection, done)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/a.jpg"
        done.set()
        thread.join()


def drip(head: bytes, rest: bytes) -> Callable[[socket.socket, threading.Event], None]:
    """Sends the head at once and of the rest a byte every 20 ms."""

    def answer(connection: socket.socket, done: threading.Event) -> None:
        try:
            connection.sendall(head)
            for place in range(len(rest)):
                connection.sendall(rest[place : place + 1])
                if done.wait(0.02):
                    return
        except OSError:  # the other side has hung up
            return

    return answer


def ask(address: str, timeout_s: float = 5.0) -> bytes:
    patience = Patience(timeout_s=timeout_s, attempts=1, backoff_s=0.0, user_agent="d3ssl")
    return fetch(address, patience, None, threading.Event())


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("part", ["state", "headers", "content"])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(part: str) -> None:
    head = {"state": b"", "headers": OK, "content": OK + b"Content-Length: 5000\r\n\r\n"}[part]
    rest = {"state": OK + b"X: " + b"x" * 400, "headers": b"X-Slow: y\r\n" * 90, "content": b"x" * 5000}[part]
    with server(drip(head, rest)) as address:
        began = time.monotonic()
        with pytest.raises(FetchError, match=r"took longer than 1 s") as raised:
            ask(address, timeout_s=0.1)
        assert raised.value.again
        assert 0.9 < time.monotonic() - began < 4.0


def test_a_server_that_says_nothing_is_given_up_after_the_patience() -> None:
    def wait(_: socket.socket, done: threading.Event) -> None:
        done.wait(10)

    silent = server(wait)
    with silent as address, pytest.raises(FetchError, match=r"the connection failed .*timed out"):
        ask(address, timeout_s=0.2)


@pytest.mark.parametrize("place", ["ftp://127.0.0.1:1/a.jpg", "file:///etc/hostname"])
def test_a_server_cannot_send_elsewhere_than_to_the_web(place: str) -> None:
    with server(drip(f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode(), b"")) as address:
        with pytest.raises(FetchError, match=r"no web address|not allowed") as raised:
            ask(address)
        assert "refused" not in str(raised.value)  # it was not even tried


def test_redirections_on_the_web_are_followed() -> None:
    content = io.BytesIO()
    Image.fromarray(np.zeros((8, 9, 3), dtype=np.uint8)).save(content, "JPEG")
    data = content.getvalue()
    with server(drip(OK + f"Content-Length: {len(data)}\r\n\r\n".encode() + data, b"")) as last:
        head = f"HTTP/1.1 302 Found\r\nLocation: {last}\r\nContent-Length: 0\r\n\r\n"
        with server(drip(head.encode(), b"")) as first:
            assert ask(first) == data
