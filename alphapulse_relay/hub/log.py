"""The log: the accepted messages as one sequence of bytes, each at a position that never changes.

A position is the number of bytes before it since the log began. The bytes lie in segments, whose
memory a storage provides: anonymous, or that of files. Bytes are received straight behind the head
(:meth:`Log.space`) and become part of the log when the head moves (:meth:`Log.append`). A message
never spans two segments. The log knows who appended what, but nothing of peers.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

from alphapulse_relay.hub.segment import Origins, Segment
from alphapulse_relay.hub.storage import Storage
from alphapulse_relay.protocol_v2.control import GapReason

STRETCH = 256 * 1024
"""Bytes that :meth:`Log.stretch` looks ahead at most: more than a socket takes at once."""
CONNECTION_BITS = 32
"""Connections of one run of the relay: 4 billion."""
ANONYMOUS = (1 << 63) - 1
"""Origins up to here are connections', those above are names'."""
LOW_PART = 4
"""Publishers are held where the segment has less than 1 / 4 left and the next one is not ready."""


class Log:
    """The messages of all peers in one order.

    ``forget`` is called with the first and the last position (exclusive) of what is about to be
    given up, while it can still be read.
    """

    def __init__(
        self, storage: Storage, forget: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        self.storage = storage
        self.head = 0
        """Position behind the newest message."""
        self.messages = 0
        """How many messages lie before the head, those already given up included."""
        self.on_room: Callable[[], None] = lambda: None
        """Called when there is room for what was :attr:`short`."""
        self.on_failure: Callable[[], None] = lambda: None
        """Called when what is appended does not outlive the process, though it should."""
        self.on_synced: Callable[[], None] = lambda: None
        """Called when more can be acknowledged."""
        self._forget = forget
        self._given_up = 0  # the position behind the newest byte that was
        self._segments: list[Segment] = []

    def open(self) -> None:
        """Take what the storage has kept, and go on behind it; once, before all else.

        Raises what the storage does.
        """
        for segment in self.storage.open(self):
            self._add(segment)
        if self._segments:
            last = self._segments[-1]
            self.messages = last.messages_at_end()
            self.head = max(last.end, self.storage.head)
            self._given_up = self._segments[0].start
            self.give_up_expired()
        if not self._segments or self.head != self._segments[-1].end:
            self._add(self.storage.begin(self.head, self.messages))

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments that are kept, in order."""
        return self._segments

    @property
    def epoch(self) -> int:
        """Which log it is."""
        return self.storage.epoch

    def anonymous(self, number: int) -> int:
        """Return the origin of a connection without a name: one that no other ever had or has."""
        return (self.storage.run_number << CONNECTION_BITS | number) & ANONYMOUS

    @property
    def window(self) -> int:
        """How many bytes consumers may be behind, at most, before publishers are held."""
        return self.storage.window

    @property
    def tail(self) -> int:
        """Position of the oldest message that is still kept."""
        return self._segments[0].start

    @property
    def short(self) -> bool:
        """Whether there is little room left, and more is still being made."""
        return not self.storage.ready and self._segments[-1].is_low(LOW_PART)

    def space(self, need: int) -> memoryview:
        """Return ``need`` writable bytes behind the head, in one piece.

        Whatever is not appended is overwritten by whoever asks next. ``need`` must not exceed a
        segment. May give up the oldest segment.
        """
        segment = self.make_room(need)
        return segment.data[segment.used : segment.used + need]

    def make_room(self, need: int) -> Segment:
        """Return the segment that the head is in, with ``need`` bytes free; see :meth:`space`."""
        segment = self._segments[-1]
        return segment if segment.has_room(need) else self._roll()

    def append(self, length: int, origin: int, messages: int) -> None:
        """Move the head over the ``length`` bytes behind it: ``messages`` whole ones."""
        self._segments[-1].append(length, origin, self.messages, messages)
        self._move(length, messages)

    def moved(self, length: int, messages: int, records: int) -> None:
        """Move the head over bytes whose index records compiled code has written."""
        self._segments[-1].moved(length, records)
        self._move(length, messages)

    def _move(self, length: int, messages: int) -> None:
        self.head += length
        self.messages += messages
        self.storage.appended(self.head)

    def read(self, position: int) -> memoryview:
        """Return the bytes from ``position`` on that lie in one piece; empty at the head."""
        return self.segment_of(position).read(position)

    def at_hand(self, start: int, stop: int) -> bool:
        """Tell whether positions of one segment can be read without waiting for a disk."""
        return self.storage.readable(self.segment_of(start), start, stop)

    def fetch(self, start: int, stop: int, done: Callable[[], None]) -> None:
        """Have positions of one segment made ready to be read, then call ``done``."""
        self.storage.fetch(self.segment_of(start), start, stop, done)

    def stretch(self, position: int, origins: Origins) -> tuple[int, int]:
        """Find the next bytes at or after ``position`` that none of the ``origins`` appended.

        Returns where they begin and end, in one piece; they may be empty at a segment's end.
        ``position`` must be where a message begins, or inside one of another origin.
        """
        return self.segment_of(position).stretch(position, origins, STRETCH)

    def gap_at(self, position: int) -> tuple[int, GapReason] | None:
        """Tell whether what lies at ``position`` is not to be had: up to where, and why."""
        newest = self._segments[-1]
        if position >= newest.start and not newest.holes:
            return None
        if position < self.tail:
            return self.tail, GapReason.RETENTION
        found = self._find(position)
        segment = self._segments[found]
        if (stop := segment.hole_at(position)) is not None:
            return stop, GapReason.DAMAGE
        if position < segment.end or found == len(self._segments) - 1:
            return None
        start = self._segments[found + 1].start
        if start == position:
            return None
        return start, GapReason.RETENTION if start <= self._given_up else GapReason.DAMAGE

    def messages_before(self, position: int) -> int:
        """Return how many messages of the log end at or before ``position``."""
        if position == self.head:
            return self.messages
        return self.segment_of(position).walk(position)[1]

    def boundary(self, position: int) -> int:
        """Return the first position at or after ``position`` where a message begins or would."""
        return self.segment_of(position).boundary(position)

    def bytes_behind(self, position: int) -> int:
        """Return how many bytes are kept between ``position`` and the head."""
        kept = self.head - position
        for before, after in pairwise(self._segments):
            if after.start > position:
                kept -= after.start - max(before.end, position)
        return kept

    def lag(self, position: int) -> int:
        """Return how much of the window lies between ``position`` and the head, in bytes.

        Counts what was left unused at the ends of segments: the window is full when this is.
        """
        return self._place(self.head) - self._place(position)

    def segment_of(self, position: int) -> Segment:
        """Return the segment that ``position`` lies in.

        Raises ``LookupError`` if it is no longer kept.
        """
        newest = self._segments[-1]
        if position >= newest.start:
            return newest
        if position < self.tail:
            raise LookupError(f"position {position} is no longer kept, the oldest is {self.tail}")
        return self._segments[self._find(position)]

    def give_up_expired(self) -> None:
        """Give up what the storage does not want to keep."""
        for segment in self.storage.expired(self._segments):
            following = self._segments[self._segments.index(segment) + 1]
            self._forget(segment.start, following.start)
            self._given_up = max(self._given_up, segment.end)
            self._segments.remove(segment)
            self.storage.reuse(segment)

    def room_made(self) -> None:
        """Take note that the next segment is ready."""
        self.on_room()

    def synced(self) -> None:
        """Take note that more is on the disk."""
        self.on_synced()

    def journal_failed(self) -> None:
        """Take note that the storage has failed."""
        self.on_failure()

    def roll_soon(self) -> None:
        """Have the next append begin a new segment."""
        self._segments[-1].seal()

    def _find(self, position: int) -> int:
        return bisect_right(self._segments, position, key=lambda segment: segment.start) - 1

    def _place(self, position: int) -> int:
        segment = self.segment_of(position)
        return segment.place + position - segment.start

    def _roll(self) -> Segment:
        """Begin a new segment."""
        self.give_up_expired()
        return self._add(self.storage.begin(self.head, self.messages))

    def _add(self, segment: Segment) -> Segment:
        if self._segments:
            before = self._segments[-1]
            segment.place = before.place + before.size
        self._segments.append(segment)
        return segment
