"""Sync: when what the journal holds is put on the disk, and up to where it is.

``never``, after each append (grouped: what comes while the disk is at it goes together), or every
so many seconds.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from alphapulse_relay.hub.counters import Histogram
from alphapulse_relay.hub.disk import Disk, Slot
from alphapulse_relay.hub.worker import Worker

NEVER = None
ALWAYS = 0.0
SYNC_BOUNDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Seconds: from memory that plays disk to a disk that is dying."""


@dataclass
class _Batch:
    """What is synced together: all before ``head`` that is in files."""

    slots: tuple[Slot, ...]
    head: int
    future: "Future[float] | None" = None


class Sync:
    """``every`` is NEVER, ALWAYS or seconds. ``failed`` is told what the system said (``OSError``).

    What could not be synced is not tried again: the kernel may have dropped it and would say that
    all is well (fsync(2), "NOTES").
    """

    def __init__(
        self,
        clock: IReactorTime,
        worker: Worker,
        disk: Disk,
        every: float | None,
        failed: Callable[[OSError], None],
    ) -> None:
        self.synced = 0
        """What went to files before this position is on the disk, but for what failures lost."""
        self.failures = 0
        self.seconds = Histogram(SYNC_BOUNDS)
        """How long syncs took."""
        self.on_synced: Callable[[], None] = lambda: None
        """Called when :attr:`synced` has moved."""
        self._clock = clock
        self._worker = worker
        self._disk = disk
        self._every = every
        self._failed = failed
        self._dirty: dict[Slot, None] = {}
        self._current: Slot | None = None
        self._head = 0
        self._written = 0  # what is behind it lies in memory
        self._under_way: _Batch | None = None
        self._call: IDelayedCall | None = None
        self._closed = False

    @property
    def every(self) -> float | None:
        """How many seconds after an append it is synced, ALWAYS or NEVER."""
        return self._every

    @property
    def immediate(self) -> bool:
        """Whether each append is to be synced before it is acknowledged."""
        return self._every == ALWAYS

    @property
    def never(self) -> bool:
        """Whether it is left to the kernel."""
        return self._every is NEVER

    @property
    def unsynced(self) -> int:
        """Bytes that are not known to be on the disk."""
        return self._head - self.synced

    def begin_at(self, head: int, unsynced: Iterable[Slot] = ()) -> None:
        """Take note that all before ``head`` is on the disk, or as well as it will ever be.

        The ``unsynced`` slots may not be, but will.
        """
        self._head = self._written = self.synced = head
        self._dirty.update(dict.fromkeys(unsynced))
        self._plan()

    def write_to(self, slot: Slot | None) -> None:
        """Take note that what is appended from now on goes there; None: to memory."""
        self._current = slot

    def appended(self, head: int) -> None:
        """Take note that what lies before ``head`` is in the files."""
        self._head = head
        if self._current is not None:
            self._written = head
            self._dirty[self._current] = None
            self._plan()

    def forget(self, slot: Slot) -> None:
        """Take note that what is in a slot was given up."""
        self._dirty.pop(slot, None)

    def close(self) -> None:
        """Sync what is left, whenever that would be; waits for it. The worker is closed before."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        batch, self._under_way = self._under_way, None
        if batch is not None and batch.future is not None:
            if batch.future.cancelled():
                self._dirty.update(dict.fromkeys(batch.slots))
            else:
                self._settle(batch.future.result, batch.head)
        if self._dirty:
            self._settle(partial(self._sync, tuple(self._dirty)), self._written)
            self._dirty.clear()

    def _plan(self) -> None:
        """See that what is to be synced will be."""
        if not self._dirty or self._every is NEVER or self._closed:
            return
        if self.immediate:
            self._begin()
        elif self._call is None:
            self._call = self._clock.callLater(self._every, self._on_time)

    def _on_time(self) -> None:
        self._call = None
        self._begin()

    def _begin(self) -> None:
        if self._under_way is not None:
            return
        batch = self._under_way = _Batch(tuple(self._dirty), self._written)
        self._dirty.clear()
        batch.future = self._worker.submit(
            partial(self._sync, batch.slots), partial(self._end, batch)
        )

    def _sync(self, slots: tuple[Slot, ...]) -> float:
        began = perf_counter()
        for slot in slots:
            if slot is not self._current:
                self._disk.unmap(slot)
            self._disk.sync(slot)
        return perf_counter() - began

    def _end(self, batch: _Batch, future: "Future[float]") -> None:
        self._under_way = None
        self._settle(future.result, batch.head)
        self._plan()

    def _settle(self, took: Callable[[], float], head: int) -> None:
        """Take note of how it went to sync all before ``head``."""
        try:
            self.seconds.observe(took())
        except OSError as error:
            self.failures += 1
            self._failed(error)
        else:
            self.synced = head
            self.on_synced()
