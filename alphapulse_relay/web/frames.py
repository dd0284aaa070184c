"""WebSocket frames of the log's messages, each made once for all that are sent the same.

Knows the two formats and compression (RFC 6455, RFC 7692); neither peers nor connections. What
takes long to make, text and compressed frames, is made within a budget of time, so that it holds up
nobody who is served plain bytes.
"""

import json
import zlib
from collections.abc import Callable
from enum import IntEnum
from time import perf_counter
from typing import Any, NamedTuple

from autobahn.websocket.protocol import PreparedMessage

from alphapulse_relay.hub.framed import Offer
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
from alphapulse_relay.protocol_v2.document import describe
from alphapulse_relay.protocol_v2.framing import message_size, split
from alphapulse_relay.protocol_v2.header import Domain
from alphapulse_relay.protocol_v2.selection import walk
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.web.query import Format

COSTLY_SIZE = 16 * 1024
"""Bytes of messages in a frame that is costly to make, about: a millisecond's work."""
COSTLY_SECONDS = 0.002
"""How long costly frames are made in one turn, at most a frame more: so who is sent plain bytes is
not held up for long."""
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


class Frames:
    """Makes frames, and keeps some; decodes by ``table``."""

    def __init__(self, table: SignalTable, clock: Callable[[], float] = perf_counter) -> None:
        self._table = table
        self._clock = clock
        self._spent = 0.0
        self._kept: dict[tuple[Offer, int, Form], bytes] = {}
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
        size = _part(messages) if form.costly else len(messages)
        if offer is None:
            return self._made(messages[:size], form), size
        key = offer, size, form
        found = self._kept.get(key)
        if found is None:
            found = self._made(messages[:size], form)
            self._keep(key, found)
        return found, size

    def _keep(self, key: tuple[Offer, int, Form], frame: bytes) -> None:
        self._kept[key] = frame
        self._size += len(frame)
        while self._size > FRAMES_KEPT:
            self._size -= len(self._kept.pop(next(iter(self._kept))))

    def _made(self, messages: memoryview, form: Form) -> bytes:
        if not form.costly:
            return _frame(bytes(messages), form)
        began = self._clock()
        payload = bytes(messages)
        if form.format is Format.JSON:
            payload = text_of(payload, self._table)
        frame = _frame(_deflate(payload) if form.deflated else payload, form)
        self._spent += self._clock() - began
        return frame


def text_of(messages: bytes, table: SignalTable) -> bytes:
    """Return whole messages as JSON: an array of objects, those of control with key ``control``."""
    documents = [_document(message, table) for message in split(messages)]
    return json.dumps(documents, ensure_ascii=False, separators=(",", ":")).encode()


def _document(message: bytes, table: SignalTable) -> dict[str, Any]:
    if message[_DOMAIN_OFFSET] == Domain.SYSTEM:
        try:
            return _control(message)
        except ControlError:
            pass  # a newer client's, from before the relay kept such to itself
    return describe(message, table)


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
