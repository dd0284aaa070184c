"""WebSocket frames of the log's messages, each made once for all that are sent the same.

Knows the two formats and compression (RFC 6455, RFC 7692); neither peers nor connections. What
takes long to make, text and compressed frames, is made within a budget of time, so that it holds up
nobody who is served plain bytes.
"""

import json
import zlib
from collections.abc import Callable
from enum import IntEnum
from itertools import islice
from time import perf_counter
from typing import Any, NamedTuple

from autobahn.websocket.protocol import PreparedMessage

from alphapulse_relay.hub.framed import Offer
from alphapulse_relay.hub.subscription import Filter
from alphapulse_relay.protocol_v2.control import (
    Ack,
    ControlError,
    ErrorMessage,
    Gap,
    Heartbeat,
    RecoveryResponse,
    SequenceSync,
    parse_control,
)
from alphapulse_relay.protocol_v2.document import describe, describe_head
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import message_size, split
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Domain, Header
from alphapulse_relay.protocol_v2.selection import walk
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.protocol_v2.tlv import STANDARD_HEADER_SIZE, legacy_spans, spans
from alphapulse_relay.web.query import Format

COSTLY_SIZE = 16 * 1024
"""Bytes of messages in a frame that is costly to make, about: a millisecond's work."""
COSTLY_SECONDS = 0.002
"""How long costly frames are made in one turn, at most a frame more: so who is sent plain bytes is
not held up for long."""
DECODED_MAX = 128 * 1024
"""Bytes of a message that is decoded: some milliseconds' work."""
TLVS_MAX = 256
"""TLVs of a message that is decoded: a millisecond's work."""
DEFLATED_MAX = 128 * 1024
"""Bytes of a frame that is compressed, some milliseconds' work; a larger one goes plain."""
FRAMES_KEPT = 4 << 20
"""Bytes of frames that are kept for who comes to the same messages a little later."""
_LEVEL = 1
"""Of compression: the fastest; the others take twice as long and more for some tenths less."""
_COMPRESSED = 0x40
"""The bit of a frame's first byte that says so (RFC 7692, section 7.2.3.1: RSV1)."""
_DOMAIN_OFFSET = 4
_CONTROL_NAMES = {
    SequenceSync: "sequence_sync",
    Gap: "gap",
    Ack: "ack",
    Heartbeat: "heartbeat",
    RecoveryResponse: "recovery_response",
    ErrorMessage: "error",
}


class Form(NamedTuple):
    """How messages are put into frames."""

    format: Format
    deflated: bool

    @property
    def costly(self) -> bool:
        """Whether a frame takes far longer to make than to send."""
        return self.deflated or self.format is Format.JSON


Key = tuple[Filter | None, int, Form]
"""Which messages from which position on, in which form: equal keys are equal beginnings."""


