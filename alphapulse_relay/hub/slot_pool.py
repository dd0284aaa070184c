"""The slots of a journal: which there are, which of them are spare, and the next one to be used.

Knows how much disk they may take, and has the next one made in the background; what lies in them it
does not look at, nor what is to be done where none can be made.
"""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import count

from alphapulse_relay.hub.disk import Disk, Slot
from alphapulse_relay.hub.worker import Worker
from alphapulse_relay.journal.format import data_size_of, index_size, slots


class SlotPool:
    """Slots of ``size`` bytes together.

    ``on_made`` is called when the next one is made, with whether that failed.
    """

    def __init__(
        self,
        disk: Disk,
        maker: Worker,
        size: int,
        on_made: Callable[[bool], None],
    ) -> None:
        self.data_size = data_size_of(size)
        """Bytes of a slot's file of messages."""
        self._index_size = index_size(self.data_size)
        self.slot_size = self.data_size + self._index_size
        """Bytes of both files."""
        self._disk, self._maker, self._size = disk, maker, size
        self._on_made = on_made
        self._slots: dict[int, Slot | None] = {}  # None: being made
        self._free: list[Slot] = []
        self._spare: Future[Slot] | None = None

    @property
    def disk_bytes(self) -> int:
        """Bytes that the files take."""
        return sum(slot.size if slot else self.slot_size for slot in self._slots.values())

    @property
    def room(self) -> int:
        """Bytes that there are for more segments: what no file takes, and what is spare."""
        return self._size - self.disk_bytes + len(self._free) * self.slot_size

    @property
    def lost(self) -> int:
        """How many slots are in the directory that nobody knows what is in."""
        return len(set(slots(self._disk.directory)).difference(self._slots))

    @property
    def ready(self) -> bool:
        """Whether the next slot need not be waited for."""
        return self._spare is None or self._spare.done()

    def add(self, slot: Slot) -> None:
        """Take in a slot that was there, with a segment in it."""
        self._slots[slot.number] = slot

    def adopt(self, slot: Slot) -> None:
        """Use a spare slot that was there, if it has the size that slots have now."""
        if (len(slot.data), len(slot.index)) == (self.data_size, self._index_size):
            self.add(slot)
            self.put_back(slot)
        else:
            self._disk.remove(slot)

    def put_back(self, slot: Slot) -> None:
        """Have a slot be a spare one."""
        self._free.append(slot)

    def give_up(self, slot: Slot, *, in_use: bool) -> None:
        """Use a slot for another segment, or remove it; its memory stays while it is ``in_use``."""
        if in_use or slot.size != self.slot_size or self.disk_bytes > self._size:
            del self._slots[slot.number]
            self._disk.remove(slot)
        else:
            self.put_back(slot)

    def close(self) -> None:
        """Close the files."""
        for slot in self._slots.values():
            if slot is not None:
                slot.close()

    # The next one

    def prepare(self) -> None:
        """Have the next slot made, if there is room for it."""
        if self._spare is None and (work := self._making()) is not None:
            self._spare = self._maker.submit(work, self._made)

    def take(self) -> Slot | None:
        """Return the next slot, once it is made; None without one. Raises ``OSError``."""
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        try:
            slot = spare.result()
        except OSError:
            self._drop_unmade()
            raise
        self._slots[slot.number] = slot
        return slot

    def try_disk(self, done: Callable[[bool], None]) -> bool:
        """Have the next slot made, and synced; then call ``done`` with whether the disk took it.

        Returns whether there is one to be made.
        """
        work = None if self._spare is not None else self._making(sync=True)
        if work is None:
            return False
        self._maker.submit(work, partial(self._tried, done))
        return True

    def _made(self, spare: "Future[Slot]") -> None:
        self._on_made(spare is self._spare and spare.exception() is not None)

    def _tried(self, done: Callable[[bool], None], spare: "Future[Slot]") -> None:
        works = spare.exception() is None
        if works:
            self._spare = spare
        else:
            self._drop_unmade()
        done(works)

    def _drop_unmade(self) -> None:
        self._slots = {number: slot for number, slot in self._slots.items() if slot is not None}

    def _making(self, *, sync: bool = False) -> Callable[[], Slot] | None:
        """Return what makes the next slot, in a thread; None if there is no room for it."""
        if self._free:
            return partial(self._clear, self._free.pop(), sync)
        # The only one there is may be of a larger journal.
        if self.disk_bytes + self.slot_size > self._size and len(self._slots) > 1:
            return None
        number = next(n for n in count() if n not in self._slots and self._disk.is_free(n))
        self._slots[number] = None
        return partial(self._make, number, sync)

    def _make(self, number: int, sync: bool) -> Slot:
        slot = self._disk.make(number, self.data_size, self._index_size)
        if sync:
            self._disk.sync(slot)
        return slot

    def _clear(self, slot: Slot, sync: bool) -> Slot:
        try:
            self._disk.clear(slot)
            if sync:
                self._disk.sync(slot)
        except OSError:
            self._free.append(slot)
            raise
        return slot
