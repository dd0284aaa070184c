"""Control messages: what a relay and a peer say to each other (protocol document, "Control").

A control message is a message of domain 4 with its checksum set. So far the relay says one thing:
an Error, just before it closes a connection.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.header import Domain, Header, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv, parse_tlvs

RELAY_SOURCE = 80
"""The first of the source numbers that are the relays' (80-99)."""
ERROR_TEXT_MAX = 1024
"""Most bytes of text in an Error: for a person's eye, and surely within one socket buffer."""
_CODE = struct.Struct("<H")


class ControlType(IntEnum):
    """TLV types of control messages."""

    ERROR = 102


class ErrorCode(IntEnum):
    """Codes of an Error, for programs; the text beside it is for people."""

    BROKEN_STREAM = 1
    """What the peer sent cannot be cut into messages (magic, size)."""
    TOO_MANY_PEERS = 2
    """The relay has as many connections as it may."""


class ErrorMessage(NamedTuple):
    """The content of an Error."""

    code: int
    text: str


def build_error(code: ErrorCode, text: str, *, timestamp: int) -> bytes:
    """Return a whole Error message: code u16, then UTF-8 text (cut at 1,024 bytes).

    ``timestamp`` is in nanoseconds since the epoch.
    """
    whole_characters = text.encode()[:ERROR_TEXT_MAX].decode(errors="ignore")
    value = _CODE.pack(code) + whole_characters.encode()
    return build_message(
        build_tlv(ControlType.ERROR, value),
        source=RELAY_SOURCE,
        sequence=0,
        timestamp=timestamp,
        domain=Domain.SYSTEM,
    )


def parse_error(message: bytes) -> ErrorMessage | None:
    """Return the Error that a whole message carries; ``None`` if it is any other message."""
    if Header.unpack(message).domain != Domain.SYSTEM:
        return None
    try:
        tlvs = parse_tlvs(message)
    except WireError:
        return None
    for tlv in tlvs:
        if tlv.type == ControlType.ERROR and len(tlv.value) >= _CODE.size:
            (code,) = _CODE.unpack_from(tlv.value)
            return ErrorMessage(code, tlv.value[_CODE.size :].decode(errors="replace"))
    return None
