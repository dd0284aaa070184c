"""A TLS port: how fast handshakes begin there, and who is past one.

Knows when to accept, and that a connection may have ended by then; what a handshake is, it does
not know.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.internet.interfaces import IDelayedCall

from alphapulse_relay.hub.allowance import Allowance
from alphapulse_relay.hub.peer import Identity, Refusal

if TYPE_CHECKING:
    from alphapulse_relay.hub.handshake import HandshakeFactory

HANDSHAKES_PER_SECOND = 0.5
"""How many may begin at a port in the long run. Others wait to be accepted. Each, and that its peer
comes and goes, takes 2 to 3 ms of what others wait for: so a flood disturbs one in a thousand of
their messages. Who goes without a word is not counted."""
HANDSHAKES_BURST_SECONDS = 16.0
"""So many seconds' worth may begin at once: 8, and the one after which others wait."""
PASSED_OVER_AT_ONCE = 4
"""How many that have gone are taken out of the queue before a rest: less than 100 µs' work..."""
REST_SECONDS = 0.005
"""...and how long that is, as messages wait for it: 800 a second. In a flood of more the queue is
full, and who wants in has to try again, as TCP does by itself."""


class TLSPort(tcp.Port):
    """A port that accepts no faster than handshakes may begin.

    Who has gone before that is taken out of the queue, and nothing is made for it: in a flood that
    is nearly everyone.
    """

    def __init__(
        self, port: int, factory: HandshakeFactory, backlog: int, interface: str, reactor: Any
    ) -> None:
        super().__init__(port, factory, backlog, interface, reactor)
        factory.port = self
        self._hub = factory.hub
        self._allowance = Allowance(HANDSHAKES_PER_SECOND, HANDSHAKES_BURST_SECONDS)
        self._passed_over = 0
        self._rested_at = 0.0  # when it may go on after it has passed over some
        self._look: IDelayedCall | None = None  # when it may accept again, while it does not

    def createInternetSocket(self) -> socket.socket:  # noqa: N802 - tcp.Port's
        """Return the socket to listen on, as ``tcp.Port``."""
        return _ListeningSocket(super().createInternetSocket(), self)

    def doRead(self) -> None:
        """Accept one connection, if somebody is still there."""
        self.numberAccepts = 1  # tcp.Port would take ever more at once in a flood
        super().doRead()

    def take_turn(self) -> None:
        """Take note that a handshake begins."""
        self._allowance.take(1, self._hub.clock.seconds())
        self._accept_or_wait()

    def give_turn_back(self) -> None:
        """Have another one begin in the place of one that cost nothing, or is no flood."""
        self._allowance.give_back(1)
        self._accept_or_wait()

    def pass_over(self, address: tuple[Any, ...]) -> bool:
        """Tell of a connection that ended before its turn; return whether there may be more now."""
        identity = Identity(self._hub.next_number(), "tls", address=f"{address[0]}:{address[1]}")
        self._hub.report.refused(identity, Refusal.TLS, "the connection ended")
        self._passed_over += 1
        if self._passed_over % PASSED_OVER_AT_ONCE:
            return True
        self._rested_at = self._hub.clock.seconds() + REST_SECONDS
        self._accept_or_wait()
        return False

    def _accept_or_wait(self) -> None:
        waited = self._look is not None
        if self._look is not None and self._look.active():
            self._look.cancel()
        self._look = None
        if not self.connected:
            return
        now = self._hub.clock.seconds()
        wait = max(self._allowance.owed_seconds(now), self._rested_at - now)
        if wait > 0:
            self.stopReading()
            self._look = self._hub.clock.callLater(wait, self._accept_or_wait)
        elif waited:
            self.startReading()


class _ListeningSocket(socket.socket):
    """A socket that passes over who has gone."""

    def __init__(self, bare: socket.socket, port: TLSPort) -> None:
        super().__init__(bare.family, bare.type, bare.proto, bare.detach())
        self.setblocking(False)
        self._port = port

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept one that is still there, as ``socket.socket``; if need be, after a rest."""
        while True:
            connection, address = super().accept()
            if not has_gone(connection):
                return connection, address
            connection.close()
            if not self._port.pass_over(address):
                raise BlockingIOError(errno.EWOULDBLOCK, "all of them have gone")


def has_gone(connection: socket.socket) -> bool:
    """Tell whether the other end has closed, whatever it had said before (poll(2))."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))
