"""Control messages: what a relay and a peer say to each other (protocol document, "Control").

A control message is a message of domain 4 with its checksum set and one TLV. This knows what the
messages hold; it does not know what a relay or a peer does about them.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import STRICT, IntEnum, IntFlag
from typing import Any, NamedTuple, TypeVar

from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.header import Domain, Flags, Header, build_message, checksum
from alphapulse_relay.protocol_v2.tlv import TLV, build_tlv, parse_tlvs

RELAY_SOURCE = 80
"""The first of the source numbers that are the relays' (80-99)."""
ERROR_TEXT_MAX = 1024
"""Most bytes of text in an Error: for a person's eye, and surely within one socket buffer."""
LIST_MAX = 255
"""Most types, and most sources, in a Subscribe: how many there are is a u8."""
NAME_MAX = 255
"""Most bytes of a name in UTF-8: their number is a u8."""
BRIDGE_NAME = "bridge"
"""Of what joins a relay to others, so that a relay has one: two would send each other's messages
round in a circle. Others do not wait for it, as it goes on in the journal."""
RETRANSMIT = 1
"""The one request_type of a RecoveryRequest that has a meaning."""

_SUBSCRIBE = struct.Struct("<BBQQ")
_SYNC = struct.Struct("<QQB")
_GAP = struct.Struct("<QQQB")
_ACK = struct.Struct("<BQQ")
_REQUEST = struct.Struct("<IQQBx")
_RESPONSE = struct.Struct("<IQQQ")
_HEARTBEAT = struct.Struct("<QB7x")
_CODE = struct.Struct("<H")
_Number = TypeVar("_Number", bound=IntEnum | IntFlag)


class ControlType(IntEnum):
    """TLV types of control messages."""

    HEARTBEAT = 100
    ERROR = 102
    RECOVERY_REQUEST = 110
    RECOVERY_RESPONSE = 111
    SEQUENCE_SYNC = 112
    SUBSCRIBE = 220
    GAP = 221
    ACK = 222


class Wish(IntFlag, boundary=STRICT):
    """What a subscriber wants beside the messages."""

    POSITIONS = 1
    """A SequenceSync after deliveries too."""
    ZSTD = 2
    """Messages may come compressed."""
    STOP_AT_HEAD = 4
    """No more than is there now; then a SequenceSync, and the relay closes."""
    HEARTBEATS = 8
    """A Heartbeat each interval of silence."""
    SKIP_WHEN_BEHIND = 16
    """To be moved on to the head, with a Gap, rather than to fall far behind."""
    ACKNOWLEDGE = 32
    """An Ack for what this peer publishes."""


NO_WISH = Wish(0)


class Start(IntEnum):
    """Where a subscription begins; the second column is what ``start_value`` means."""

    LIVE = 0
    """At the head; nothing."""
    POSITION = 1
    """At a position of the journal of that epoch."""
    TIME = 2
    """At the first message that came at or after a time, in ns since the epoch."""
    LAST = 3
    """With the last N messages."""


class SyncState(IntEnum):
    """Whether a peer has had all that it asked for."""

    REPLAYING = 0
    LIVE = 1


class GapReason(IntEnum):
    """Why positions will not come."""

    RETENTION = 1
    """They are no longer kept."""
    SKIPPED = 2
    """The peer was behind and had wished to be moved on."""
    DAMAGE = 3
    """The journal cannot read them."""


class ErrorCode(IntEnum):
    """Codes of an Error, for programs; the text beside it is for people."""

    BROKEN_STREAM = 1
    """What the peer sent cannot be cut into messages (magic, size)."""
    TOO_MANY_PEERS = 2
    """The relay has as many connections as it may."""
    MALFORMED = 3
    """A control message that cannot be read, or is not known."""
    WRONG_EPOCH = 4
    """The bookmark is one into another journal."""
    NOT_KEPT = 5
    """The position is beyond the head."""
    NAME_TAKEN = 6
    """Another connection has that name."""
    NOT_DURABLE = 7
    """Acknowledgements are asked for that the journal cannot give now."""
    FORBIDDEN = 8
    """The access rules of the relay do not allow this peer what it asks for."""
    LEAVING = 9
    """The relay leaves, and is as a rule back at once: connect again."""


class ControlError(ValueError):
    """A control message that cannot be read; ``str()`` is one line that says what is wrong."""

    code = ErrorCode.MALFORMED


@dataclass(frozen=True)
class Subscribe:
    """Which messages a peer wants, and from where. Replaces its subscription from there on.

    ``start_value`` is what ``start`` says. ``epoch`` is that of the journal which a position was
    taken from, 0 for whatever it is now. No ``types`` are all TLV types, no ``sources`` all
    publishers, no ``name`` an unnamed peer.
    """

    wishes: Wish = NO_WISH
    start: Start = Start.LIVE
    start_value: int = 0
    epoch: int = 0
    types: frozenset[int] = frozenset()
    sources: frozenset[int] = frozenset()
    name: str = ""


