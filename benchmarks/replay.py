"""A peer that asks a relay for its history, and does nothing but receive it."""

import socket
import time
from dataclasses import dataclass

from alphapulse_relay.protocol_v2.control import (
    ErrorMessage,
    SequenceSync,
    Start,
    Subscribe,
    Wish,
    parse_control,
)
from alphapulse_relay.protocol_v2.header import Domain, Header
from benchmarks import wire

RECEIVE = 1 << 20
"""Bytes asked for at once: more than a socket holds."""
PATIENCE = 60.0
"""Seconds without a byte after which it has failed."""
SYNC_SIZE = 51
"""Bytes of a SequenceSync: header (32), TLV header (2), value (17)."""
FROM_THE_BEGINNING = Subscribe(wishes=Wish.STOP_AT_HEAD, start=Start.POSITION)
"""All that is kept; the relay tells of what was before that by a Gap, and closes at the end."""


class ReplayError(ConnectionError):
    """A history that did not come whole."""


@dataclass(frozen=True)
class Replay:
    """So many bytes of messages, in so many seconds from the question to the last of them."""

    size: int
    seconds: float


def replay(connection: socket.socket) -> Replay:
    """Receive the whole history. Raises ``OSError``, :class:`ReplayError` if any is missing."""
    connection.settimeout(PATIENCE)
    asked = time.perf_counter()
    wire.subscribe(connection, FROM_THE_BEGINNING)
    start = _read_start(connection)
    received, end = _receive_all(connection)
    seconds = time.perf_counter() - asked
    size = received - len(end)
    if _position(end) - start != size:
        raise ReplayError(f"a replay from {start:,} to {_position(end):,} had {size:,} bytes")
    return Replay(size, seconds)


def _read_start(connection: socket.socket) -> int:
    """Return the position of the first message; what was still live goes before."""
    while True:
        message = wire.receive_message(connection)
        if Header.unpack(message).domain == Domain.SYSTEM:
            said = parse_control(message)
            if isinstance(said, SequenceSync):
                return said.position
            if isinstance(said, ErrorMessage):
                raise ReplayError(said.text)


def _position(message: bytes) -> int:
    """Return the position that a SequenceSync tells. Raises :class:`ReplayError` if it is none."""
    try:
        said = parse_control(message)
    except ValueError as error:
        raise ReplayError(f"a replay did not end with a SequenceSync: {error}") from error
    if not isinstance(said, SequenceSync):
        raise ReplayError(f"a replay ended with {said}")
    return said.position


def _receive_all(connection: socket.socket) -> tuple[int, bytes]:
    """Return how many bytes come until the relay closes, and the last of them: a SequenceSync."""
    buffer = memoryview(bytearray(RECEIVE))
    received, end = 0, b""
    while size := connection.recv_into(buffer):
        received += size
        end = (end + buffer[max(0, size - SYNC_SIZE) : size])[-SYNC_SIZE:]
    return received, end
