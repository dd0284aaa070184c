"""A segment: a stretch of the log in one piece of memory, and the index of its appends.

The memory is a mapped file's or anonymous; the segment does not know which. Its index has one
record per append, as the journal's files have (``journal/format.py``).
"""

import struct
import time
from bisect import bisect_left, bisect_right

from alphapulse_relay.journal.format import (
    PAGE,
    RECORD_SIZE,
    Header,
    Record,
    index_capacity,
    run_check,
)
from alphapulse_relay.protocol_v2.framing import message_size
from alphapulse_relay.protocol_v2.selection import walk

_U64 = struct.Struct("<Q")
_ORIGIN = struct.Struct("<Q8xQ24x")
_TIME, _ORDINAL = 8, 24
"""Where in a record they lie."""
_RECORD = struct.Struct("<QQQQIIII")

Origins = frozenset[int]
"""Who appended: a connection, and the name that it has."""


class Segment:
    """``data`` and ``index`` are writable; ``place`` counts the bytes of all segments before it.

    Positions in one of the ``holes`` (begin, end) are damaged and not to be read.
    """

    __slots__ = (
        "capacity", "data", "epoch", "header", "holes", "index", "number", "ordinal", "place",
        "records", "size", "start", "used",
    )  # fmt: skip

    def __init__(
        self,
        header: Header,
        data: memoryview,
        index: memoryview,
        *,
        records: int = 0,
        used: int = 0,
    ) -> None:
        self.header = header
        self.epoch, self.number, self.start, self.ordinal, self.size = header
        self.data = data
        self.index = index
        self.capacity = index_capacity(len(index))
        """How many records the index has room for."""
        self.records = records
        self.used = used
        self.holes: list[tuple[int, int]] = []
        self.place = 0

    @property
    def end(self) -> int:
        """The position behind the segment's last message."""
        return self.start + self.used

    def has_room(self, need: int) -> bool:
        """Tell whether so many bytes, and a record, can be appended."""
        return self.size - self.used >= need and self.records < self.capacity

    def is_low(self, part: int) -> bool:
        """Tell whether less than 1 / ``part`` of the room for bytes, or for records, is left."""
        bytes_left, records_left = self.size - self.used, self.capacity - self.records
        return bytes_left * part < self.size or records_left * part < self.capacity

    def seal(self) -> None:
        """Take nothing more."""
        self.capacity = self.records

    def append(self, length: int, origin: int, ordinal: int, messages: int) -> None:
        """Take the next ``length`` bytes into the log: first they, then their record."""
        run = self.data[self.used : self.used + length]
        record = Record(
            self.end, time.time_ns(), origin, ordinal, length, messages, run_check(run)
        ).pack(self.epoch)
        offset = PAGE + self.records * RECORD_SIZE
        self.index[offset : offset + RECORD_SIZE] = record
        self.moved(length, 1)

    def moved(self, length: int, records: int) -> None:
        """Take note that so many bytes were taken into the log, with so many records."""
        self.used += length
        self.records += records

    def messages_at_end(self) -> int:
        """Return how many messages the log has before the segment's end."""
        if not self.records:
            return self.ordinal
        last = self.record(self.records - 1)
        return last.ordinal + last.messages

    def newest_time(self) -> int:
        """Return when its last message came, in ns since the epoch; now if it has none."""
        return self.record(self.records - 1).time if self.records else time.time_ns()

    def record(self, number: int) -> Record:
        """Return a record."""
        *fields, _ = _RECORD.unpack_from(self.index, PAGE + number * RECORD_SIZE)
        return Record(*fields)

    def record_at(self, position: int) -> int:
        """Return the number of the record that ``position`` lies in; -1 if there are none."""
        last = self.records - 1
        if last < 0 or position >= self.record_start(last):
            return last  # where those are that keep up
        return bisect_right(range(last), position, key=self.record_start) - 1

    def record_start(self, record: int) -> int:
        """Return where a record begins; one past the last record begins at the segment's end."""
        return self._field(record, 0) if record < self.records else self.end

    def record_since(self, when: int) -> int:
        """Return the first record that came at ``when`` (ns since the epoch) or later."""
        return bisect_left(range(self.records), when, key=lambda n: self._field(n, _TIME))

    def record_of(self, ordinal: int) -> int:
        """Return the last record with at most so many messages before it; -1 if there is none."""
        found = bisect_right(range(self.records), ordinal, key=lambda n: self._field(n, _ORDINAL))
        return found - 1

    def limit(self, position: int) -> int:
        """Return up to where can be read from ``position``: the next hole or the end."""
        if not self.holes:
            return self.end
        return next((start for start, stop in self.holes if stop > position), self.end)

    def hole_at(self, position: int) -> int | None:
        """Return where the hole ends that ``position`` is in, if it is in one."""
        return next((stop for start, stop in self.holes if start <= position < stop), None)

    def read(self, position: int) -> memoryview:
        """Return the bytes from ``position`` on that can be read."""
        return self.data[position - self.start : self.limit(position) - self.start]

    def stretch(self, position: int, origins: Origins, length: int) -> tuple[int, int]:
        """Find the next bytes at or after ``position`` that none of the ``origins`` appended.

        Returns where they begin and end, about ``length`` of them; they may be empty at the end.
        ``position`` must be where a message begins, or inside one of another origin.
        """
        at = PAGE + max(self.record_at(position), 0) * RECORD_SIZE
        begin = -1
        for start, owner in _ORIGIN.iter_unpack(self.index[at : PAGE + self.records * RECORD_SIZE]):
            own = owner in origins
            if begin < 0 and not own:
                begin = max(position, start)
            elif begin >= 0 and (own or start - begin >= length):
                return begin, start
        return (self.end if begin < 0 else begin), self.end

    def walk(self, position: int) -> tuple[int, int]:
        """Return where the message around ``position`` begins, and how many lie before it."""
        record = self.record_at(position)
        if record < 0:
            return position, self.ordinal
        start, count = self.record_start(record), self._field(record, _ORDINAL)
        for begin, stop in self.holes:
            if begin <= position < stop:
                return position, count
            if start < stop <= position:
                start = stop  # of what was there nothing is known
        run = self.data[start - self.start : self.record_start(record + 1) - self.start]
        passed, messages = walk(run, position - start)
        return start + passed, count + messages

    def boundary(self, position: int) -> int:
        """Return the first position at or after ``position`` where a message begins or would."""
        start, _ = self.walk(position)
        if start == position:
            return position
        size = message_size(self.data[start - self.start :])
        return min(start + size, self.record_start(self.record_at(position) + 1))

    def _field(self, record: int, offset: int) -> int:
        (value,) = _U64.unpack_from(self.index, PAGE + record * RECORD_SIZE + offset)
        return int(value)
