"""A message as a document: all that it holds, in values that JSON has.

Knows the wire and the signal table; not how the document is shown.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.header import Flags, Header
from alphapulse_relay.protocol_v2.signals import Signal, SignalTable
from alphapulse_relay.protocol_v2.tlv import TLV, parse_tlvs

_NS = 1_000_000_000


@dataclass(frozen=True)
class Contents:
    """The TLVs of a message, or ``fault``: why they cannot be read."""

    tlvs: tuple[TLV, ...]
    fault: str | None = None


def read_contents(message: bytes, header: Header) -> Contents:
    """Return the TLVs of a whole message."""
    if not header.legacy and header.flags & Flags.ZSTD:
        return Contents((), f"compressed with zstd: {header.payload_size} B")
    try:
        return Contents(tuple(parse_tlvs(message)))
    except WireError as error:
        return Contents((), str(error))


def time_text(timestamp: int, digits: int = 9) -> str:
    """Return nanoseconds since the epoch as UTC text (RFC 3339) with so many decimals."""
    seconds, nanoseconds = divmod(timestamp, _NS)
    fraction = f"{nanoseconds:09}"[:digits]
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction}Z"


def describe(message: bytes, table: SignalTable) -> dict[str, object]:
    """Return a whole message as a JSON object.

    The header's fields are exact integers. ``source`` and ``flags`` are the bytes at offsets 6 and
    7 as they stand; ``publisher`` is the source that also holds for legacy writers. Raises
    :class:`WireError` (``magic``) for what does not begin with a header.
    """
    header = Header.unpack(message)
    contents = read_contents(message, header)
    tlvs = [_tlv(tlv, table.decode(tlv)) for tlv in contents.tlvs]
    return {**_head(message, header), "tlvs": tlvs, "fault": contents.fault}


def describe_head(message: bytes, fault: str) -> dict[str, object]:
    """Return the same without TLVs, and why there are none."""
    return {**_head(message, Header.unpack(message)), "tlvs": [], "fault": fault}


def _head(message: bytes, header: Header) -> dict[str, object]:
    return {
        "time": time_text(header.timestamp),
        "publisher": header.publisher,
        **header._asdict(),
        "legacy": header.legacy,
        "message_size": len(message),
    }


def _tlv(tlv: TLV, signal: Signal) -> dict[str, object]:
    return {
        "type": signal.type,
        "name": signal.name,
        "fields": signal.fields,
        "hex": f"0x{tlv.value.hex()}",
    }
