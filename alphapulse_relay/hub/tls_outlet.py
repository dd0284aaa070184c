"""The outlet of TLS: as of any transport, but for how it is closed."""

import fcntl
import select
import struct
import termios
from typing import Any

from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.components import registerAdapter

from alphapulse_relay.hub.outlet import IOutlet, OrdinaryOutlet
from alphapulse_relay.hub.transport import TAKEN_INTERVAL

_INT = struct.Struct("i")


class TLSOutlet(OrdinaryOutlet):
    """Sends to a peer over TLS."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        self._tcp = transport.transport

    def close(self, farewell: bytes) -> None:
        """Close once the peer's kernel has taken all that was sent, and the farewell.

        By itself TLS waits for the peer to answer the end, and publishers may never read.
        """
        super().close(farewell)
        self._close_once_taken()

    def _close_once_taken(self) -> None:
        if not self._tcp.connected:
            return
        if self._unsent() and not self._gone():
            self._tcp.reactor.callLater(TAKEN_INTERVAL, self._close_once_taken)
        else:
            self._tcp.loseConnection()

    def _unsent(self) -> bool:
        """Whether anything is in the transport, or in the socket and not acknowledged."""
        if self._tcp.dataBuffer or self._tcp._tempDataBuffer:
            return True
        (number,) = _INT.unpack(fcntl.ioctl(self._tcp.socket, termios.TIOCOUTQ, bytes(_INT.size)))
        return bool(number)

    def _gone(self) -> bool:
        """Whether the peer takes nothing any more (POLLERR, POLLHUP: poll(2))."""
        poll = select.poll()
        poll.register(self._tcp.socket, 0)
        return bool(poll.poll(0))


registerAdapter(TLSOutlet, TLSMemoryBIOProtocol, IOutlet)
