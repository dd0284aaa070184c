"""What a side port, or a TLS port, has to do with while a load is measured: a process of its own.

``python visitors.py KIND PORT SOCKET`` prints a line when all of that kind is there, goes on until
its standard input ends, and then prints how much it did, as a number: bytes that it was sent,
requests that were refused, or connections. It leaves the processor to those that are measured.
What proves who a TLS client is lies beside the socket, in a file named by :data:`PROOF`.
"""

import itertools
import os
import selectors
import signal
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread

LIFETIME = 30
"""Seconds after which it ends by itself: before anybody misses the answer to a WebSocket's ping."""
NICENESS = 10
"""Visitors are on other machines in life: where there are few cores, these take what is left."""
PATIENCE = 10.0
"""Seconds for the relay to answer."""
RECEIVE = 1 << 20
"""Bytes asked for at once: more than a frame."""
_BUFFER = bytearray(RECEIVE)
PAGES = 10
POLLED = ("/api/status", "/api/rates?since={:.1f}")
"""What each page asks for once a second."""
RATES_SECONDS = 1.5
"""How far it looks back for the rates: it gets one or two samples."""
HALF_OPEN = 1_000
"""As many connections as the side port takes."""
HALF_OPEN_EACH = 0.01
"""Seconds between two more: the relay waits ten for a request, so all the places stay taken."""
OPENING_EACH = 0.001
"""Seconds between the first ones: more than the relay takes, so that none has to be sent again."""
WRONG_EACH = 0.005
"""Seconds between two requests that are refused."""
PROOF = "client.pem"
"""A certificate and its key, and what the relay's is signed by: itself."""
AT_ONCE = 8
"""Clients that shake hands at the same time, each as fast as it can."""
COUNT_EACH = 0.1
"""Seconds until those that are done are counted again."""
HELLOS_HELD = 256
"""Many more unfinished handshakes than a TLS port has under way."""
HELLO_EACH = 0.002
"""Seconds between two more of those."""

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
"""What browsers offer."""
WRONG = (
    ("/signals", (*UPGRADE, "Origin: http://other.example")),
    ("/signals", (*UPGRADE, "Authorization: Bearer wrong")),
    ("/api/status", ("Authorization: Bearer wrong",)),
    ("/signals?types=none", UPGRADE),
)


class VisitError(Exception):
    """The relay did not do what it should."""


@dataclass
class Visit:
    """What is connected, and what is done with it.

    All that comes in on what is ``heard`` is read, and its bytes are counted; of what is
    ``unheard`` nothing is. ``step`` is called each so many seconds, and returns what there is to
    count. ``done`` is the count.
    """

    heard: Sequence[socket.socket] = ()
    unheard: Sequence[socket.socket] = ()
    each: float | None = None
    step: Callable[[], int] = int
    done: int = 0

    def run_until_end(self) -> None:
        """Do all that until the standard input ends."""
        due = time.monotonic() + (self.each or 0)
        with selectors.DefaultSelector() as selector:
            for file in (sys.stdin, *self.heard):
                selector.register(file, selectors.EVENT_READ)
            while True:
                wait = None if self.each is None else max(0, due - time.monotonic())
                for key, _ in selector.select(wait):
                    if not isinstance(key.fileobj, socket.socket):
                        return
                    self.done += receive(key.fileobj)
                if self.each is not None and time.monotonic() >= due:
                    self.done += self.step()
                    due = max(due + self.each, time.monotonic())


def receive(connection: socket.socket) -> int:
    """Read what is there, and return how many bytes it was."""
    size = connection.recv_into(_BUFFER)
    if not size:
        raise VisitError("the relay has closed on a visitor")
    return size


def connect(port: int) -> socket.socket:
    """Return a connection to the side port."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def request(path: str, headers: Sequence[str] = ()) -> bytes:
    """Return a request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def ask(connection: socket.socket, path: str, headers: Sequence[str]) -> int:
    """Send a request, and return the status of the answer, which is read with all its headers."""
    connection.sendall(request(path, headers))
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += (piece := connection.recv(RECEIVE))
        if not piece:
            raise VisitError(f"the relay has closed instead of an answer to {path}")
    return int(answer.split(b" ", 2)[1])


def open_websocket(port: int, query: str, headers: Sequence[str] = ()) -> socket.socket:
    """Return a WebSocket, as the connection that it is on."""
    connection = connect(port)
    status = ask(connection, f"/signals?{query}", (*UPGRADE, *headers))
    if status != 101:
        raise VisitError(f"the relay answered {status} to who wanted a WebSocket")
    return connection


def visit_pages(port: int, _path: str) -> Visit:
    """Do what open pages do, but for drawing: a sample of the messages, and questions."""
    sockets = [open_websocket(port, "sample=200", [DEFLATE]) for _ in range(PAGES)]
    asked = [(connect(port), path) for path in POLLED for _ in range(PAGES)]
    turns = itertools.cycle(asked)

    def poll() -> int:
        connection, path = next(turns)
        connection.sendall(request(path.format(time.time() - RATES_SECONDS)))
        return 0

    heard = [*sockets, *(connection for connection, _ in asked)]
    return Visit(heard, each=1 / len(asked), step=poll)


