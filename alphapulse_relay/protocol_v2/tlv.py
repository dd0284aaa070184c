"""TLVs: the typed values that a payload holds end to end.

Knows the three forms that are on the wire: standard (type u8, length u8), extended (255, 0,
type u8, length u16) and legacy (type u16, length u16). Does not know what the values mean.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Header

EXTENDED = 255
"""The type byte that announces an extended TLV."""
STANDARD_HEADER_SIZE = 2
EXTENDED_HEADER_SIZE = 5
LEGACY_HEADER_SIZE = 4
LEGACY_TYPE_MAX = 255
"""Largest type in a legacy TLV: it has two bytes for it, but the types are those of one."""
STANDARD_MAX = 255
"""Most bytes in a standard TLV's value: its length is a u8."""
EXTENDED_MAX = 65_535
"""Most bytes in an extended TLV's value: its length is a u16."""

_EXTENDED = struct.Struct("<BBBH")
_LEGACY = struct.Struct("<HH")


class TLV(NamedTuple):
    """A type (0-254; of a legacy writer also 255) and its value."""

    type: int
    value: bytes


def build_tlv(tlv_type: int, value: bytes) -> bytes:
    """Return one TLV: standard where the value fits 255 bytes, extended up to 65,535.

    Raises ``ValueError`` for a longer value or a type outside 0-254.
    """
    if not 0 <= tlv_type < EXTENDED:
        raise ValueError(f"TLV type {tlv_type} is not in 0-254")
    if len(value) <= STANDARD_MAX:
        return bytes((tlv_type, len(value))) + value
    if len(value) <= EXTENDED_MAX:
        return _EXTENDED.pack(EXTENDED, 0, tlv_type, len(value)) + value
    raise ValueError(f"a TLV value of {len(value)} bytes: the longest is {EXTENDED_MAX}")


class Span(NamedTuple):
    """Where a TLV lies in its buffer: its type, and the offsets of its value."""

    type: int
    start: int
    stop: int


def spans(data: bytes | memoryview, start: int, stop: int) -> Iterator[Span]:
    """Walk the standard and extended TLVs in ``data[start:stop]``, in order.

    Raises :class:`WireError` (``tlv``) where one is cut short or not of either form; the ones
    before it have been yielded by then.
    """
    while start < stop:
        tlv_type = data[start]
        if tlv_type != EXTENDED:
            value = start + STANDARD_HEADER_SIZE
            if value > stop:
                raise _malformed(start, "a TLV header is cut short")
            end = value + data[start + 1]
        else:
            value = start + EXTENDED_HEADER_SIZE
            if value > stop:
                raise _malformed(start, "an extended TLV header is cut short")
            _, zero, tlv_type, length = _EXTENDED.unpack_from(data, start)
            if zero or tlv_type == EXTENDED:
                raise _malformed(start, "not the form of an extended TLV (255, 0, type, length)")
            end = value + length
        if end > stop:
            raise _malformed(
                start, f"type {tlv_type} states {end - value} bytes, {stop - value} are left"
            )
        yield Span(tlv_type, value, end)
        start = end


def legacy_spans(data: bytes | memoryview, start: int, stop: int) -> Iterator[Span]:
    """Walk TLVs as legacy writers make them: type u16, length u16, value.

    Here 255 is a type like any other. Raises :class:`WireError` (``tlv``) where one is cut short
    or its type is above 255: then these are no TLVs of this form.
    """
    while start < stop:
        value = start + LEGACY_HEADER_SIZE
        if value > stop:
            raise _malformed(start, "a legacy TLV header is cut short")
        tlv_type, length = _LEGACY.unpack_from(data, start)
        if tlv_type > LEGACY_TYPE_MAX or value + length > stop:
            raise _malformed(
                start, f"legacy type {tlv_type} states {length} bytes, {stop - value} are left"
            )
        yield Span(tlv_type, value, value + length)
        start = value + length


def parse_tlvs(message: bytes | memoryview) -> list[TLV]:
    """Return the TLVs of a whole message (header and payload), legacy writers' included.

    Raises :class:`WireError` (``tlv``, its offset counted from the start of the message), also
    if the message is shorter than its header says.
    """
    header = Header.unpack(message)
    if len(message) < header.message_size:
        detail = f"the header states {header.message_size} bytes, {len(message)} are there"
        raise _malformed(len(message), detail)
    walk = legacy_spans if header.legacy else spans
    return [
        TLV(span.type, bytes(message[span.start : span.stop]))
        for span in walk(message, HEADER_SIZE, header.message_size)
    ]


def _malformed(offset: int, detail: str) -> WireError:
    return WireError(Rejection.TLV, offset, detail)