class SequenceSync(NamedTuple):
    """All before ``position`` that the peer asked for has been sent."""

    epoch: int
    position: int
    state: SyncState


class Gap(NamedTuple):
    """The positions from ``start`` to before ``stop`` will not come."""

    epoch: int
    start: int
    stop: int
    reason: GapReason


class Ack(NamedTuple):
    """A publisher's messages up to ``sequence`` are in the journal, before ``position``."""

    source: int
    sequence: int
    position: int


class RecoveryRequest(NamedTuple):
    """Send again the messages of ``source`` with last < sequence < current.

    ``source`` is that of the message's header.
    """

    source: int
    consumer_id: int
    last_sequence: int
    current_sequence: int


class RecoveryResponse(NamedTuple):
    """The end of a retransmission: ``count`` messages have been sent again."""

    consumer_id: int
    first_sequence: int
    last_sequence: int
    count: int  # type: ignore[assignment]  # the tuple's method is not missed


class Heartbeat(NamedTuple):
    """A sign of life; ``timestamp`` is in ns since the epoch."""

    timestamp: int
    status: int


class ErrorMessage(NamedTuple):
    """What went wrong: ``code`` for programs (:class:`ErrorCode`, or one that is newer)."""

    code: int
    text: str


ControlMessage = (
    Subscribe
    | SequenceSync
    | Gap
    | Ack
    | RecoveryRequest
    | RecoveryResponse
    | Heartbeat
    | ErrorMessage
)


def build_control(content: ControlMessage, *, timestamp: int, source: int = RELAY_SOURCE) -> bytes:
    """Return the whole message that says ``content``; ``timestamp`` is in ns since the epoch.

    ``source`` is who speaks; the header of a RecoveryRequest has the content's source instead. An
    Error's text is cut at 1,024 bytes. Raises ``ValueError`` for what does not fit its field.
    """
    try:
        control_type, value = _pack(content)
    except struct.error as error:
        raise ValueError(f"a field of {type(content).__name__} is out of range: {error}") from None
    if isinstance(content, RecoveryRequest):
        source = content.source
    return build_message(
        build_tlv(control_type, value),
        source=source,
        sequence=0,
        timestamp=timestamp,
        domain=Domain.SYSTEM,
    )


def parse_control(message: bytes) -> ControlMessage:
    """Return what a whole control message says.

    Raises :class:`ControlError` for one that cannot be read or is not known here, and
    :class:`~alphapulse_relay.protocol_v2.errors.WireError` for bytes that are no message.
    """
    header = Header.unpack(message)
    tlv = _only_tlv(message, header)
    try:
        read = _READERS[ControlType(tlv.type)]
    except ValueError:
        raise ControlError(f"TLV type {tlv.type} is not one of control") from None
    return read(tlv.value, header)


def build_error(code: ErrorCode, text: str, *, timestamp: int) -> bytes:
    """Return a whole Error message of the relay's; ``timestamp`` is in ns since the epoch."""
    return build_control(ErrorMessage(code, text), timestamp=timestamp)


def parse_error(message: bytes) -> ErrorMessage | None:
    """Return the Error that a whole message carries; ``None`` if it is any other message.

    Raises :class:`~alphapulse_relay.protocol_v2.errors.WireError` for bytes that are no message.
    """
    try:
        content = parse_control(message)
    except ControlError:
        return None
    return content if isinstance(content, ErrorMessage) else None


def _pack(content: ControlMessage) -> tuple[ControlType, bytes]:
    match content:
        case Subscribe():
            return ControlType.SUBSCRIBE, _pack_subscribe(content)
        case SequenceSync():
            return ControlType.SEQUENCE_SYNC, _SYNC.pack(*content)
        case Gap():
            return ControlType.GAP, _GAP.pack(*content)
        case Ack():
            return ControlType.ACK, _ACK.pack(*content)
        case RecoveryRequest():
            return ControlType.RECOVERY_REQUEST, _REQUEST.pack(*content[1:], RETRANSMIT)
        case RecoveryResponse():
            return ControlType.RECOVERY_RESPONSE, _RESPONSE.pack(*content)
        case Heartbeat():
            return ControlType.HEARTBEAT, _HEARTBEAT.pack(*content)
        case ErrorMessage():
            # Cut between characters, not within one.
            text = content.text.encode()[:ERROR_TEXT_MAX].decode(errors="ignore").encode()
            return ControlType.ERROR, _CODE.pack(content.code) + text


