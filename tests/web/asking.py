"""Asking the side port without a network: requests, answers, and a caller that takes its time."""

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.hub.fakes import Ordinary

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 9750)


class Response:
    """A parsed answer of HTTP/1.1 with a length."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }


def request(path: str = "/healthz", method: str = "GET", **headers: str) -> bytes:
    """Return a request of a program on the same machine."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    first = [f"{method} {path} HTTP/1.1"]
    if "host" not in headers:
        first.append("Host: localhost:9750")
    return "\r\n".join([*first, *lines, "", ""]).encode("latin-1")


class Wire(Ordinary):
    """A transport that tells whether it was closed or cut."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Caller:
    """A connection to an address of the relay, and who is at its other end."""

    def __init__(self, factory: Any, at: Any = LOOPBACK) -> None:
        self.transport = Wire(hostAddress=at)
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        self.lost = False

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def ask(self, path: str = "/healthz", method: str = "GET", **headers: str) -> Response:
        """Ask, and return the answer as far as it was taken."""
        self.transport.clear()
        self.send(request(path, method, **headers))
        return self.response

    @property
    def response(self) -> Response:
        return Response(self.transport.value())

    @property
    def ended(self) -> str:
        """How the relay has ended it: ``closed``, ``cut``, or not at all."""
        if self.transport.aborted:
            return "cut"
        return "closed" if self.transport.disconnecting else ""

    def lose(self) -> None:
        """Have the connection be gone, as it is soon after its end."""
        if not self.lost:
            self.lost = True
            self.protocol.connectionLost(Failure(ConnectionDone()))
