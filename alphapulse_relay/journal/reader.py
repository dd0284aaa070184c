"""A journal read from its beginning to its end, by people and programs that only look.

Knows what recovery found; changes nothing. Works while a relay writes: what is yielded was in the
journal when it was opened. A relay may use a segment's files again meanwhile, which is noticed, and
told as lost positions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from alphapulse_relay.journal.files import Maps
from alphapulse_relay.journal.format import FormatError, Header, Record, run_check
from alphapulse_relay.journal.headers import HEADER_BYTES
from alphapulse_relay.journal.mending import Damage, Recovered
from alphapulse_relay.journal.records import Index
from alphapulse_relay.journal.recovery import recover
from alphapulse_relay.journal.salvage import salvage
from alphapulse_relay.protocol_v2.framing import message_size
from alphapulse_relay.protocol_v2.header import HEADER_SIZE


class Entry(NamedTuple):
    """A message: where it is, when it came (ns since the epoch, 0 if lost), and who sent it."""

    position: int
    time: int
    origin: int
    message: bytes


@dataclass(frozen=True)
class Lost:
    """Positions that cannot be had, and why."""

    start: int
    stop: int
    reason: str


@dataclass(frozen=True)
class Part:
    """A segment as it was when the journal was opened."""

    found: Recovered
    maps: Maps

    @property
    def header(self) -> Header:
        """What the segment is."""
        return self.found.header

    @property
    def start(self) -> int:
        """The position of its first byte."""
        return self.found.header.start

    @property
    def stop(self) -> int:
        """The position behind its last message."""
        return self.found.stop

    def records(self) -> Iterator[Record]:
        """Yield its records, those of earlier damage included; ends early if it is used again."""
        with memoryview(self.maps.index) as view:
            index = Index(view, self.header, self.start + self.header.size)
            for number in range(self.found.records):
                record = index.record(number)
                if record is None or not self.is_there():
                    return
                yield record

    def is_there(self) -> bool:
        """Whether the files still hold it: the relay changes both headers before all else.

        One of them may have been mended here, which hides such a change.
        """
        packed, size = self.header.pack(), self.header.size
        trailer = self.maps.data[size : size + HEADER_BYTES]
        return self.maps.index[:HEADER_BYTES] == packed == trailer

    def times(self) -> tuple[int, int]:
        """Return when the first and the last of it came; 0 if that is not known."""
        if not self.found.records:
            return 0, 0
        with memoryview(self.maps.index) as view:
            index = Index(view, self.header, self.start + self.header.size)
            first, last = index.record(0), index.record(self.found.records - 1)
        return first.time if first else 0, last.time if last else 0

    def bytes_of(self, record: Record) -> bytes:
        """Return what a record covers, as it is now."""
        start = record.position - self.start
        return self.maps.data[start : start + record.length]


class Journal:
    """A journal that is only read.

    ``lost`` tells what could not be had so far, in the order in which it was come upon.
    """

    def __init__(self, epoch: int, parts: list[Part], damage: list[Damage]) -> None:
        self.epoch = epoch
        self.parts = parts
        self.damage = damage
        self.lost: list[Lost] = []

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        verify: Literal["none", "all"] = "none",
        progress: Callable[[int, int], object] = lambda _done, _all: None,
    ) -> Self:
        """Read what is in a directory; see :func:`recover`.

        Raises :class:`FormatError`, also where there is no journal, and ``OSError``.
        """
        found = recover(directory, writable=False, verify=verify, progress=progress)
        if found.epoch is None:
            raise FormatError(f"{directory} holds no journal")
        parts = [Part(segment, found.maps[segment.slot]) for segment in found.segments]
        return cls(found.epoch.epoch, parts, found.damage)

    @property
    def messages(self) -> int:
        """How many messages there are, the damaged ones included."""
        return sum(part.found.messages for part in self.parts)

    def entries(
        self, *, since: int | None = None, position: int | None = None, last: int | None = None
    ) -> Iterator[Entry]:
        """Yield the messages in order.

        Of these only what came at ``since`` (ns since the epoch) or later, what begins at
        ``position`` or behind it, and the ``last`` so many. Raises nothing for what is damaged:
        see :attr:`lost`.
        """
        first = self._ordinal_of_last(last)
        for part in self.parts:
            if position is None or position < part.stop:
                for entry in self._entries_of(part, first, since or 0):
                    if position is None or entry.position >= position:
                        yield entry

    def _ordinal_of_last(self, last: int | None) -> int:
        if last is None or not self.parts:
            return 0
        skipped = max(self.messages - last, 0)
        for part in self.parts:
            if skipped < part.found.messages:
                return part.header.ordinal + skipped
            skipped -= part.found.messages
        return self.parts[-1].header.ordinal + self.parts[-1].found.messages

    def _entries_of(self, part: Part, first: int, since: int) -> Iterator[Entry]:
        """Yield a segment's messages from ordinal ``first`` on that came at ``since`` or later."""
        reached = part.start
        for record in part.records():
            if record.ordinal + record.messages > first and record.time >= since:
                run = part.bytes_of(record)
                holes = _holes(run, record.crc)
                if not part.is_there():
                    break
                skipped = max(first - record.ordinal, 0)
                self.lost += [
                    Lost(record.position + start, record.position + stop, "damaged")
                    for start, stop in holes
                ]
                for offset, message in _messages(run, holes, skipped):
                    yield Entry(record.position + offset, record.time, record.origin, message)
            reached = record.stop
        if reached < part.stop:
            self.lost.append(Lost(reached, part.stop, "the relay has used the files again"))


def _holes(run: bytes, crc: int) -> list[tuple[int, int]]:
    if len(run) >= HEADER_SIZE and run_check(run) == crc:
        return []
    return salvage(run).holes


def _messages(
    run: bytes, holes: list[tuple[int, int]], skipped: int
) -> Iterator[tuple[int, bytes]]:
    """Yield what is not in a hole, behind the first ``skipped`` messages where none is damaged."""
    skipped = 0 if holes else skipped
    at = 0
    for start, stop in [*holes, (len(run), len(run))]:
        while at < start:
            end = at + message_size(run[at : at + HEADER_SIZE])
            if skipped:
                skipped -= 1
            else:
                yield at, run[at:end]
            at = end
        at = stop
