"""Transports tuned for the hub.

A relay's own transport receives into the buffer that its protocol names and is sent bytes as they
lie in the log: nothing is queued in between. It knows sockets and the reactor; messages it does
not.
"""

import errno
import fcntl
import select
import socket
import struct
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet import main, tcp, unix
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure
from zope.interface import implementer

from alphapulse_relay.hub.outlet import UNDER_WAY, IOutlet

TURN_WORK = 4 * 1024 * 1024
"""Bytes received from one peer, and sent on by compiled code, before the others get their turn."""
CHUNK_WORK = TURN_WORK // 16
"""What one receive counts for where Python sends it on, to however many."""
PUBLISHER_WAIT = 100_000_000
"""Nanoseconds for which the reactor is kept to see whether a publisher's next message comes: none
that publishes faster has to go round it, and nothing that it would do unasked waits longer."""
TAKEN_INTERVAL = 0.01
"""Seconds between looks at whether a peer over TCP has taken all."""
SEND_LIMIT = 256 * 1024
"""Bytes offered to a socket at once: more than its buffer takes by default (212,992 bytes)."""
REST_LIMIT = 8 * 1024 * 1024
"""Bytes read at most from a peer that has closed: more than a socket holds (net.core.wmem_max is
4 MiB by default)."""
_INT = struct.Struct("i")

if TYPE_CHECKING:
    _Connection = tcp.Server
else:
    _Connection = object


@implementer(IOutlet)
class RelayTransport(_Connection):
    """A connected socket that receives into its protocol's buffer and sends from the log.

    To be mixed into one of Twisted's connections.
    """

    protocol: Any
    producer: Any
    reactor: Any
    _orderly: frozenset[int]
    """Errors of recv(2) by which the kernel tells that the peer has closed."""
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
        work = TURN_WORK
        # The reactor may still have an event for us from before the protocol was held.
        while work > 0 and self._reading:
            fan_out = self.protocol.fan_out
            if fan_out is None:
                work = self._receive_chunk(work)
            else:
                # Who waits for a word of the relay's is not waited for.
                wait = self._reactor_wait() if self.protocol.patient else (-1, 0)
                work = fan_out.receive(self.protocol, self.fileno(), work, *wait)
        if work >= 0:
            return None
        return main.CONNECTION_DONE if -work in self._orderly else main.CONNECTION_LOST

    def _reactor_wait(self) -> tuple[int, int]:
        """Return the reactor's epoll descriptor, and for how many nanoseconds it may be kept.

        -1 and 0 if it has none, or has something to do.
        """
        reactor = self.reactor
        if not isinstance(reactor, EPollReactor) or reactor.threadCallQueue:
            return -1, 0
        delay = reactor.timeout()
        wait = PUBLISHER_WAIT if delay is None else min(int(delay * 1e9), PUBLISHER_WAIT)
        return reactor._poller.fileno(), wait

    def _receive_chunk(self, work: int) -> int:
        """Receive once and return what is left of the turn's work, as ``FanOut.receive`` does."""
        space = self.protocol.getBuffer()
        received = self._receive(space)
        if received > 0:
            self.protocol.bufferUpdated(received)
            return max(work - CHUNK_WORK, 0) if received == len(space) else 0
        return received

    def _receive(self, space: memoryview) -> int:
        """Return how many bytes were received; 0 if there are none now.

        A negative number is the error; ESHUTDOWN stands for the end of the stream.
        """
        try:
            return self.socket.recv_into(space) or -errno.ESHUTDOWN
        except BlockingIOError:
            return 0
        except OSError as error:
            return -(error.errno or errno.EIO)

    def doWrite(self) -> Exception | None:  # type: ignore[override]
        """Tell the producer that there is room."""
        self.stopWriting()
        if self.disconnecting:
            return main.CONNECTION_DONE
        self.producer.resumeProducing()
        return None

    def send(self, data: memoryview) -> int:
        """Send what the socket takes without waiting; see :class:`IOutlet`."""
        offered = data[:SEND_LIMIT]
        try:
            sent = self.socket.send(offered)
        except ConnectionError:
            self.took_less(gone=True)
            return 0
        except OSError:  # full, or the kernel is short of memory: either passes
            sent = 0
        if sent < len(offered):
            self.took_less(gone=False)
        return sent

    def descriptor(self) -> int:
        """Return the socket's: nothing is queued that could be overtaken."""
        return self.fileno()

    def took_less(self, *, gone: bool) -> None:
        """Wait until the socket has room again, if it ever will."""
        if gone:
            self._reader_gone()
        else:
            self.startWriting()
            self.producer.pauseProducing()

    def _reader_gone(self) -> None:
        """Deal with a peer that will never read again.

        It may have sent what is still to be received: only the end of its stream ends the
        connection. POLLHUP tells one that has closed from one that has shut its reading side.
        """
        if self.hung_up():
            self.producer.stopProducing()
        else:
            self.producer.reader_gone()

    def hung_up(self) -> bool:
        """Tell whether the peer has closed (POLLHUP, poll(2))."""
        poll = select.poll()
        poll.register(self.socket, 0)
        return bool(poll.poll(0))

    def queued(self) -> int:
        """Return the bytes in the socket that the peer has not taken (SIOCOUTQ, unix(7))."""
        return self._count(termios.TIOCOUTQ)

    def room_means_read(self, given: int) -> bool:  # noqa: ARG002 - IOutlet
        """Tell that it does: a Unix socket holds what its peer has not read."""
        return True

    def pending(self) -> int:
        """Return the bytes in the socket that were not received (SIOCINQ, unix(7))."""
        return self._count(termios.FIONREAD)

    def close(self, farewell: bytes) -> None:
        """Close the connection; see :class:`IOutlet`."""
        raise NotImplementedError

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
        while left > 0 and not (self._aborting or self.disconnecting):
            received = self._receive(self.protocol.getBuffer())
            if received <= 0:
                return
            self.protocol.bufferUpdated(received)
            left -= received

    def connectionLost(self, reason: Failure) -> None:
        """Hand on what was sent before the end: a held publisher may have closed long ago."""
        try:
            if self._lost_unasked(reason):
                self._receive_rest(REST_LIMIT)
        finally:
            super().connectionLost(reason)

    def _lost_unasked(self, reason: Failure) -> bool:
        """Whether it was not the relay that closed."""
        asked = self.disconnecting or not reason.check(ConnectionDone, ConnectionLost)
        return bool(self.connected) and not asked


