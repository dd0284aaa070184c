"""The log: the accepted messages as one sequence of bytes, each at a position that never changes.

A position is the number of bytes before it since the log began. The bytes lie in segments of equal
size; when the window is full the oldest is used again for the newest. Bytes are received straight
behind the head (:meth:`Log.space`) and become part of the log when the head moves
(:meth:`Log.append`). A message never spans two segments. The log knows who appended what, but
nothing of peers.
"""

import mmap
from array import array
from bisect import bisect_right
from collections.abc import Callable

from alphapulse_relay.protocol_v2.framing import message_size

SEGMENTS = 8
"""Segments in a full window. More would waste less at each one's end, and lose sight sooner."""
STRETCH = 256 * 1024
"""Bytes that :meth:`Log.stretch` looks ahead at most: more than a socket takes at once."""
RECORD_MAX = 64 * 1024
"""Bytes that one index record may cover: finding a message inside a record means a walk."""


class Segment:
    """A stretch of the log in one piece of memory, and the index of who appended what.

    ``starts``, ``origins`` and ``ordinals`` are parallel: each record begins at a position, was
    appended by an origin, and has so many messages of the log before it.
    """

    __slots__ = ("buffer", "number", "ordinals", "origins", "start", "starts", "used")

    def __init__(self, number: int, start: int, buffer: memoryview) -> None:
        self.number = number
        self.start = start
        self.buffer = buffer
        self.used = 0
        self.starts = array("Q")
        self.origins = array("Q")
        self.ordinals = array("Q")

    @property
    def end(self) -> int:
        """The position behind the segment's last message."""
        return self.start + self.used

    def append(self, length: int, origin: int, ordinal: int) -> None:
        """Take the next ``length`` bytes of the buffer into the log."""
        record = self.starts[-1] if self.starts else None
        if record is None or self.origins[-1] != origin or self.end - record + length > RECORD_MAX:
            self.starts.append(self.end)
            self.origins.append(origin)
            self.ordinals.append(ordinal)
        self.used += length

    def record_at(self, position: int) -> int:
        """Return the index of the record that ``position`` lies in."""
        return bisect_right(self.starts, position) - 1

    def record_start(self, record: int) -> int:
        """Return where a record begins; one past the last record begins at the segment's end."""
        return self.starts[record] if record < len(self.starts) else self.end


class Log:
    """The messages of all peers in one order.

    ``window`` is how many bytes of memory the log may take. ``forget`` is called with a position
    before the bytes in front of it are given up, while they can still be read.
    """

    def __init__(self, window: int, forget: Callable[[int], None] | None = None) -> None:
        self.window = window
        self.forget = forget
        self.head = 0
        """Position behind the newest message."""
        self.messages = 0
        """How many messages lie before the head, those already given up included."""
        self._segment_size = window // SEGMENTS
        self._segments: list[Segment] = []
        self._add_segment(self._new_buffer())

    @property
    def tail(self) -> int:
        """Position of the oldest message that is still kept."""
        return self._segments[0].start

    def space(self, need: int) -> memoryview:
        """Return ``need`` writable bytes behind the head, in one piece.

        Whatever is not appended is overwritten by whoever asks next. ``need`` must not exceed an
        eighth of the window. May give up the oldest segment.
        """
        segment = self.make_room(need)
        return segment.buffer[segment.used : segment.used + need]

    def make_room(self, need: int) -> Segment:
        """Return the segment that the head is in, with ``need`` bytes free; see :meth:`space`."""
        segment = self._segments[-1]
        if self._segment_size - segment.used < need:
            segment = self._roll()
        return segment

    def append(self, length: int, origin: int, messages: int) -> None:
        """Move the head over the ``length`` bytes behind it: ``messages`` whole ones."""
        self._segments[-1].append(length, origin, self.messages)
        self.head += length
        self.messages += messages

    def read(self, position: int) -> memoryview:
        """Return the bytes from ``position`` on that lie in one piece; empty at the head."""
        segment = self._segment_of(position)
        return segment.buffer[position - segment.start : segment.used]

    def stretch(self, position: int, origin: int) -> tuple[int, int]:
        """Find the next bytes at or after ``position`` that ``origin`` did not append.

        Returns where they begin and end, in one piece; they may be empty at a segment's end.
        ``position`` must be where a message begins, or inside one of another origin.
        """
        segment = self._segment_of(position)
        record = segment.record_at(position)
        count, origins = len(segment.starts), segment.origins
        while record < count and origins[record] == origin:
            record += 1
        start = max(position, segment.record_start(record))
        while record < count and origins[record] != origin:
            record += 1
            if segment.record_start(record) - start >= STRETCH:
                break
        return start, segment.record_start(record)

    def messages_before(self, position: int) -> int:
        """Return how many messages of the log end at or before ``position``."""
        return self.messages if position == self.head else self._walk(position)[1]

    def boundary(self, position: int) -> int:
        """Return the first position at or after ``position`` where a message begins or would."""
        start, _ = self._walk(position)
        return position if start == position else start + message_size(self.read(start))

    def lag(self, position: int) -> int:
        """Return how much of the window lies between ``position`` and the head, in bytes.

        Counts what was left unused at the ends of segments: the window is full when this is.
        """
        return self._place(self.head) - self._place(position)

    def _place(self, position: int) -> int:
        segment = self._segment_of(position)
        return segment.number * self._segment_size + position - segment.start

    def _walk(self, position: int) -> tuple[int, int]:
        """Return where the message around ``position`` begins, and how many are before it."""
        segment = self._segment_of(position)
        record = segment.record_at(position)
        if record < 0:
            return position, self.messages
        start, count = segment.starts[record], segment.ordinals[record]
        while start < position:
            stop = start + message_size(segment.buffer[start - segment.start :])
            if stop > position:
                break
            start, count = stop, count + 1
        return start, count

    def _segment_of(self, position: int) -> Segment:
        newest = self._segments[-1]
        if position >= newest.start:
            return newest
        if position < self.tail:
            raise LookupError(f"position {position} is no longer kept, the oldest is {self.tail}")
        found = bisect_right(self._segments, position, key=lambda segment: segment.start)
        return self._segments[found - 1]

    def _roll(self) -> Segment:
        """Begin a new segment, in the oldest one's memory if the window is full."""
        if len(self._segments) < SEGMENTS:
            return self._add_segment(self._new_buffer())
        if self.forget is not None:
            self.forget(self._segments[1].start)
        return self._add_segment(self._segments.pop(0).buffer)

    def _add_segment(self, buffer: memoryview) -> Segment:
        number = self._segments[-1].number + 1 if self._segments else 0
        self._segments.append(Segment(number, self.head, buffer))
        return self._segments[-1]

    def _new_buffer(self) -> memoryview:
        # Private and anonymous: the default would be a shared mapping, which lies on tmpfs.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        return memoryview(mmap.mmap(-1, self._segment_size, flags=flags))
