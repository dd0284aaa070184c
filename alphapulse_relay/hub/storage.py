"""Storage: where the log's segments lie. Here: in memory; ``journal.py`` has the one with files.

Knows how many segments there may be; what is in them it does not look at.
"""

import mmap
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from alphapulse_relay.hub.segment import Segment
from alphapulse_relay.journal.format import PAGE, RECORD_SIZE, Header
from alphapulse_relay.protocol_v2.header import HEADER_SIZE

SEGMENTS = 8
"""Segments in a full window. More would waste less at each one's end, and lose sight sooner."""


class LogOwner(Protocol):
    """What a storage tells the log, in the reactor's thread."""

    def room_made(self) -> None:
        """Take note that there is room for the next segment."""

    def roll_soon(self) -> None:
        """Have the next append begin a new segment."""

    def give_up_expired(self) -> None:
        """Give up what the storage does not want to keep."""

    def synced(self) -> None:
        """Take note that more can be acknowledged."""

    def journal_failed(self) -> None:
        """Take note that what is appended now does not outlive the process."""


class Storage(Protocol):
    """What the log asks of where its segments lie."""

    epoch: int
    """Which log it is: positions of another one mean nothing here."""
    run_number: int
    """How often this log was opened: no two runs have the same."""
    head: int
    """Where a log goes on that has just been opened."""

    @property
    def window(self) -> int:
        """How many bytes consumers may be behind: publishers are held at a part of it."""

    def open(self, owner: LogOwner) -> Sequence[Segment]:
        """Return the segments that are kept from before, in order; the last may be appended to."""

    @property
    def ready(self) -> bool:
        """Whether :meth:`begin` need not wait."""

    @property
    def durable(self) -> bool:
        """Whether what is appended now will ever be acknowledged."""

    def acknowledged(self, head: int) -> int:
        """Return up to where what was appended may be acknowledged; ``head`` at most."""

    def begin(self, position: int, ordinal: int) -> Segment:
        """Return a new segment: it begins at a position, with so many messages before it."""

    def expired(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """Return those to be given up before another one begins."""

    def reuse(self, segment: Segment) -> None:
        """Take the room of a segment that was given up."""

    def readable(self, segment: Segment, start: int, stop: int) -> bool:
        """Tell whether positions can be read without waiting for a disk."""

    def fetch(self, segment: Segment, start: int, stop: int, done: Callable[[], None]) -> None:
        """Make positions readable, off the reactor's thread; then call ``done`` in it."""

    def appended(self, head: int) -> None:
        """Take note that the log's head has moved."""


class MemoryStorage:
    """A window of ``size`` bytes in anonymous memory: the oldest segment is used again."""

    ready = True
    head = run_number = 0

    def __init__(self, size: int) -> None:
        self.epoch = random.SystemRandom().getrandbits(63) | 1
        self.window = size
        self._free: list[tuple[memoryview, memoryview]] = []
        self._next = 0

    def open(self, owner: LogOwner) -> Sequence[Segment]:  # noqa: ARG002
        """Return nothing: memory keeps nothing from before."""
        return ()

    @property
    def durable(self) -> bool:
        """Tell that all is acknowledged: memory promises nothing more."""
        return True

    def acknowledged(self, head: int) -> int:
        """Return the head."""
        return head

    def begin(self, position: int, ordinal: int) -> Segment:
        """Return a new segment, in memory that was given up if there is any."""
        size = self.window // SEGMENTS
        if not self._free:
            # Room for a record for each message, however small: what is not used takes no memory.
            index = PAGE + (size // HEADER_SIZE + 1) * RECORD_SIZE
            self._free.append((anonymous(size), anonymous(index)))
        data, index_memory = self._free.pop()
        self._next += 1
        return Segment(Header(self.epoch, self._next, position, ordinal, size), data, index_memory)

    def expired(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """Return the oldest if the window is full."""
        return segments[: max(len(segments) - SEGMENTS + 1, 0)]

    def reuse(self, segment: Segment) -> None:
        """Keep its memory for the next segment."""
        self._free.append((segment.data, segment.index))

    def readable(self, segment: Segment, start: int, stop: int) -> bool:  # noqa: ARG002
        """Tell that they can: it is memory."""
        return True

    def fetch(self, segment: Segment, start: int, stop: int, done: Callable[[], None]) -> None:
        """Refuse: memory is always readable."""
        raise NotImplementedError("memory need not be fetched")

    def appended(self, head: int) -> None:
        """Do nothing: nothing is to be written."""


def anonymous(size: int) -> memoryview:
    """Return so much memory, of which only what is touched is taken."""
    # Private: the default would be a shared mapping, which lies on tmpfs.
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
