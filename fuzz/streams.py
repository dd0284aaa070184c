"""Messages and streams of them, made from choices: most are sound but for what is chosen."""

import struct

import zstandard

from alphapulse_relay.protocol_v2.header import (
    CHECKSUM_OFFSET,
    HEADER_SIZE,
    MAGIC,
    checksum,
)
from alphapulse_relay.protocol_v2.tlv import build_tlv
from fuzz.choices import Choices

PARTS_MAX = 6
"""Parts of a stream: more of them show nothing that these do not."""
RAW, COMPRESSED, NO_CHECKSUM, ANY_CHECKSUM, ANY_SIZE, DAMAGED, ANYTHING = (
    1 << bit for bit in range(7)
)
"""Bits of the byte that a part begins with: in what it differs from a message with one TLV."""
_HEADER = struct.Struct("<I4sQQII")
_U32 = struct.Struct("<I")
_compressor = zstandard.ZstdCompressor(level=1)


def stream(choices: Choices) -> bytes:
    """Return messages end to end, and what else is chosen."""
    parts: list[bytes] = []
    while choices and len(parts) < PARTS_MAX:
        parts.append(_part(choices))
    return b"".join(parts)


def part(shape: int, head: bytes, content: bytes, size: int = 0) -> bytes:
    """Return the choices that make a message: its ``head`` is what follows the magic, four bytes.

    ``size`` is how often a TLV repeats the two bytes of its ``content``, behind its type.
    """
    length = len(content) if shape & RAW else size
    return bytes([shape]) + head + bytes([length]) + content


def anything(data: bytes) -> bytes:
    """Return the choices that make these bytes, 255 at most."""
    return bytes([ANYTHING, len(data)]) + data


def _part(choices: Choices) -> bytes:
    shape = choices.byte()
    if shape & ANYTHING:
        return choices.take(choices.byte())
    head, size = choices.take(4), choices.byte()
    payload = choices.take(size) if shape & RAW else _tlv(choices, size)
    if shape & COMPRESSED:
        payload = _compressor.compress(payload)
    stated = choices.number(4) if shape & ANY_SIZE else len(payload)
    message = bytearray(_HEADER.pack(MAGIC, head, size, 0, stated, 0) + payload)
    crc = checksum(memoryview(message))
    if shape & NO_CHECKSUM:
        crc = 0
    elif shape & ANY_CHECKSUM:
        crc = choices.number(4)
    _U32.pack_into(message, CHECKSUM_OFFSET, crc)
    if shape & DAMAGED:
        message[choices.byte() % (HEADER_SIZE + len(payload))] ^= choices.byte()
    return bytes(message)


def _tlv(choices: Choices, size: int) -> bytes:
    tlv_type = choices.byte() % 255
    return build_tlv(tlv_type, choices.take(2) * size)
