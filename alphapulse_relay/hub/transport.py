"""Ports and transports tuned for the hub, and what makes an ordinary transport do.

A relay's own transport receives into the buffer that its protocol names and is sent bytes as they
lie in the log: nothing is queued in between. It knows sockets and the reactor; messages it does
not.
"""

import fcntl
import select
import struct
import termios
from contextlib import suppress
from typing import Any

from twisted.internet import main, tcp, unix
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITransport
from twisted.python.components import registerAdapter
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

LISTEN_BACKLOG = 4096
"""Connections that may wait to be accepted: all consumers reconnect at once after a restart.
The kernel cuts it to net.core.somaxconn, 4096 by default (listen(2))."""
READS_PER_TURN = 16
"""Receives from one peer before the others get their turn: 1 MiB."""
SEND_LIMIT = 256 * 1024
"""Bytes offered to a socket at once: more than its buffer takes by default (212,992 bytes)."""
REST_LIMIT = 8 * 1024 * 1024
"""Bytes read at most from a peer that has closed: more than a socket holds (net.core.wmem_max is
4 MiB by default)."""
UNDER_WAY = 16 * 1024 * 1024
"""Bytes that may be between an ordinary transport and its peer: more than both kernels hold of a
TCP connection by default (net.ipv4.tcp_wmem and tcp_rmem: 4 and 6 MiB)."""
COPY_LIMIT = 64 * 1024
"""Bytes copied into an ordinary transport at once: it asks for a pause when it holds as much."""
_INT = struct.Struct("i")


class IOutlet(Interface):
    """How a protocol sends, whatever the transport.

    When an outlet is full it calls the registered producer's ``pauseProducing``, and
    ``resumeProducing`` when there is room again; ``stopProducing`` when nothing more can be sent.
    """

    def send(data: memoryview) -> int:
        """Take some of the bytes, without keeping the view, and return how many."""

    def queued() -> int:
        """Return how much was sent that the peer has not taken, as far as is known."""

    def room_means_read() -> bool:
        """Tell whether, when there is room again, the peer must have read."""

    def pending() -> int:
        """Return how many bytes the peer has sent that were not received, as far as is known."""

    def read_rest() -> None:
        """Receive what the peer has already sent, if that can be done without waiting."""

    def close(farewell: bytes) -> None:
        """Close the connection, with these last bytes if they can be sent without waiting."""


