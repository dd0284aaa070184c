"""Sync: when what the journal holds is put on the disk, and up to where it is.

``never``, after each append (grouped: what comes while the disk is at it goes together), or every
so many seconds.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from alphapulse_relay.hub.counters import Histogram
from alphapulse_relay.hub.disk import Disk, Slot, Span
from alphapulse_relay.hub.worker import Worker

Written = Callable[[], tuple[int, int]]
"""Tells how many bytes of a slot's two files are in use by now."""
NEVER = None
ALWAYS = 0.0
SYNC_BOUNDS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10)
"""Seconds: from memory that plays disk to a disk that is dying."""


@dataclass
class _Batch:
    """What is synced together: all before ``head`` that is in files."""

    spans: dict[Slot, Span]
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
        self._dirty: dict[Slot, Written] = {}  # and how much of each is written by now
        self._synced: dict[Slot, tuple[int, int]] = {}  # how much of each is on the disk
        self._current: tuple[Slot, Written] | None = None
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
    def unsynced(self) -> int:
        """Bytes that are not known to be on the disk."""
        return self._head - self.synced

    def begin_at(self, head: int, unsynced: Mapping[Slot, Written]) -> None:
        """Take note that all before ``head`` is on the disk, or as well as it will ever be.

        The ``unsynced`` slots may not be, but will.
        """
        self._head = self._written = self.synced = head
        self._dirty.update(unsynced)
        self._plan()

    def write_to(self, slot: Slot, written: Written, synced: tuple[int, int] = (0, 0)) -> None:
        """Take note that what is appended from now on goes there.

        Of what is ``written``, in bytes of its two files, so much is ``synced`` already.
        """
        self._current = slot, written
        self._synced[slot] = synced

    def write_to_memory(self) -> None:
        """Take note that what is appended from now on goes to no file."""
        self._current = None

    def appended(self, head: int) -> None:
        """Take note that what lies before ``head`` is in the files."""
        self._head = head
        if self._current is not None:
            self._written = head
            slot, written = self._current
            self._dirty[slot] = written
            self._plan()

    def forget(self, slot: Slot) -> None:
        """Take note that what is in a slot was given up."""
        self._dirty.pop(slot, None)
        self._synced.pop(slot, None)
        if self._under_way is not None:
            self._under_way.spans.pop(slot, None)

    def close(self) -> None:
        """Sync what is left, whenever that would be; waits for it. The worker is closed before."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        batch, self._under_way = self._under_way, None
        if batch is not None and batch.future is not None:
            not_begun = batch.future.cancelled()
            took = partial(self._sync, batch.spans) if not_begun else batch.future.result
            self._settle(took, batch)
        last = self._take_dirty()
        if last.spans:
            self._settle(partial(self._sync, dict(last.spans)), last)

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
        batch = self._under_way = self._take_dirty()
        # What is given up meanwhile is taken out of the batch, but not from under the thread.
        batch.future = self._worker.submit(
            partial(self._sync, dict(batch.spans)), partial(self._end, batch)
        )

    def _take_dirty(self) -> _Batch:
        """Return what is to be synced now."""
        spans = {
            slot: Span(self._synced.get(slot, (0, 0)), written())
            for slot, written in self._dirty.items()
        }
        self._dirty.clear()
        return _Batch(spans, self._written)

    def _sync(self, spans: Mapping[Slot, Span]) -> float:
        began = perf_counter()
        current = self._current and self._current[0]
        for slot, span in spans.items():
            if slot is not current:
                self._disk.unmap(slot)
            self._disk.sync(slot, span)
        return perf_counter() - began

    def _end(self, batch: _Batch, future: "Future[float]") -> None:
        self._under_way = None
        self._settle(future.result, batch)
        self._plan()

    def _settle(self, took: Callable[[], float], batch: _Batch) -> None:
        """Take note of how it went to sync a batch."""
        try:
            self.seconds.observe(took())
        except OSError as error:
            self.failures += 1
            self._failed(error)
        else:
            self._synced.update({slot: span.end for slot, span in batch.spans.items()})
            self.synced = batch.head
            self.on_synced()
