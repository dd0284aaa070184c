"""What a benchmark publishes: messages that nobody takes for signals.

Knows the wire; neither sockets nor processes. The processes of a benchmark make the same messages
from the same :class:`Load`, so that they can compare what comes with what was sent.
"""

import os
from dataclasses import dataclass, field
from itertools import count

from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Domain, build_message
from alphapulse_relay.protocol_v2.tlv import (
    EXTENDED_HEADER_SIZE,
    EXTENDED_MAX,
    STANDARD_HEADER_SIZE,
    STANDARD_MAX,
    build_tlv,
)

SOURCE = 255
"""The last source number, far beyond those that are given to programs (1-99)."""
TLV_TYPE = 39
"""The last type of signals, which strict validation accepts by default; no layout claims it."""
DOMAIN = Domain.SIGNAL
NATURE = f"domain {DOMAIN}, source {SOURCE}, TLV type {TLV_TYPE}"
"""How its messages are told from others, for a person."""
TEXT = b"signal-relay bench"
"""The beginning of each message's value, for whoever meets one."""
MARK_SIZE = 8
"""Bytes that tell one part of one benchmark from all others, by chance."""
LEAST_SIZE = HEADER_SIZE + STANDARD_HEADER_SIZE + len(TEXT) + MARK_SIZE
MOST_SIZE = HEADER_SIZE + EXTENDED_HEADER_SIZE + EXTENDED_MAX
"""Bytes of a message with one TLV."""
HELLO = 0
"""Sequence of the first message: who got it is connected."""
END = (1 << 64) - 1
"""Sequence of the last message."""
BLOCK_SIZE = 64 * 1024
"""Bytes of a write at full load, at most, but always a message."""
CYCLE_BLOCKS = 16
"""Blocks after which full load starts over: ready-made ones that stay in a processor's cache."""
WARM_UP_PART = 0.2
"""Of the seconds that are measured, as many more come before them and do not count."""
_NS = 1_000_000_000


@dataclass(frozen=True)
class Load:
    """What is published in one part of a benchmark.

    ``path`` is the socket that consumers connect to, ``relayed`` whether a relay is behind it or
    the publisher itself. ``size`` is in bytes of a whole message. It lasts ``seconds`` and a
    warm-up; ``rate`` is in messages a second, ``None`` stands for as many as go through. All
    messages of full load bear the one ``timestamp``, in nanoseconds since the epoch.
    """

    path: str
    relayed: bool
    consumers: int
    size: int
    seconds: float
    rate: int | None
    timestamp: int
    mark: bytes = field(default_factory=lambda: os.urandom(MARK_SIZE))

    @property
    def warm_up(self) -> int:
        """How long the warm-up lasts, in nanoseconds."""
        return int(self.seconds * WARM_UP_PART * _NS)

    @property
    def duration(self) -> int:
        """How long all of it lasts, in nanoseconds."""
        return self.warm_up + int(self.seconds * _NS)

    def payload(self) -> bytes:
        """Return what all messages hold."""
        total = self.size - HEADER_SIZE
        value = (TEXT + self.mark).ljust(total, b"\0")
        if total - STANDARD_HEADER_SIZE <= STANDARD_MAX:
            return build_tlv(TLV_TYPE, value[: total - STANDARD_HEADER_SIZE])
        if total - EXTENDED_HEADER_SIZE > STANDARD_MAX:
            return build_tlv(TLV_TYPE, value[: total - EXTENDED_HEADER_SIZE])
        # Three sizes are too large for the one form and too small for the other.
        halves = (total // 2, total - total // 2)
        return b"".join(build_tlv(TLV_TYPE, value[: n - STANDARD_HEADER_SIZE]) for n in halves)

    def blocks(self) -> list[bytes]:
        """Return what is written at full load, over and over; sequences count from 1."""
        messages, payload = max(BLOCK_SIZE // self.size, 1), self.payload()
        sequences = count(1)
        return [
            b"".join(message(payload, next(sequences), self.timestamp) for _ in range(messages))
            for _ in range(CYCLE_BLOCKS)
        ]


def due(sequence: int, rate: int) -> int:
    """Return when a message is due at a rate, in nanoseconds after the start."""
    return (sequence - 1) * _NS // rate


def due_by(elapsed: int, rate: int) -> int:
    """Return the last sequence that is due so many nanoseconds after the start."""
    return -(-(elapsed + 1) * rate // _NS)


def message(payload: bytes, sequence: int, timestamp: int) -> bytes:
    """Return a whole message; ``timestamp`` is in nanoseconds since the epoch."""
    return build_message(
        payload, domain=DOMAIN, source=SOURCE, sequence=sequence, timestamp=timestamp
    )
