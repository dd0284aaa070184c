"""What a client has published and the relay has not acknowledged yet. Knows no connection."""

from collections import deque
from collections.abc import Iterator

from alphapulse_relay.client.errors import UnacknowledgedError
from alphapulse_relay.protocol_v2.control import Ack
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.header import Domain, Header, checksum

UNACKNOWLEDGED_MAX = 16 * 1024 * 1024
"""Bytes of messages that are kept for a relay that does not acknowledge; at least one message."""


def check(message: bytes) -> Header:
    """Return the header of a message that can be published.

    Raises ``ValueError`` for bytes that would break the stream, or that every relay drops.
    """
    try:
        header = Header.unpack(message)
    except WireError as error:
        raise ValueError(f"not a message: {error}") from None
    if header.message_size != len(message):
        raise ValueError(f"{len(message)} bytes, but the header states {header.message_size}")
    if header.domain == Domain.SYSTEM:
        raise ValueError("a message of domain 4 is for the relay itself")
    if header.checksum not in {0, checksum(message)}:
        raise ValueError("the checksum is not that of the message")
    return header


class Outbox:
    """Messages in the order in which each source published them."""

    def __init__(self) -> None:
        self._kept: dict[int, deque[tuple[int, bytes]]] = {}
        self._last: dict[int, int] = {}
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield the messages that are not acknowledged."""
        for kept in self._kept.values():
            for _, message in kept:
                yield message

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def fits(self, message: bytes) -> bool:
        """Whether there is room for the message."""
        return not self._size or self._size + len(message) <= UNACKNOWLEDGED_MAX

    def keep(self, header: Header, message: bytes) -> None:
        """Keep a message until it is acknowledged.

        Raises ``ValueError`` if its sequence is not above the last one of its source, without
        which an Ack would not tell which messages it is for; :class:`UnacknowledgedError` if there
        is no room.
        """
        source, sequence = header.publisher, header.sequence
        last = self._last.get(source, -1)
        if sequence <= last:
            raise ValueError(f"sequence {sequence} of source {source} comes after {last}")
        if not self.fits(message):
            raise UnacknowledgedError(f"{self._size} bytes are not acknowledged: no room for more")
        self._last[source] = sequence
        self._size += len(message)
        self._kept.setdefault(source, deque()).append((sequence, message))

    def acknowledge(self, ack: Ack) -> None:
        """Drop what an Ack is for."""
        kept = self._kept.get(ack.source, ())
        while kept and kept[0][0] <= ack.sequence:
            self._size -= len(kept.popleft()[1])
