"""How payloads are made smaller on their way through NATS, where that pays.

Each is one frame of zstd (RFC 8878), as in compressed messages of the wire, whose bounds it has.
"""

from enum import StrEnum

import zstandard

from alphapulse_relay.protocol_v2.compression import RATIO_MAX, expand_frame

LEVEL = -1
"""Of zstd. 1, the next, makes signals a tenth smaller at best, and takes half as long again."""
SMALLEST = 1024
"""Bytes from which on it is tried: what smaller ones could save, headers of a NATS message take."""
LEAST_SAVED = 0.2
"""Part of a payload that must be saved for :attr:`When.AUTO`: with less it takes about as much of
the processors as NATS and the bridges are spared."""
REST = 15
"""For each byte on which that was tried in vain, so many of the same type go as they are before it
is tried again. Signals that do not shrink so cost hardly anything, and it is noticed if they do."""
PLAIN_MAX = 64 << 20
"""Bytes of a payload up to which it is compressed, and expanded: nats-server warns of a
``max_payload`` above 8 MiB (server/const.go, ``MAX_PAYLOAD_MAX_SIZE``). More goes as it is."""


class When(StrEnum):
    """When payloads are compressed."""

    AUTO = "auto"
    """Where they shrink by a fifth."""
    ALWAYS = "always"
    """Where they shrink at all."""
    NEVER = "never"


class Compressor:
    """Compresses payloads, and remembers for :attr:`When.AUTO` of which types that is in vain."""

    def __init__(self, when: When) -> None:
        self._when = when
        self._rest: dict[int | None, int] = {}  # of each type, bytes before it is tried again
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False)

    def compress(self, payload: bytes, type_: int | None = None) -> bytes | None:
        """Return a payload as one frame of zstd; None where it is to go as it is.

        ``type_`` is that of all its messages, where they are split by type.
        """
        size = len(payload)
        if self._when is When.NEVER or not SMALLEST <= size <= PLAIN_MAX:
            return None
        rest = self._rest.get(type_, 0)
        if rest > 0:
            self._rest[type_] = rest - size
            return None
        frame = self._zstd.compress(payload)
        if self._when is When.AUTO and len(frame) > (1 - LEAST_SAVED) * size:
            self._rest[type_] = REST * size
            return None
        return frame if len(frame) < size <= RATIO_MAX * len(frame) else None


def plain_size(frame: bytes) -> int:
    """Return how many bytes a frame says that its payload has; its own if it says nothing."""
    try:
        size: int = zstandard.get_frame_parameters(frame).content_size
    except zstandard.ZstdError:
        return len(frame)
    return len(frame) if size == zstandard.CONTENTSIZE_UNKNOWN else size


def expand(frame: bytes) -> bytes:
    """Return the payload of a frame.

    Raises :class:`~alphapulse_relay.protocol_v2.errors.WireError` for what is no whole frame, or
    would have more than :data:`PLAIN_MAX` bytes, or more than ``RATIO_MAX`` times the frame's.
    """
    return expand_frame(frame, PLAIN_MAX)