@implementer(IOutlet)
class RelayTransport(unix.Server):
    """A connected Unix socket that receives into its protocol's buffer and sends from the log."""

    protocol: Any
    producer: Any
    _reading = False

    def startReading(self) -> None:
        """Ask the reactor for bytes."""
        self._reading = True
        super().startReading()

    def stopReading(self) -> None:
        """Ask the reactor for no more bytes."""
        self._reading = False
        super().stopReading()

    def doRead(self) -> Exception | None:  # type: ignore[override]
        """Receive until the socket is empty, the turn is over, or the protocol wants no more."""
        for _ in range(READS_PER_TURN):
            # The reactor may still have an event for us from before the protocol was held.
            if not self._reading:
                return None
            space = self.protocol.getBuffer()
            received = self._receive(space)
            if not isinstance(received, int):
                return received
            self.protocol.bufferUpdated(received)
            if received < len(space):
                return None
        return None

    def _receive(self, space: memoryview) -> int | Exception | None:
        """Return how much was received, why the connection is over, or None for nothing yet."""
        try:
            received = self.socket.recv_into(space)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            # So the kernel tells that the peer closed without reading all that it was sent
            # (unix(7)), as publishers do.
            return main.CONNECTION_DONE
        except OSError:
            return main.CONNECTION_LOST
        return received or main.CONNECTION_DONE

    def doWrite(self) -> None:
        """Tell the producer that there is room."""
        self.stopWriting()
        self.producer.resumeProducing()

    def send(self, data: memoryview) -> int:
        """Send what the socket takes without waiting; see :class:`IOutlet`."""
        offered = data[:SEND_LIMIT]
        try:
            sent = self.socket.send(offered)
        except ConnectionError:
            self._reader_gone()
            return 0
        except OSError:  # full, or the kernel is short of memory: either passes
            sent = 0
        if sent < len(offered):
            self.startWriting()
            self.producer.pauseProducing()
        return sent

    def _reader_gone(self) -> None:
        """Deal with a peer that will never read again.

        It may have sent what is still to be received: only the end of its stream ends the
        connection. POLLHUP tells one that has closed from one that has shut its reading side.
        """
        hung_up = select.poll()
        hung_up.register(self.socket, 0)
        if hung_up.poll(0):
            self.producer.stopProducing()
        else:
            self.protocol.reader_gone()

    def queued(self) -> int:
        """Return the bytes in the socket that the peer has not taken (SIOCOUTQ, unix(7))."""
        return self._count(termios.TIOCOUTQ)

    def room_means_read(self) -> bool:
        """Tell that it does: a Unix socket holds what its peer has not read."""
        return True

    def pending(self) -> int:
        """Return the bytes in the socket that were not received (SIOCINQ, unix(7))."""
        return self._count(termios.FIONREAD)

    def _count(self, request: int) -> int:
        (number,) = _INT.unpack(fcntl.ioctl(self.socket, request, bytes(_INT.size)))
        return int(number)

    def write(self, data: bytes) -> None:
        """Refuse: nothing is queued here, so what the socket does not take would be lost."""
        raise NotImplementedError("a relay transport sends, it does not queue")

    writeSequence = write  # type: ignore[assignment]  # noqa: N815 - ITransport's name

    def read_rest(self) -> None:
        """Receive what the peer has already sent."""
        if not self._aborting:
            self._receive_rest(self.pending())

    def _receive_rest(self, left: int) -> None:
        while left > 0 and not self._aborting:
            received = self._receive(self.protocol.getBuffer())
            if not isinstance(received, int):
                return
            self.protocol.bufferUpdated(received)
            left -= received

    def close(self, farewell: bytes) -> None:
        """Close at once; the farewell goes out if it fits the socket's buffer."""
        with suppress(OSError):
            self.socket.send(farewell)
        self.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Hand on what was sent before the end: a held publisher may have closed long ago."""
        try:
            if self.connected and reason.check(ConnectionDone, ConnectionLost):
                self._receive_rest(REST_LIMIT)
                # A Unix socket's peer does not vanish: the kernel closes for it.
                reason = Failure(main.CONNECTION_DONE)
        finally:
            super().connectionLost(reason)


class RelayPort(unix.Port):
    """A listening Unix socket whose connections are :class:`RelayTransport`.

    The path on disk is not its business: it is removed by who claimed it, and only if it is still
    the same socket.
    """

    transport = RelayTransport

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and leave its path alone."""
        tcp.Port.connectionLost(self, reason)


@implementer(IOutlet)
class OrdinaryOutlet:
    """Sends to any Twisted transport, which paces by its producer interface.

    Copies at most what the transport lets its buffer grow to.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._sent = 0

    def send(self, data: memoryview) -> int:
        """Have the transport keep a copy of some of the bytes; return how many."""
        copy = bytes(data[:COPY_LIMIT])
        self._transport.write(copy)
        self._sent += len(copy)
        return len(copy)

    def queued(self) -> int:
        """Return what was sent, as far as that may be on the way."""
        return min(self._sent, UNDER_WAY)

    def room_means_read(self) -> bool:
        """Tell whether more was sent than can be on the way: kernels take much unread."""
        return self._sent > UNDER_WAY

    def pending(self) -> int:
        """Return 0: what the kernel holds is not in reach of this transport."""
        return 0

    def read_rest(self) -> None:
        """Receive nothing: what the kernel holds is not in reach of this transport."""

    def close(self, farewell: bytes) -> None:
        """Close once all that was written, and the farewell, are sent."""
        # A transport waits for its producer to be gone before it closes.
        self._transport.unregisterProducer()
        self._transport.write(farewell)
        self._transport.loseConnection()


registerAdapter(OrdinaryOutlet, ITransport, IOutlet)
