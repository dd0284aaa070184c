"""One connection to the side port: how long it may take, and what it may send.

Knows requests come and answers go, and nothing of what they are about. Once a connection has become
a WebSocket nothing here touches it any more: its transport is gone.
"""

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from twisted.web.http import REQUEST_ENTITY_TOO_LARGE, RESPONSES, HTTPChannel, Request

from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.farewell import identify_peer
from alphapulse_relay.hub.peer import Refusal

REQUEST_SECONDS = 10
"""For a whole request, from the connection or the end of the answer before. A request is a packet:
whoever is slower is broken, or wants to hold the connection."""
NEXT_SECONDS = 0.01
"""Between the answers to requests that were sent without waiting: who sends them by the thousand
must not hold up others."""
STALLED_SECONDS = 30
"""After which an answer that nobody takes is given up: networks are not lost for so long."""
LOOK_SECONDS = 3
"""Between two looks at whether an answer is being taken."""
_INT = struct.Struct("i")


class Phase(Enum):
    """What a connection is at."""

    FRESH = auto()
    """It has not sent a whole request yet."""
    ANSWERING = auto()
    """It has, and not taken all of the answer."""
    IDLE = auto()
    """It has had an answer, and may ask again."""
    CLOSING = auto()
    """It is closed as soon as it has taken what it is still to get."""


class Channel(HTTPChannel):
    """Speaks HTTP/1.1 over one connection, and bounds how long each step may take."""

    transport: Any

    def __init__(self, hub: SignalRelayFactory) -> None:
        super().__init__()
        self.phase = Phase.FRESH
        self._hub = hub
        self._timer: IDelayedCall | None = None
        self._full = False
        """Whether the transport holds as much of an answer as it takes."""
        self._finished: Request | None = None
        """What was answered, while the answer is not taken."""
        self._held: int | None = None
        self._taken_at = 0.0

    def connectionMade(self) -> None:
        """Wait for the first request."""
        super().connectionMade()
        self._expect_request()

    def dataReceived(self, data: bytes) -> None:
        """Read on, unless nothing is wanted any more."""
        if self.phase is not Phase.CLOSING:
            super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        """Refuse a request that has a body: none is wanted, and it would be kept on the disk."""
        if self.length == 0:
            super().allHeadersReceived()
        else:
            text = "a request to the side port has no body"
            self.transport.write(plain_answer(REQUEST_ENTITY_TOO_LARGE, text))
            self.loseConnection()

    def allContentReceived(self) -> None:
        """Answer a whole request."""
        self._stop_timer()
        self.phase = Phase.ANSWERING
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        """Go on with the next request, once the answer is taken, and not at once if it waits."""
        self._finished = request
        if (self._dataBuffer or self._buffer) and not self._full:
            self._start_timer(NEXT_SECONDS, self._go_on)
        elif not self._full:
            self._go_on()

    def _go_on(self) -> None:
        """Wait for the next request, or answer it if it is there."""
        self._stop_timer()
        request, self._finished = self._finished, None
        if request is None or self.transport is None:
            return
        self.phase = Phase.IDLE
        super().requestDone(request)
        if self.phase is Phase.IDLE:
            self._expect_request()

    def pauseProducing(self) -> None:
        """Take note that more is written than is taken."""
        super().pauseProducing()
        self._full = True
        self._watch()

    def resumeProducing(self) -> None:
        """Take note that all that was written is taken."""
        self._full = False
        self._stop_timer()
        super().resumeProducing()
        if not self._full and self._finished is not None:
            self.requestDone(self._finished)

    def loseConnection(self) -> None:
        """Close once all is taken that was written."""
        self.phase = Phase.CLOSING
        super().loseConnection()
        self._watch()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connectionLost(reason)

    def make_room(self) -> None:
        """End the connection, which waits for a request, for the sake of another one."""
        if self.phase is Phase.FRESH:
            self._hub.report.refused(
                identify_peer(self._hub, self.transport), Refusal.TOO_MANY_WEB_CONNECTIONS
            )
        self.transport.abortConnection()

    def _expect_request(self) -> None:
        self._start_timer(REQUEST_SECONDS, self._too_late)

    def _too_late(self) -> None:
        self._timer = None
        begun = self.requests or self.clearLineBuffer()
        if self.phase is Phase.IDLE and not begun:
            self.loseConnection()
        else:
            self._refuse(Refusal.TIMEOUT)

    def _watch(self) -> None:
        """Look from time to time whether what was written is taken."""
        self._held, self._taken_at = None, self._hub.clock.seconds()
        self._start_timer(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.transport is None:
            return
        held, now = untaken(self.transport), self._hub.clock.seconds()
        if self._held is not None and held != self._held:
            self._taken_at = now
        self._held = held
        if now - self._taken_at >= STALLED_SECONDS:
            self._refuse(Refusal.STALLED)
        else:
            self._start_timer(LOOK_SECONDS, self._look)

    def _refuse(self, reason: Refusal) -> None:
        self._hub.report.refused(identify_peer(self._hub, self.transport), reason)
        self.transport.abortConnection()

    def _start_timer(self, seconds: float, call: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._hub.clock.callLater(seconds, call)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def untaken(transport: Any) -> int:
    """Return the bytes in a transport's socket that the other end has not taken.

    SIOCOUTQ (tcp(7), unix(7)). 0 if there is no socket.
    """
    while isinstance(transport, ProtocolWrapper):  # such as one for TLS
        transport = transport.transport
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if not isinstance(handle, socket.socket):
        return 0
    (number,) = _INT.unpack(fcntl.ioctl(handle, termios.TIOCOUTQ, bytes(_INT.size)))
    return int(number)


def plain_answer(status: int, text: str) -> bytes:
    """Return an answer of one line, after which the connection is closed."""
    body = f"{text}\n".encode()
    lines = [
        b"HTTP/1.1 %d %s" % (status, RESPONSES[status]),
        b"connection: close",
        b"content-length: %d" % len(body),
        b"content-type: text/plain; charset=utf-8",
    ]
    return b"\r\n".join([*lines, b"", body])
