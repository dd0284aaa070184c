"""What runs look like as NATS messages: subjects, headers, and what fits into one.

Knows neither relay nor NATS server. A NATS message's payload is bytes as they were published, whole
Protocol V2 messages end to end; all else is in its headers.
"""

import zlib
from collections.abc import Mapping
from typing import NamedTuple

BEGIN = "Signal-Relay-Begin"
"""Where the run begins in its relay's journal, as :meth:`Place.text`."""
END = "Signal-Relay-End"
"""Where the next one will begin."""
PART = "Signal-Relay-Part"
"""``k/n``: the payload is the k-th of n pieces of one message that is larger than NATS takes."""
TIME = "Signal-Relay-Time"
"""When the bridge got the run, in ns since 1970."""
HEADERS_ROOM = 1024
"""Bytes of a NATS message that are kept for headers: names and numbers, some 400."""
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
            return cls(int(epoch, 16), int(position), int(taken), int(asked, 16))
        except ValueError:
            raise EnvelopeError(f"{text[:80]!r} is not a place in a journal") from None


class Envelope(NamedTuple):
    """One NATS message: part ``part`` of ``parts``, of a run that came at ``time`` (ns)."""

    payload: bytes
    begin: Place
    end: Place
    time: int
    part: int = 1
    parts: int = 1

    def headers(self, relay: str, last_sequence: int) -> dict[str, str]:
        """Return its headers; ``last_sequence`` is that of the last one of its subject."""
        # The checksum is for a journal that has lost its end, and goes on at places used before.
        crc = zlib.crc32(self.payload)
        headers = {
            MESSAGE_ID: f"{relay}:{self.end.text}:{self.part}:{crc:08x}",
            EXPECTED_SEQUENCE: str(last_sequence),
            BEGIN: self.begin.text,
            END: self.end.text,
            TIME: str(self.time),
        }
        if self.parts > 1:
            headers[PART] = f"{self.part}/{self.parts}"
        return headers

    @classmethod
    def parse(cls, payload: bytes, headers: Mapping[str, str] | None) -> "Envelope":
        """Return what came from NATS. Raises :class:`EnvelopeError`."""
        if not headers or BEGIN not in headers or END not in headers:
            raise EnvelopeError("it has not the headers of a bridge")
        try:
            part, _, parts = headers.get(PART, "1/1").partition("/")
            time, number, count = int(headers.get(TIME, "0")), int(part), int(parts)
        except ValueError:
            raise EnvelopeError("its headers are not those of a bridge") from None
        if not 1 <= number <= count:
            raise EnvelopeError(f"part {number} of {count}")
        begin, end = Place.parse(headers[BEGIN]), Place.parse(headers[END])
        return cls(payload, begin, end, time, number, count)


def relay_of(subject: str, prefix: str) -> str:
    """Return the name of the relay that a subject is of. Raises :class:`EnvelopeError`."""
    relay = subject.removeprefix(f"{prefix}.").partition(".")[0]
    if not subject.startswith(f"{prefix}.") or not relay:
        raise EnvelopeError(f"{subject!r} is no relay's subject")
    return relay