def _pack_subscribe(content: Subscribe) -> bytes:
    name = content.name.encode()
    if len(name) > NAME_MAX:
        raise ValueError(f"a name of {len(name)} bytes: the longest is {NAME_MAX}")
    lists = [bytes(sorted(numbers)) for numbers in (content.types, content.sources)]
    if max(map(len, lists)) > LIST_MAX:
        raise ValueError(f"a Subscribe lists {LIST_MAX} types or sources at most; none are all")
    fixed = _SUBSCRIBE.pack(content.wishes, content.start, content.start_value, content.epoch)
    return fixed + b"".join(bytes([len(part)]) + part for part in (*lists, name))


def _only_tlv(message: bytes, header: Header) -> TLV:
    """Return the TLV of a control message, in which there must be nothing else."""
    if header.domain != Domain.SYSTEM:
        raise ControlError(f"domain {header.domain}, control has {Domain.SYSTEM.value}")
    if header.legacy or header.flags & Flags.ZSTD:
        raise ControlError("control has version 1 and is not compressed")
    if len(message) != header.message_size:
        raise ControlError(f"{len(message)} bytes, the header states {header.message_size}")
    if header.checksum == 0 or header.checksum != checksum(message):
        raise ControlError("the checksum is missing or wrong")
    try:
        tlvs = parse_tlvs(message)
    except WireError as error:
        raise ControlError(error.detail) from None
    if len(tlvs) != 1:
        raise ControlError(f"{len(tlvs)} TLVs instead of one")
    return tlvs[0]


def _read_subscribe(value: bytes, _header: Header) -> Subscribe:
    if len(value) < _SUBSCRIBE.size:
        raise ControlError(f"a Subscribe of {len(value)} bytes is cut short")
    wishes, start, start_value, epoch = _SUBSCRIBE.unpack_from(value)
    types, rest = _split_counted(value[_SUBSCRIBE.size :])
    sources, rest = _split_counted(rest)
    name, rest = _split_counted(rest)
    if rest:
        raise ControlError(f"{len(rest)} bytes follow the name of a Subscribe")
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise ControlError("a name that is not UTF-8") from None
    return Subscribe(
        _known(Wish, wishes),
        _known(Start, start),
        start_value,
        epoch,
        frozenset(types),
        frozenset(sources),
        text,
    )


def _split_counted(data: bytes) -> tuple[bytes, bytes]:
    """Cut off as many bytes as the first byte says; return them and the rest."""
    stop = 1 + data[0] if data else 1
    if stop > len(data):
        raise ControlError("a list or the name of a Subscribe is cut short")
    return data[1:stop], data[stop:]


def _read_sync(value: bytes, _header: Header) -> SequenceSync:
    epoch, position, state = _fields(_SYNC, value)
    return SequenceSync(epoch, position, _known(SyncState, state))


def _read_gap(value: bytes, _header: Header) -> Gap:
    epoch, start, stop, reason = _fields(_GAP, value)
    return Gap(epoch, start, stop, _known(GapReason, reason))


def _read_ack(value: bytes, _header: Header) -> Ack:
    return Ack(*_fields(_ACK, value))


def _read_request(value: bytes, header: Header) -> RecoveryRequest:
    consumer_id, last_sequence, current_sequence, request_type = _fields(_REQUEST, value)
    if request_type != RETRANSMIT:
        raise ControlError(f"request_type {request_type} is not known ({RETRANSMIT} retransmit)")
    return RecoveryRequest(header.source, consumer_id, last_sequence, current_sequence)


def _read_response(value: bytes, _header: Header) -> RecoveryResponse:
    return RecoveryResponse(*_fields(_RESPONSE, value))


def _read_heartbeat(value: bytes, _header: Header) -> Heartbeat:
    return Heartbeat(*_fields(_HEARTBEAT, value))


def _read_error(value: bytes, _header: Header) -> ErrorMessage:
    if len(value) < _CODE.size:
        raise ControlError("an Error without a code")
    (code,) = _CODE.unpack_from(value)
    return ErrorMessage(code, value[_CODE.size :].decode(errors="replace"))


def _fields(layout: struct.Struct, value: bytes) -> tuple[Any, ...]:
    if len(value) != layout.size:
        raise ControlError(f"a value of {len(value)} bytes, it has to be {layout.size}")
    return layout.unpack(value)


def _known(kind: type[_Number], number: int) -> _Number:
    try:
        return kind(number)
    except ValueError:
        raise ControlError(f"{kind.__name__} {number} is not known") from None


_READERS: dict[ControlType, Callable[[bytes, Header], ControlMessage]] = {
    ControlType.HEARTBEAT: _read_heartbeat,
    ControlType.ERROR: _read_error,
    ControlType.RECOVERY_REQUEST: _read_request,
    ControlType.RECOVERY_RESPONSE: _read_response,
    ControlType.SEQUENCE_SYNC: _read_sync,
    ControlType.SUBSCRIBE: _read_subscribe,
    ControlType.GAP: _read_gap,
    ControlType.ACK: _read_ack,
}
