"""What runs look like as NATS messages: subjects, headers, and what fits into one.

Knows neither relay nor NATS server. A NATS message's payload is bytes as they were published, whole
Protocol V2 messages end to end, compressed or not; all else is in its headers.
"""

import zlib
from collections.abc import Mapping
from typing import NamedTuple

from alphapulse_relay.bridge.compression import Compressor, expand, plain_size
from alphapulse_relay.bridge.split import UNTYPED
from alphapulse_relay.protocol_v2.errors import WireError

BEGIN = "Signal-Relay-Begin"
"""Where its relay's run before this one ended, as :meth:`Place.text`..."""
END = "Signal-Relay-End"
"""...and where this one does."""
PIECE = "Signal-Relay-Piece"
"""``k/n``: the payload is the k-th of n pieces of one that is larger than NATS takes."""
TYPE = "Signal-Relay-Type"
"""Of a run that is split by type: of which type the messages are..."""
TYPES = "Signal-Relay-Types"
"""...the types that there are, each of which is a NATS message, in that order..."""
ORDER = "Signal-Relay-Order"
"""...how many pairs behind the messages tell where in the run they were (:mod:`split`)..."""
MESSAGES = "Signal-Relay-Messages"
"""...and how many messages the run has."""
TIME = "Signal-Relay-Time"
"""When the bridge got the run, in ns since 1970."""
CODING = "Content-Encoding"
"""Of a payload that is compressed: how (RFC 9110, 8.4)..."""
ZSTD = "zstd"
"""...as one frame with its size (RFC 8878, 7.2)."""
HEADERS_ROOM = 2048
"""Bytes of a NATS message that are kept for headers: names and numbers, some 400, and 1,000 more
where a run has all types."""
NO_TYPE = "none"
"""What stands for the type of messages without one."""
MESSAGE_ID = "Nats-Msg-Id"
EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
"""JetStream stores a message only if the last one of its subject has this sequence."""


class EnvelopeError(Exception):
    """A NATS message that no bridge has made."""