class Frames:
    """Makes frames, and keeps some; decodes by ``table``."""

    def __init__(self, table: SignalTable, clock: Callable[[], float] = perf_counter) -> None:
        self._table = table
        self._clock = clock
        self._spent = 0.0
        self._kept: dict[Key, tuple[bytes, int]] = {}
        self._size = 0

    def next_turn(self) -> None:
        """Take note that a new turn begins, in which costly frames may be made again."""
        self._spent = 0.0

    @property
    def exhausted(self) -> bool:
        """Whether as many costly frames were made in this turn as may be."""
        return self._spent >= COSTLY_SECONDS

    def frame(self, messages: memoryview, form: Form, offer: Offer | None) -> tuple[bytes, int]:
        """Return a frame with the first of the whole messages, and how many bytes they have.

        ``offer`` tells which they are; None keeps the frame for nobody else.
        """
        if offer is None:
            return self._made(messages, form)
        key = offer.filter, offer.position, form
        found = self._kept.get(key)
        if found is None or found[1] > len(messages):
            found = self._made(messages, form)
            self._keep(key, found)
        return found

    def _keep(self, key: Key, made: tuple[bytes, int]) -> None:
        before = self._kept.pop(key, None)
        self._size += len(made[0]) - (len(before[0]) if before else 0)
        self._kept[key] = made
        while self._size > FRAMES_KEPT and len(self._kept) > 1:
            frame, _ = self._kept.pop(next(iter(self._kept)))
            self._size -= len(frame)

    def _made(self, messages: memoryview, form: Form) -> tuple[bytes, int]:
        if not form.costly:
            return _frame(bytes(messages), form), len(messages)
        began = self._clock()
        payload = bytes(messages[: _part(messages)])
        size = len(payload)
        if form.format is Format.JSON:
            payload, size = self._text(payload, began + COSTLY_SECONDS)
        deflated = form.deflated and len(payload) <= DEFLATED_MAX
        frame = _frame(_deflate(payload) if deflated else payload, Form(form.format, deflated))
        self._spent += self._clock() - began
        return frame, size

    def _text(self, messages: bytes, until: float) -> tuple[bytes, int]:
        """Return the first messages as JSON, and their size: as many as there is time for."""
        documents, size = [], 0
        for message in split(messages):
            documents.append(_document(message, self._table))
            size += len(message)
            if self._clock() >= until:
                break
        return _json(documents), size


def text_of(messages: bytes, table: SignalTable) -> bytes:
    """Return whole messages as JSON: an array of objects, those of control with key ``control``."""
    return _json([_document(message, table) for message in split(messages)])


def _json(documents: list[dict[str, Any]]) -> bytes:
    return json.dumps(documents, ensure_ascii=False, separators=(",", ":")).encode()


def _document(message: bytes, table: SignalTable) -> dict[str, Any]:
    if message[_DOMAIN_OFFSET] == Domain.SYSTEM:
        try:
            return _control(message)
        except ControlError:
            pass  # a newer client's, from before the relay kept such to itself
    if len(message) > DECODED_MAX or _has_many_tlvs(message):
        fault = f"not decoded here: more than {DECODED_MAX} bytes, or {TLVS_MAX} TLVs"
        return describe_head(message, fault)
    return describe(message, table)


def _has_many_tlvs(message: bytes) -> bool:
    """Tell whether there are more than are decoded; what is malformed has no more."""
    if len(message) <= HEADER_SIZE + TLVS_MAX * STANDARD_HEADER_SIZE:
        return False
    walk = legacy_spans if Header.unpack(message).legacy else spans
    try:
        return any(True for _ in islice(walk(message, HEADER_SIZE, len(message)), TLVS_MAX, None))
    except WireError:
        return False


def _control(message: bytes) -> dict[str, Any]:
    content: Any = parse_control(message)
    if type(content) not in _CONTROL_NAMES:
        raise ControlError("not for a peer to hear")
    values = {
        name: value.name.lower() if isinstance(value, IntEnum) else value
        for name, value in content._asdict().items()
    }
    if "epoch" in values:
        values["epoch"] = str(values["epoch"])  # many readers of JSON round numbers beyond 2^53
    return {"control": _CONTROL_NAMES[type(content)], **values}


def _part(messages: memoryview) -> int:
    """Return the size of the first messages that are no more than one costly frame holds."""
    if len(messages) <= COSTLY_SIZE:
        return len(messages)
    return walk(messages, COSTLY_SIZE)[0] or message_size(messages)


def _frame(payload: bytes, form: Form) -> bytes:
    binary = form.format is Format.BINARY
    frame: bytes = PreparedMessage(
        payload, isBinary=binary, applyMask=False, doNotCompress=True
    ).payloadHybi
    return bytes([frame[0] | _COMPRESSED]) + frame[1:] if form.deflated else frame


def _deflate(payload: bytes) -> bytes:
    """Compress a message by itself, so that it is the same for all (RFC 7692, section 7.2.1)."""
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    compressed = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return compressed[:-4]
