"""How payloads are made smaller on their way through NATS, where that pays.

Knows zstd (RFC 8878). What comes is expanded in bounded memory, whatever its frame claims.
"""

from enum import StrEnum

import zstandard

LEVEL = -1
"""Of zstd. 1, the next, makes signals a tenth smaller at best, and takes half as long again."""
SMALLEST = 1024
"""Bytes from which on it is tried: of what is smaller the headers are the larger part."""
LEAST_SAVED = 0.2
"""Part of a payload that must be saved for :attr:`When.AUTO`: with less it takes about as much of
the processors as NATS and the bridges are spared."""
REST = 15
"""For each byte on which that was tried in vain, so many go as they are before it is tried again.
Signals that do not shrink cost hardly anything so, and those that do are noticed."""
PLAIN_MAX = 64 << 20
"""Bytes that a payload may have: nothing larger was ever published, since nats-server allows no
larger ``max_payload`` (server/const.go, ``MAX_PAYLOAD_MAX_SIZE``)."""


class When(StrEnum):
    """When payloads are compressed."""

    AUTO = "auto"
    """Where they shrink by a fifth."""
    ALWAYS = "always"
    """Where they shrink at all."""
    NEVER = "never"


_expander = zstandard.ZstdDecompressor()  # costly to make; a bridge has one thread


class CompressionError(Exception):
    """What cannot be expanded. ``str()`` says why."""


class Compressor:
    """Compresses one payload after the other, and remembers where that was in vain."""

    def __init__(self, when: When) -> None:
        self._when = when
        self._rest = 0  # bytes before it is tried again
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False)

    def compress(self, payload: bytes) -> bytes | None:
        """Return a payload as one frame of zstd; None where it is to go as it is."""
        if self._when is When.NEVER or len(payload) < SMALLEST:
            return None
        if self._rest > 0:
            self._rest -= len(payload)
            return None
        frame = self._zstd.compress(payload)
        saved = 1 - len(frame) / len(payload)
        if self._when is When.AUTO and saved < LEAST_SAVED:
            self._rest = REST * len(payload)
            return None
        return frame if saved > 0 else None


def plain_size(frame: bytes) -> int:
    """Return how many bytes a frame says that its payload has; its own if it says nothing."""
    try:
        size: int = zstandard.get_frame_parameters(frame).content_size
    except zstandard.ZstdError:
        return len(frame)
    return len(frame) if size == zstandard.CONTENTSIZE_UNKNOWN else size


def expand(frame: bytes) -> bytes:
    """Return the payload of a frame. Raises :class:`CompressionError`."""
    if plain_size(frame) > PLAIN_MAX:
        raise CompressionError(f"it says that it has {plain_size(frame)} bytes")
    try:
        return _expander.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CompressionError(str(error)) from error
