"""A segment in two files."""

from alphapulse_relay.hub.disk import Slot
from alphapulse_relay.hub.segment import Segment
from alphapulse_relay.journal.format import PAGE, RECORD_SIZE, Header


class FileSegment(Segment):
    """A segment in a slot. Until ``verified`` its bytes were not compared with their index."""

    __slots__ = ("readers", "slot", "verified")

    def __init__(self, header: Header, slot: Slot, *, records: int = 0, used: int = 0) -> None:
        super().__init__(
            header, memoryview(slot.data), memoryview(slot.index), records=records, used=used
        )
        self.slot = slot
        self.verified = True
        self.readers = 0  # threads that look at it: its memory must stay what it is

    def written(self) -> tuple[int, int]:
        """Return how many bytes of its two files are in use."""
        return self.used, PAGE + self.records * RECORD_SIZE