def visit_by_websocket(query: str, port: int, _path: str) -> Visit:
    """Read everything."""
    return Visit([open_websocket(port, query)])


def visit_by_socket(_port: int, path: str) -> Visit:
    """Read everything as a peer on the Unix socket does."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return Visit([connection])


def visit_without_reading(port: int, _path: str) -> Visit:
    """Ask for everything, and read nothing of it."""
    return Visit(unheard=[open_websocket(port, "")], done=1)


def visit_half_open(port: int, _path: str) -> Visit:
    """Hold as many connections as there may be by half a request each, and go on doing so."""
    half = request("/signals", UPGRADE)[:60]
    held: deque[socket.socket] = deque()

    def hold() -> int:
        connection = connect(port)
        connection.sendall(half)
        held.append(connection)
        if len(held) > HALF_OPEN:
            held.popleft().close()
        return 1

    for _ in range(HALF_OPEN):
        hold()
        time.sleep(OPENING_EACH)
    return Visit(each=HALF_OPEN_EACH, step=hold, done=HALF_OPEN)


def visit_wrongly(port: int, _path: str) -> Visit:
    """Ask for what is refused, each time on another connection."""
    turns: Iterator[tuple[str, Sequence[str]]] = itertools.cycle(WRONG)

    def ask_wrongly() -> int:
        path, headers = next(turns)
        with connect(port) as connection:
            status = ask(connection, path, headers)
        if not 400 <= status < 500:
            raise VisitError(f"the relay answered {status} to a wrong request")
        return 1

    return Visit(each=WRONG_EACH, step=ask_wrongly)


def client_context(path: str) -> ssl.SSLContext:
    """Return what a TLS client needs to be let in by the relay that has that socket."""
    proof = Path(path).with_name(PROOF)
    context = ssl.create_default_context(cafile=proof)
    context.check_hostname = False
    context.load_cert_chain(proof)
    return context


def client_hello(context: ssl.SSLContext) -> bytes:
    """Return the first thing that a client says."""
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise VisitError("a handshake was done without an answer")


def visit_with_handshakes(port: int, path: str) -> Visit:
    """Come in and go, again and again."""
    context = client_context(path)

    def come_and_go() -> None:
        with connect(port) as plain, context.wrap_socket(plain):
            pass

    return _flood(come_and_go)


def visit_with_hellos(port: int, path: str) -> Visit:
    """Make the relay do its part of a handshake, which is the larger one, and go."""
    hello = client_hello(client_context(path))

    def greet() -> None:
        with connect(port) as connection:
            connection.sendall(hello)
            receive(connection)

    return _flood(greet)


def _flood(act: Callable[[], None]) -> Visit:
    """Do it as often as the relay lets some clients at once."""
    done: deque[int] = deque()

    def act_on() -> None:
        while True:
            with suppress(TimeoutError):  # who waits too long comes again
                act()
                done.append(1)

    for _ in range(AT_ONCE):
        Thread(target=act_on, daemon=True).start()
    return Visit(each=COUNT_EACH, step=lambda: sum(done.popleft() for _ in range(len(done))))


def visit_with_half_a_hello(port: int, path: str) -> Visit:
    """Hold as many handshakes as there may be by half a greeting each, and go on doing so."""
    hello = client_hello(client_context(path))
    held: deque[socket.socket] = deque()

    def hold() -> int:
        connection = connect(port)
        connection.sendall(hello[: len(hello) // 2])
        held.append(connection)
        if len(held) > HELLOS_HELD:
            held.popleft().close()
        return 1

    for _ in range(HELLOS_HELD):
        hold()
        time.sleep(OPENING_EACH)
    return Visit(each=HELLO_EACH, step=hold, done=HELLOS_HELD)


VISITS: dict[str, Callable[[int, str], Visit]] = {
    "socket": visit_by_socket,
    "pages": visit_pages,
    "binary": partial(visit_by_websocket, "format=binary"),
    "json": partial(visit_by_websocket, "format=json"),
    "stalled": visit_without_reading,
    "half-open": visit_half_open,
    "wrong": visit_wrongly,
    "handshakes": visit_with_handshakes,
    "hellos": visit_with_hellos,
    "half-hellos": visit_with_half_a_hello,
}
"""What there is, by key."""


def main(kind: str, port: str, path: str) -> None:
    """Visit a side port, or a Unix socket, until told to end."""
    signal.alarm(LIFETIME)
    os.nice(NICENESS)
    try:
        visit = VISITS[kind](int(port), path)
        print("ready", flush=True)  # noqa: T201
        visit.run_until_end()
    except (OSError, VisitError) as error:
        sys.exit(str(error))
    print(visit.done)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