class UnixTransport(RelayTransport, unix.Server):
    """Over a Unix socket, whose kernel tells all of both ends."""

    # ECONNRESET: the peer closed without reading all that it was sent (unix(7)), as publishers do.
    _orderly = frozenset({errno.ESHUTDOWN, errno.ECONNRESET})

    def close(self, farewell: bytes) -> None:
        """Close at once; the farewell goes out if it fits the socket's buffer."""
        with suppress(OSError):
            self.socket.send(farewell)
        self.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """Hand on what was sent before the end."""
        if self._lost_unasked(reason):
            # A Unix socket's peer does not vanish: the kernel closes for it.
            reason = Failure(main.CONNECTION_DONE)
        super().connectionLost(reason)


class TCPTransport(RelayTransport, tcp.Server):
    """Over TCP: what the peer's kernel has taken may still be unread."""

    _orderly = frozenset({errno.ESHUTDOWN})

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # A signal must not wait for the one before it to be acknowledged (tcp(7)).
        self.setTcpNoDelay(True)

    def queued(self) -> int:
        """Return what may be on the way: what was not acknowledged, and what is not read."""
        return super().queued() + UNDER_WAY

    def room_means_read(self, given: int) -> bool:
        """Tell whether more was given than can be on the way: kernels take much unread."""
        return given > UNDER_WAY

    def close(self, farewell: bytes) -> None:
        """Close once the peer's kernel has taken all that was sent.

        Closed before that, with something unread from the peer, the connection would be reset, and
        what is on the way lost (RFC 1122, 4.2.2.13).
        """
        with suppress(OSError):
            self.socket.send(farewell)
            self.socket.shutdown(socket.SHUT_WR)
        self.stopReading()
        self.disconnecting = True
        self._close_once_taken()

    def _close_once_taken(self) -> None:
        if not self.connected or self._aborting:
            return
        if self._count(termios.TIOCOUTQ):
            self.reactor.callLater(TAKEN_INTERVAL, self._close_once_taken)
        else:
            self.startWriting()  # there is room: the reactor closes in its next turn
