"""The 32-byte message header, and whole messages built from it.

Knows the layout of the header and the checksum; does not look into the payload.
"""

import struct
import zlib
from enum import IntEnum, IntFlag
from typing import NamedTuple, Self

from alphapulse_relay.protocol_v2.errors import Rejection, WireError

MAGIC = 0xDEADBEEF
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
VERSION = 1
HEADER_SIZE = 32
"""Bytes before the payload."""
CHECKSUM_OFFSET = 28
"""Where the checksum lies in the message; it covers all bytes but its own four."""
SIZE_LIMIT = (1 << 32) - 1
"""Largest payload that the 32-bit size field can state, in bytes."""

_HEADER = struct.Struct("<IBBBBQQII")


class Domain(IntEnum):
    """Relay domains (protocol document, "Header", offset 4)."""

    MARKET_DATA = 1
    SIGNAL = 2
    EXECUTION = 3
    SYSTEM = 4


class Flags(IntFlag):
    """Bits of the header's flags byte that have a meaning; all others pass through."""

    ZSTD = 1


class Header(NamedTuple):
    """A message header (protocol document, "Header").

    ``timestamp`` is in nanoseconds since the epoch, ``payload_size`` in bytes after the header.
    ``version``, ``source`` and ``flags`` are the bytes at offsets 5, 6 and 7 as they stand; use
    :attr:`publisher` for the source that also holds for legacy writers.
    """

    domain: int
    version: int
    source: int
    flags: int
    sequence: int
    timestamp: int
    payload_size: int
    checksum: int

    @classmethod
    def unpack(cls, data: bytes | memoryview, offset: int = 0) -> Self:
        """Read the header of the message that begins at ``offset``.

        Raises :class:`WireError` (``magic``) if fewer than 32 bytes are there or the magic is not.
        """
        if len(data) - offset < HEADER_SIZE:
            raise WireError(Rejection.MAGIC, offset, "fewer than the 32 bytes of a header")
        magic, *fields = _HEADER.unpack_from(data, offset)
        if magic != MAGIC:
            raise WireError(Rejection.MAGIC, offset, f"0x{magic:08X} instead of 0x{MAGIC:08X}")
        return cls(*fields)

    def pack(self) -> bytes:
        """Return the 32 bytes. Raises ``struct.error`` if a field does not fit its width."""
        return _HEADER.pack(MAGIC, *self)

    @property
    def legacy(self) -> bool:
        """Whether a legacy writer made it: those put their source where the version belongs."""
        return self.version != VERSION

    @property
    def publisher(self) -> int:
        """The source: byte 6 where byte 5 is 1, else byte 5."""
        return self.version if self.legacy else self.source

    @property
    def message_size(self) -> int:
        """Bytes of the whole message."""
        return HEADER_SIZE + self.payload_size


def checksum(message: bytes | memoryview) -> int:
    """CRC-32 (IEEE 802.3, as zlib's) over a whole message without its checksum field.

    ``message`` is header and payload, at least 32 bytes; the four bytes at offset 28 are skipped.
    """
    return zlib.crc32(message[HEADER_SIZE:], zlib.crc32(message[:CHECKSUM_OFFSET]))


def build_message(
    payload: bytes,
    *,
    source: int,
    sequence: int,
    timestamp: int,
    domain: int = Domain.SIGNAL,
    flags: int = 0,
    with_checksum: bool = True,
) -> bytes:
    """Return a whole message around ``payload`` (TLVs end to end, at most 4 GiB - 1).

    ``timestamp`` is in nanoseconds since the epoch. Without ``with_checksum`` the field is 0,
    "not computed". Raises ``ValueError`` if a number does not fit its field.
    """
    header = Header(domain, VERSION, source, flags, sequence, timestamp, len(payload), 0)
    try:
        message = header.pack() + payload
    except struct.error as error:
        raise ValueError(f"a header field is out of range: {error}") from None
    if not with_checksum:
        return message
    crc = checksum(message).to_bytes(4, "little")
    return message[:CHECKSUM_OFFSET] + crc + message[HEADER_SIZE:]
