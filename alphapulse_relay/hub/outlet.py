"""Outlets: how a protocol sends, whatever carries its bytes.

A transport of the relay is an outlet itself; here is the one of all others.
"""

from typing import Any

from twisted.internet.interfaces import ITransport
from twisted.python.components import registerAdapter
from zope.interface import Interface, implementer

UNDER_WAY = 16 * 1024 * 1024
"""Bytes that may be between a transport and its peer over a network: more than both kernels hold
of a TCP connection by default (net.ipv4.tcp_wmem and tcp_rmem: 4 and 6 MiB)."""
COPY_LIMIT = 64 * 1024
"""Bytes copied into an ordinary transport at once: it asks for a pause when it holds as much."""


class IOutlet(Interface):
    """How a protocol sends, whatever the transport.

    When an outlet is full it calls the registered producer's ``pauseProducing``, and
    ``resumeProducing`` when there is room again; ``stopProducing`` when nothing more can be sent.
    """

    def send(data: memoryview) -> int:
        """Take some of the bytes, without keeping the view, and return how many."""

    def descriptor() -> int | None:
        """Return the socket's, if bytes may also be sent past the outlet; then ``took_less``."""

    def took_less(*, gone: bool) -> None:
        """Take note that the socket took less than was sent past the outlet.

        ``gone`` if the peer will never read again.
        """

    def queued() -> int:
        """Return how much at most was sent that the peer has not taken."""

    def room_means_read(given: int) -> bool:
        """Tell whether, when there is room again, a peer that was given so much must have read."""

    def pending() -> int:
        """Return how many bytes the peer has sent that were not received, as far as is known."""

    def read_rest() -> None:
        """Receive what the peer has already sent, if that can be done without waiting."""

    def hung_up() -> bool:
        """Tell whether the peer has closed, as far as can be told without waiting."""

    def close(farewell: bytes) -> None:
        """Close the connection, with these last bytes if they can be sent without waiting."""


@implementer(IOutlet)
class OrdinaryOutlet:
    """Sends to any Twisted transport, which paces by its producer interface.

    Copies at most what the transport lets its buffer grow to.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def send(self, data: memoryview) -> int:
        """Have the transport keep a copy of some of the bytes; return how many."""
        copy = bytes(data[:COPY_LIMIT])
        self._transport.write(copy)
        return len(copy)

    def descriptor(self) -> None:
        """Return None: what is sent past the transport would overtake what it keeps."""

    def took_less(self, *, gone: bool) -> None:
        """Refuse: nothing is sent past it."""
        raise NotImplementedError("nothing can be sent past an ordinary transport")

    def queued(self) -> int:
        """Return what may be on the way."""
        return UNDER_WAY

    def room_means_read(self, given: int) -> bool:
        """Tell whether more was given than can be on the way: kernels take much unread."""
        return given > UNDER_WAY

    def pending(self) -> int:
        """Return 0: what the kernel holds is not in reach of this transport."""
        return 0

    def read_rest(self) -> None:
        """Receive nothing: what the kernel holds is not in reach of this transport."""

    def hung_up(self) -> bool:
        """Return False: the transport will tell."""
        return False

    def close(self, farewell: bytes) -> None:
        """Close once all that was written, and the farewell, are sent."""
        # A transport waits for its producer to be gone before it closes.
        self._transport.unregisterProducer()
        self._transport.write(farewell)
        self._transport.loseConnection()


registerAdapter(OrdinaryOutlet, ITransport, IOutlet)
