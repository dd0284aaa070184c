"""History: where in the log a subscription begins."""

from typing import Protocol

from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.segment import Segment
from alphapulse_relay.protocol_v2.framing import message_size
from alphapulse_relay.protocol_v2.selection import Selector, count, select

Wanted = tuple[int, int]
"""Positions that have to be fetched before it can go on."""
NEWEST_BYTES = 4 << 20
"""How far back the newest messages are looked for: some milliseconds' work."""


def position_at(log: Log, when: int) -> int:
    """Return where what came at ``when`` (ns since the epoch) or later begins."""
    for segment in log.segments:
        if segment.records and segment.newest_time() >= when:
            return segment.record_start(segment.record_since(when))
    return log.head


def newest(log: Log, wanted: Selector | None, number: int, floor: int) -> int:
    """Return where the newest ``number`` messages that match begin; the head if none does.

    None matches all. Not before ``floor``, where a message begins, and not further back than
    :data:`NEWEST_BYTES`: it is found at once. Before the first of them may be some that do not
    match.
    """
    least = max(floor, log.head - NEWEST_BYTES, log.tail)
    found = _last_at(log, number) if wanted is None else _newest(log, wanted, number, least)
    return log.boundary(max(found, least))


def _last_at(log: Log, number: int) -> int:
    search = AtLast(log, number)
    search.step()
    return search.position


def _newest(log: Log, wanted: Selector, number: int, least: int) -> int:
    found, search = log.head, LastMatching(log, wanted, number)
    while search.position > least and search.wants() is None:
        missing, over = search.missing, search.step()
        if search.missing < missing:
            found = search.position
        if over:
            break
    return found


class Search(Protocol):
    """A search for where to begin, in steps that do not wait for a disk."""

    position: int
    """In the end the answer."""

    def wants(self) -> Wanted | None:
        """Return what has to be fetched before the next step."""

    def step(self) -> bool:
        """Go on; tell whether the search is over."""


class AtPosition:
    """The search for where the first message begins at or after a position."""

    def __init__(self, log: Log, position: int) -> None:
        self.position = position
        self._log = log

    def wants(self) -> Wanted | None:
        """Return the append that the position lies in, if its bytes are not at hand."""
        span = self._append_around()
        return None if span is None or self._log.at_hand(*span) else span

    def step(self) -> bool:
        """Find the boundary."""
        if self._append_around() is not None:
            self.position = self._log.boundary(self.position)
        return True

    def _append_around(self) -> Wanted | None:
        """Return where an append begins and ends; None where none has to be looked into."""
        log, position = self._log, self.position
        if position == log.head or log.gap_at(position) is not None:
            return None
        start, stop = _append(log.segment_of(position), position)
        return None if start == position else (start, stop)


class AtLast:
    """The search for where the last ``number`` messages begin; at the tail if there are fewer."""

    def __init__(self, log: Log, number: int) -> None:
        self.position = log.head
        self._log = log
        self._ordinal = log.messages - number

    def wants(self) -> Wanted | None:
        """Return the append that the first of them lies in, if its bytes are not at hand."""
        segment = self._segment()
        if segment is None or (record := segment.record_of(self._ordinal)) < 0:
            return None
        if segment.record(record).ordinal == self._ordinal:
            return None
        span = segment.record_start(record), segment.record_start(record + 1)
        return None if self._log.at_hand(*span) else span

    def step(self) -> bool:
        """Find where the first of them begins."""
        segment = self._segment()
        self.position = self._log.tail if segment is None else _position_in(segment, self._ordinal)
        return True

    def _segment(self) -> Segment | None:
        segments = reversed(self._log.segments)
        return next((each for each in segments if each.ordinal <= self._ordinal), None)


def _append(segment: Segment, position: int) -> Wanted:
    """Return where the append begins and ends that a position lies in."""
    record = segment.record_at(position)
    return segment.record_start(record), segment.record_start(record + 1)


def _position_in(segment: Segment, ordinal: int) -> int:
    """Return where the message begins that has so many before it."""
    number = segment.record_of(ordinal)
    if number < 0:
        return segment.start
    record = segment.record(number)
    missing = record.ordinal + record.messages - ordinal
    if missing <= 0:
        return record.stop
    if ordinal == record.ordinal:
        return record.position
    starts = _starts(segment, number)
    return starts[-missing] if missing <= len(starts) else record.position


def _starts(segment: Segment, record: int) -> list[int]:
    """Return where the messages of a record begin, but for those that are damaged."""
    starts = []
    position, stop = segment.record_start(record), segment.record_start(record + 1)
    while position < stop:
        hole = segment.hole_at(position)
        if hole is None:
            starts.append(position)
            position += message_size(segment.read(position))
        else:
            position = hole
    return starts


class LastMatching:
    """The search for where the last ``number`` messages that match begin, backwards from the head.

    One step looks at one record, so a search can be done in turns.
    """

    def __init__(self, log: Log, selector: Selector, number: int) -> None:
        self.position = log.head
        """Where it has come; in the end the answer."""
        self._log = log
        self._selector = selector
        self.missing = number
        """How many are still to be found."""

    def step(self) -> bool:
        """Look at the record before; tell whether the search is over."""
        before = self._record_before()
        if not self.missing or before is None:
            return True
        start, data = before
        matching = count(data, self._selector)
        self.position = start
        if matching >= self.missing:
            self.position = start + self._begin_in(data, matching - self.missing)
            self.missing = 0
            return True
        self.missing -= matching
        return False

    def wants(self) -> Wanted | None:
        """Return what has to be fetched before the next step."""
        span = self._span_before()
        return None if span is None or self._log.at_hand(*span) else span

    def _span_before(self) -> Wanted | None:
        """Return the append before, or its part that is before the position."""
        for segment in reversed(self._log.segments):
            if segment.records and segment.start < self.position:
                stop = min(self.position, segment.end)
                return _append(segment, stop - 1)[0], stop
        return None

    def _record_before(self) -> tuple[int, memoryview] | None:
        span = self._span_before()
        if span is None:
            return None
        start, stop = span
        segment = self._log.segment_of(start)
        if segment.hole_at(start) is not None or segment.limit(start) < stop:
            return start, memoryview(b"")  # damaged: what is good in it is not counted
        return start, segment.read(start)[: stop - start]

    def _begin_in(self, data: memoryview, skip: int) -> int:
        """Return where the first matching message begins after ``skip`` of them."""
        for begin, stop in select(data, self._selector).ranges:
            start = begin
            while start < stop:
                if not skip:
                    return start
                skip -= 1
                start += message_size(data[start:])
        return len(data)
