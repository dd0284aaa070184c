"""Control messages: any bytes in a message that is whole.

What must hold:

- Parsing gives what the message says, or a ControlError of one line, or a WireError where the
  bytes are no message.
- What was parsed can be built again, and is parsed to the same.
"""

from collections.abc import Iterator

from alphapulse_relay.protocol_v2 import control
from alphapulse_relay.protocol_v2.control import (
    ERROR_TEXT_MAX,
    Ack,
    ControlError,
    ControlMessage,
    ControlType,
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    Heartbeat,
    RecoveryRequest,
    RecoveryResponse,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
    build_control,
    parse_control,
)
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Domain, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from fuzz.choices import Choices

MODULES = (control,)
MAX_LEN = 200
COMPARISONS = False
WORDS: tuple[str, ...] = ()
_HEADER, _TLV = 1 << 6, 1 << 7
"""Bits of a message's first byte, of which the lowest say its type: the header, or all, is odd."""
_TYPES = tuple(ControlType)
_NORMAL = bytes([Domain.SYSTEM, 1, 30, 0])


def run(data: bytes) -> None:
    """Parse a control message; see above."""
    check_parsing(one_message(Choices(data)))


def seeds() -> Iterator[bytes]:
    """Yield what to begin with: each kind of message."""
    contents: list[ControlMessage] = [
        Subscribe(),
        Subscribe(Wish.POSITIONS | Wish.ZSTD | Wish.HEARTBEATS, Start.POSITION, 640),
        Subscribe(Wish.ACKNOWLEDGE, types=frozenset({21}), name="desk"),
        Subscribe(Wish.STOP_AT_HEAD, Start.LAST, 5, sources=frozenset({20, 30})),
        Subscribe(Wish.SKIP_WHEN_BEHIND, Start.TIME, 1),
        Subscribe(Wish.POSITIONS, Start.LAST, 3, types=frozenset({21, 22})),
        SequenceSync(1, 2, SyncState.LIVE),
        Gap(1, 2, 3, GapReason.SKIPPED),
        Ack(20, 1, 64),
        RecoveryRequest(20, 7, 2, 30),
        RecoveryResponse(7, 2, 30, 27),
        Heartbeat(1, 0),
        ErrorMessage(ErrorCode.MALFORMED, "text"),
    ]
    yield from map(_choices, contents)
    yield bytes([_HEADER]) + _NORMAL + bytes([3, 1, 2, 3])


def one_message(choices: Choices) -> bytes:
    """Return a message of control, with a right checksum."""
    shape = choices.byte()
    domain, version, source, flags = _NORMAL
    if shape & _HEADER:
        domain, version, source, flags = choices.take(4).ljust(4, b"\0")
    value = choices.take(choices.byte())
    payload = value if shape & _TLV else build_tlv(_TYPES[shape % len(_TYPES)], value)
    made = build_message(
        payload, source=source, sequence=0, timestamp=1, domain=domain, flags=flags
    )
    if version == 1:
        return made
    return build_message_of_version(made, version)


def build_message_of_version(made: bytes, version: int) -> bytes:
    """Return the message with another version; its checksum is 0, so that it is not looked at."""
    return made[:5] + bytes([version]) + made[6:28] + bytes(4) + made[HEADER_SIZE:]


def _choices(content: ControlMessage) -> bytes:
    payload = build_control(content, timestamp=1)[HEADER_SIZE:]
    return bytes([_TYPES.index(ControlType(payload[0])), len(payload) - 2]) + payload[2:]


def check_parsing(data: bytes) -> None:
    """Parse a message, build what it says, and parse that."""
    try:
        content = parse_control(data)
    except ControlError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return
    except WireError:
        return
    again = parse_control(build_control(content, timestamp=1))
    if isinstance(content, ErrorMessage):
        text = content.text.encode()[:ERROR_TEXT_MAX].decode(errors="ignore")
        content = ErrorMessage(content.code, text)
    assert again == content, f"{content} became {again}"
