"""History: where in the log a subscription begins."""

from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.segment import Segment
from alphapulse_relay.protocol_v2.framing import message_size
from alphapulse_relay.protocol_v2.selection import Selector, count, select

Wanted = tuple[int, int]
"""Positions that have to be fetched before it can go on."""


def position_at(log: Log, when: int) -> int:
    """Return where what came at ``when`` (ns since the epoch) or later begins."""
    for segment in log.segments:
        if segment.records and segment.newest_time() >= when:
            return segment.record_start(segment.record_since(when))
    return log.head


def position_of_last(log: Log, number: int) -> int:
    """Return where the last ``number`` messages begin; the tail if there are fewer."""
    if not number:
        return log.head
    ordinal = log.messages - number
    for segment in reversed(log.segments):
        if segment.ordinal <= ordinal:
            break
    else:
        return log.tail
    record = segment.record_of(ordinal)
    if record < 0:
        return segment.start
    starts = _starts(segment, record)
    missing = segment.record(record).ordinal + segment.record(record).messages - ordinal
    return starts[-missing] if missing <= len(starts) else segment.record_start(record)


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
        self._missing = number

    def step(self) -> bool:
        """Look at the record before; tell whether the search is over."""
        before = self._record_before()
        if not self._missing or before is None:
            return True
        start, data = before
        matching = count(data, self._selector)
        self.position = start
        if matching >= self._missing:
            self.position = start + self._begin_in(data, matching - self._missing)
            self._missing = 0
            return True
        self._missing -= matching
        return False

    def wants(self) -> Wanted | None:
        """Return what has to be fetched before the next step."""
        start = self._start_before()
        if start is None or self._log.at_hand(start, self.position):
            return None
        return start, self.position

    def _start_before(self) -> int | None:
        for segment in reversed(self._log.segments):
            if segment.records and segment.start < self.position:
                return segment.record_start(segment.record_at(min(self.position, segment.end) - 1))
        return None

    def _record_before(self) -> tuple[int, memoryview] | None:
        start = self._start_before()
        if start is None:
            return None
        segment = self._log.segment_of(start)
        if segment.hole_at(start) is not None or segment.limit(start) < self.position:
            return start, memoryview(b"")  # damaged: what is good in it is not counted
        return start, segment.read(start)[: min(self.position, segment.end) - start]

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