class Place(NamedTuple):
    """A place in a relay's journal: ``taken`` messages behind ``position`` of the ``epoch``.

    What counts is what the bridge asks for, so ``asked`` (of :class:`client.bookmark.Bookmark`) is
    part of it: with another filter it is another place.
    """

    epoch: int
    position: int
    taken: int
    asked: int

    @property
    def text(self) -> str:
        """The place as it stands in headers."""
        return f"{self.epoch:x}:{self.position}:{self.taken}:{self.asked:x}"

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read :attr:`text`. Raises :class:`EnvelopeError`."""
        try:
            epoch, position, taken, asked = text.split(":")
            place = cls(int(epoch, 16), int(position), int(taken), int(asked, 16))
            if not all(0 <= number < 1 << 64 for number in place):
                raise ValueError
            return place
        except ValueError:
            raise EnvelopeError(f"{text[:80]!r} is not a place in a journal") from None


class Share(NamedTuple):
    """Which part of a run that is split by type: see :data:`TYPE` and those after it."""

    type: int
    types: tuple[int, ...]
    order: int
    messages: int


class Envelope(NamedTuple):
    """One NATS message: a run that came at ``time`` (ns), a share of it, or a piece of that."""

    payload: bytes
    begin: Place
    end: Place
    time: int
    piece: int = 1
    pieces: int = 1
    share: Share | None = None
    is_compressed: bool = False

    @property
    def is_last(self) -> bool:
        """Whether nothing of the run follows this one."""
        whole = self.share is None or self.share.type == self.share.types[-1]
        return whole and self.piece == self.pieces

    def subject(self, relay: str) -> str:
        """Return the subject, where ``relay`` is that of the relay."""
        return relay if self.share is None else f"{relay}.{token(self.share.type)}"

    def headers(self, subject: str, last_sequence: int) -> dict[str, str]:
        """Return its headers; ``last_sequence`` is that of the last one of its subject."""
        # The checksum is for a journal that has lost its end, and goes on at places used before,
        # the sequence for what is stored again: of an id that it knows JetStream tells the old one.
        unique = self.end.text, self.piece, f"{zlib.crc32(self.payload):08x}", last_sequence
        headers = {
            MESSAGE_ID: ":".join(map(str, (subject, *unique))),
            EXPECTED_SEQUENCE: str(last_sequence),
            BEGIN: self.begin.text,
            END: self.end.text,
            TIME: str(self.time),
        }
        if self.is_compressed:
            headers[CODING] = ZSTD
        if self.pieces > 1:
            headers[PIECE] = f"{self.piece}/{self.pieces}"
        if self.share is not None:
            headers[TYPE] = token(self.share.type)
            headers[TYPES] = ",".join(map(token, self.share.types))
            headers[ORDER] = str(self.share.order)
            headers[MESSAGES] = str(self.share.messages)
        return headers

    def cut(self, room: int) -> list["Envelope"]:
        """Return it in pieces of at most ``room`` bytes."""
        starts = range(0, len(self.payload), room)
        return [
            self._replace(
                payload=self.payload[start : start + room], piece=number, pieces=len(starts)
            )
            for number, start in enumerate(starts, 1)
        ]

    def compressed(self, compressor: Compressor) -> "Envelope":
        """Return it as it is to be stored."""
        frame = compressor.compress(self.payload, None if self.share is None else self.share.type)
        return self if frame is None else self._replace(payload=frame, is_compressed=True)

    def expanded(self) -> "Envelope":
        """Return it as it was before it was compressed. Raises :class:`EnvelopeError`."""
        if not self.is_compressed:
            return self
        try:
            return self._replace(payload=expand(self.payload), is_compressed=False)
        except WireError as error:
            raise EnvelopeError(f"it cannot be expanded: {error.detail}") from error

    @classmethod
    def parse(cls, payload: bytes, headers: Mapping[str, str] | None) -> "Envelope":
        """Return what came from NATS. Raises :class:`EnvelopeError`."""
        if not headers or BEGIN not in headers or END not in headers:
            raise EnvelopeError("it has not the headers of a bridge")
        piece, _, pieces = headers.get(PIECE, "1/1").partition("/")
        try:
            time, number, count = int(headers.get(TIME, "0")), int(piece), int(pieces)
            share = _share(headers) if TYPE in headers else None
        except (ValueError, KeyError):
            raise EnvelopeError("its headers are not those of a bridge") from None
        if not 1 <= number <= count < 1 << 32:
            raise EnvelopeError(f"it is no piece: {headers[PIECE][:80]!r}")
        coding = headers.get(CODING, "")
        if coding not in {"", ZSTD}:
            raise EnvelopeError(f"its payload is in a coding of another version: {coding[:80]!r}")
        begin, end = Place.parse(headers[BEGIN]), Place.parse(headers[END])
        return cls(payload, begin, end, time, number, count, share, coding == ZSTD)


def expanded_size(payload: bytes, headers: Mapping[str, str] | None) -> int:
    """Return how many bytes of messages a NATS message has, as far as it says."""
    is_compressed = (headers or {}).get(CODING) == ZSTD
    return plain_size(payload) if is_compressed else len(payload)


def token(type_: int) -> str:
    """Return a type as subjects and headers name it."""
    return NO_TYPE if type_ == UNTYPED else str(type_)


def _share(headers: Mapping[str, str]) -> Share:
    """Raise ``ValueError`` or ``KeyError`` for what is wrong."""
    types = tuple(map(_type, headers[TYPES].split(",")))
    share = Share(_type(headers[TYPE]), types, int(headers[ORDER]), int(headers[MESSAGES]))
    in_order = list(types) == sorted(set(types))
    if share.type not in types or not in_order or share.order < 0 or share.messages < 1:
        raise ValueError
    return share


def _type(text: str) -> int:
    return UNTYPED if text == NO_TYPE else int(text)


def relay_of(subject: str, prefix: str) -> str:
    """Return the name of the relay that a subject is of. Raises :class:`EnvelopeError`."""
    relay = subject.removeprefix(f"{prefix}.").partition(".")[0]
    if not subject.startswith(f"{prefix}.") or not relay:
        raise EnvelopeError(f"{subject!r} is no relay's subject")
    return relay
