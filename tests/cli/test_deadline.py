"""Answers that come in time, too late, or never to an end."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import pytest

from alphapulse_relay.cli.deadline import opener
from tests.cli.side_port import side_port

PATIENCE = 5.0


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Have something answer each connection, until the other end is gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            server.settimeout(PATIENCE)
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(1000)
                with suppress(OSError):
                    serve(accepted)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join()


def drip(accepted: socket.socket) -> None:
    """Send a byte now and then, until nobody listens."""
    until = monotonic() + PATIENCE
    while monotonic() < until:
        accepted.sendall(b"x")
        threading.Event().wait(0.02)


def test_an_answer_in_time():
    body = b"x" * 100_000
    with side_port(lambda: (200, body)) as port, opener(PATIENCE).open(port.url) as answer:
        assert answer.read(1 << 20) == body


def test_a_redirection():
    with side_port(lambda: (200, b"there")) as port:

        def serve(accepted: socket.socket) -> None:
            accepted.sendall(f"HTTP/1.0 302 Found\r\nLocation: {port.url}\r\n\r\n".encode())

        with serving(serve) as url, opener(PATIENCE).open(url) as answer:
            assert answer.read() == b"there"


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.0 ", b"HTTP/1.0 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n"]
)
def test_one_that_comes_a_byte_at_a_time(head):
    def serve(accepted: socket.socket) -> None:
        accepted.sendall(head)
        drip(accepted)

    with serving(serve) as url:
        began = monotonic()
        with pytest.raises(TimeoutError), opener(0.2).open(url) as answer:
            answer.read(1 << 20)
        assert monotonic() - began < PATIENCE / 2


def test_chunks_that_come_a_byte_at_a_time():
    def serve(accepted: socket.socket) -> None:
        accepted.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n")
        drip(accepted)

    with serving(serve) as url, pytest.raises(TimeoutError), opener(0.2).open(url) as answer:
        answer.read(1 << 20)


def test_nothing_is_asked_when_the_time_is_over():
    with pytest.raises(TimeoutError):
        opener(-1).open("http://127.0.0.1:1/")


def test_the_connection_is_closed():
    gone: list[bytes] = []

    def serve(accepted: socket.socket) -> None:
        accepted.sendall(b"HTTP/1.0 200 OK\r\n\r\nx")
        accepted.settimeout(PATIENCE)
        gone.append(accepted.recv(1))

    with serving(serve) as url, opener(PATIENCE).open(url) as answer:
        assert answer.read(1) == b"x"
    assert gone == [b""]
