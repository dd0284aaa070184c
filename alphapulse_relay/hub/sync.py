"""Sync: when what the journal holds is put on the disk, and up to where it is.

``never``, after each append (grouped: what comes while the disk is at it goes together), or every so
many seconds.
"""

from collections.abc import Callable
from concurrent.futures import Future
from time import perf_counter

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from alphapulse_relay.hub.counters import Histogram
from alphapulse_relay.hub.disk import Disk, Slot
from alphapulse_relay.hub.worker import Worker

NEVER = None
ALWAYS = 0.0
SYNC_BOUNDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Seconds: from memory that plays disk to a disk that is dying."""


class Sync:
    """``every`` is NEVER, ALWAYS or seconds. ``failed`` is told what the system said (``OSError``).

    What could not be synced is not tried again: the kernel may have dropped it and would say that all
    is well (fsync(2), "NOTES").
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
        """All before this position is on the disk, but for what :attr:`failures` lost."""
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
        self._under_way = False
        self._call: IDelayedCall | None = None
        self._closed = False

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

    def begin_at(self, head: int) -> None:
        """Take note that all before ``head`` is as well on the disk as it will ever be."""
        self._head = self.synced = head

    def write_to(self, slot: Slot | None) -> None:
        """Take note that what is appended from now on goes there; None: to memory."""
        self._current = slot

    def appended(self, head: int) -> None:
        """Take note that what lies before ``head`` is in the files."""
        self._head = head
        if self._current is not None:
            self._dirty[self._current] = None
        if self.immediate:
            self._begin()
        elif self._every is not NEVER and self._call is None and not self._closed:
            self._call = self._clock.callLater(self._every, self._on_time)

    def forget(self, slot: Slot) -> None:
        """Take note that what is in a slot was given up."""
        self._dirty.pop(slot, None)

    def close(self) -> None:
        """Sync what is left, unless it is never; waits for it."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._every is not NEVER:
            try:
                self._sync(tuple(self._dirty))
            except OSError as error:
                self._failed(error)

    def _on_time(self) -> None:
        self._call = None
        self._begin()

    def _begin(self) -> None:
        if self._under_way or not self._dirty or self._closed:
            return
        self._under_way = True
        slots, head = tuple(self._dirty), self._head
        self._dirty.clear()
        self._worker.submit(lambda: self._sync(slots), lambda future: self._end(future, head))

    def _sync(self, slots: tuple[Slot, ...]) -> float:
        began = perf_counter()
        for slot in slots:
            self._disk.sync(slot)
        return perf_counter() - began

    def _end(self, future: "Future[float]", head: int) -> None:
        self._under_way = False
        try:
            self.seconds.observe(future.result())
        except OSError as error:
            self.failures += 1
            self._failed(error)
        else:
            self.synced = head
            self.on_synced()
        if self.immediate:
            self._begin()
