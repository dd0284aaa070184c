"""The journal: the log's segments in files, which outlive the process.

Where the disk is full or fails the next segment lies in memory, and the relay goes on; files come
back as soon as one can be made. Which files there are ``slot_pool.py`` knows, when they are synced
``sync.py``, how they come back into memory ``pager.py``; what is in them ``journal/format.py``, how
they are read at start ``journal/recovery.py``.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from alphapulse_relay.hub.counters import Histogram
from alphapulse_relay.hub.disk import Disk, Slot
from alphapulse_relay.hub.epoch import JUMP, boot_id, new_epoch, reopened, why_lost
from alphapulse_relay.hub.file_segment import FileSegment
from alphapulse_relay.hub.journal_place import DIRECTORY_MODE, holder, why_unfit
from alphapulse_relay.hub.pager import Pager
from alphapulse_relay.hub.segment import Segment
from alphapulse_relay.hub.slot_pool import SlotPool
from alphapulse_relay.hub.storage import LogOwner, MemoryStorage
from alphapulse_relay.hub.sync import SYNC_BOUNDS, Sync
from alphapulse_relay.hub.worker import Worker
from alphapulse_relay.journal import recovery
from alphapulse_relay.journal.format import (
    LOCK_FILE,
    MEMORY_FLAG,
    MEMORY_FLAG_OFFSET,
    MEMORY_FOLLOWS,
    PAGE,
    Epoch,
    FormatError,
    Header,
)
from alphapulse_relay.safe_path import make_directory

WINDOW = 64 << 20
"""Bytes that consumers may be behind before publishers are held at a part of it: history is for
those that are slow, not for making everybody slow."""
HOT = 64 << 20
"""Bytes behind the head that are taken to be in memory: they were just written."""
RETRY_SECONDS = 5.0
"""How long after a failure of the disk it is tried again."""
AGE_SECONDS = 60.0
"""How often it is looked for segments that are too old."""


class JournalError(Exception):
    """A journal that cannot be opened; ``str()`` is one line."""


class JournalInUse(JournalError):  # noqa: N818 - says what is
    """Another process has it."""


@dataclass(frozen=True)
class Workers:
    """Threads: one makes segments, one reads them, one syncs. None waits for another."""

    maker: Worker
    reader: Worker
    syncer: Worker

    def close(self) -> None:
        """Wait for all of them."""
        for worker in (self.maker, self.reader, self.syncer):
            worker.close()


class Journal:
    """Segments in the files of a directory, ``size`` bytes of them; see ``storage.Storage``.

    ``every`` is when to sync, as :class:`Sync` has it; segments whose newest message is older than
    ``age`` seconds are given up. ``memory`` is where segments lie while the disk takes none.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        disk: Disk,
        workers: Workers,
        memory: MemoryStorage,
        *,
        size: int,
        every: float | None,
        age: float | None = None,
    ) -> None:
        self.size = size
        self.epoch = 0
        self.head = 0
        self.run_number = 0
        self.failure: str | None = None
        """Why segments lie in memory, if they do."""
        self.failures = 0
        """How often that began."""
        self.waits = Histogram(SYNC_BOUNDS)
        """Seconds that the next segment was waited for, with all else that the relay does."""
        self.sync = Sync(clock, workers.syncer, disk, every, self._sync_failed)
        self.pool = SlotPool(disk, workers.maker, size, self._prepared)
        self.pager = Pager(disk, workers.reader)
        self._clock, self._disk, self._workers, self._memory = clock, disk, workers, memory
        self._age = age
        self._next_number = 0
        self._current: FileSegment | None = None  # where is written; None in memory
        self._head = 0
        self._lock: int | None = None
        self._calls: dict[str, IDelayedCall] = {}

    @property
    def window(self) -> int:
        """How many bytes consumers may be behind; see ``storage.Storage``."""
        return min(WINDOW, (self.size // self.pool.slot_size - 2) * self.pool.data_size // 2)

    @property
    def ready(self) -> bool:
        """Whether the next segment is ready, or lies in memory."""
        return self.failure is not None or self.pool.ready

    @property
    def durable(self) -> bool:
        """Whether what is appended now will be acknowledged: where each is synced, in files."""
        return self.failure is None or not self.sync.immediate

    def acknowledged(self, head: int) -> int:
        """Return up to where can be acknowledged; what a failed sync lost never is."""
        return self.sync.synced if self.sync.immediate else head

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._disk.directory

    # Opening and closing

    def open(self, owner: LogOwner) -> Sequence[Segment]:
        """Lock the directory and return what is in it. Raises :class:`JournalError`."""
        self._owner = owner
        self.sync.on_synced = owner.synced
        directory = self.directory
        try:
            make_directory(directory, DIRECTORY_MODE)
            if (reason := why_unfit(directory)) is not None:
                raise JournalError(reason)
            self._lock = self._disk.lock(directory / LOCK_FILE)
            if self._lock is None:
                pid = holder(directory)
                who = f" (pid {pid})" if pid else ""
                raise JournalInUse(f"{directory} is in use by another relay{who}")
            segments = self._recover()
        except FormatError as error:
            raise JournalError(f"{directory}: {error}") from None
        except OSError as error:
            raise JournalError(f"{directory}: {error.strerror or error}") from None
        self._begin_epoch(segments)
        self._prepare()
        self.pager.verify_next(list(segments))
        if self._age is not None:
            self._call_later("age", AGE_SECONDS, self._look_at_age)
        return segments

    def _recover(self) -> list[FileSegment]:
        recovered = recovery.recover(self.directory, writable=True, verify="last")
        segments = []
        for found in recovered.segments:
            slot = self._disk.open(found.slot)
            segment = FileSegment(
                found.header, slot, records=found.records, used=found.stop - found.header.start
            )
            segment.holes = list(found.holes)
            segment.verified = found.verified
            if not found.intact:
                segment.seal()
            self.pool.add(slot)
            segments.append(segment)
        for number in recovered.spare:
            self.pool.adopt(self._disk.open(number))
        self.pager.report(recovered.damage)
        self._found = recovered.epoch
        return segments

    def _begin_epoch(self, segments: Sequence[FileSegment]) -> None:
        boot = boot_id()
        # Without segments it is not known which positions were given.
        before = (self._found if segments else None) or Epoch(new_epoch(), 0, boot, closed=True)
        now = reopened(before, boot)
        self.epoch, self.run_number = now.epoch, now.starts
        if segments:
            self._go_on_behind(segments, before, boot)
        unsynced = {} if before.closed else {each.slot: each.written for each in segments}
        self.sync.begin_at(self.head, unsynced)
        self._head = self.head
        try:
            now.write(self.directory)
        except OSError as error:
            raise JournalError(f"{self.directory}: {error.strerror or error}") from None

    def _go_on_behind(self, segments: Sequence[FileSegment], before: Epoch, boot: str) -> None:
        """Have the log go on behind what was there, further if some of it may be lost."""
        last, lost = segments[-1], self.pool.lost
        self._next_number = last.number + 1 + lost
        self._current = last
        self.head = last.end
        self.sync.write_to(last.slot, last.written, last.written() if before.closed else (0, 0))
        between = last.number - segments[0].number + 1 - len(segments)
        reason = why_lost(last.slot.index, before, boot)
        if lost > between:  # what is in it may have been the newest
            reason = "a segment's header was lost"
        if reason is not None:
            self.head += JUMP
            self._log.warn(
                "journal: {reason}: what was sent last may be missing in it, "
                "positions go on at {head}",
                reason=reason,
                head=self.head,
            )

    def close(self) -> None:
        """Sync and leave in order. May wait for the disk."""
        self._workers.close()
        self.sync.close()
        for call in self._calls.values():
            if call.active():
                call.cancel()
        closed = self.failure is None
        try:
            Epoch(self.epoch, self.run_number, boot_id(), closed).write(self.directory)
        except OSError as error:
            self._log.warn("journal: {error}", error=str(error))
        self.pool.close()
        if self._lock is not None:
            os.close(self._lock)

    # Segments

    def begin(self, position: int, ordinal: int) -> Segment:
        """Return a new segment: in files if they can be had, in memory if not."""
        self._prepare()
        began = perf_counter()
        slot = self._take_spare() if self.failure is None else None
        self.waits.observe(perf_counter() - began)
        self._prepare()
        if slot is None:
            if self.failure is None:
                self._fail("no room for another segment")
            return self._begin_in_memory(position, ordinal)
        header = Header(self.epoch, self._next_number, position, ordinal, len(slot.data) - PAGE)
        self._next_number += 1
        MEMORY_FLAG.pack_into(slot.index, MEMORY_FLAG_OFFSET, 0)
        packed = header.pack()
        slot.data[header.size : header.size + len(packed)] = packed
        slot.index[: len(packed)] = packed
        self._current = FileSegment(header, slot)
        self.sync.write_to(slot, self._current.written)
        return self._current

    def _begin_in_memory(self, position: int, ordinal: int) -> Segment:
        if self._current is not None:
            MEMORY_FLAG.pack_into(self._current.slot.index, MEMORY_FLAG_OFFSET, MEMORY_FOLLOWS)
        self._current = None
        self.sync.write_to_memory()
        return self._memory.begin(position, ordinal)

    def expired(self, segments: Sequence[Segment]) -> Sequence[Segment]:
        """Return what there is no room for, or what is too old; the oldest first."""
        if self.failure is not None:
            memory = [each for each in segments if not isinstance(each, FileSegment)]
            return self._memory.expired(memory)
        least = 0 if self._age is None else time.time_ns() - int(self._age * 1e9)
        room = self.pool.room
        gone = []
        for segment in segments[:-1]:
            if room >= self.pool.slot_size and segment.newest_time() >= least:
                break
            gone.append(segment)
            room += segment.slot.size if isinstance(segment, FileSegment) else 0
        return gone

    def reuse(self, segment: Segment) -> None:
        """Take the files of a segment that was given up for another one."""
        if not isinstance(segment, FileSegment):
            self._memory.reuse(segment)
            return
        slot = segment.slot
        self.sync.forget(slot)
        segment.verified = True  # nobody asks any more
        self.pool.give_up(slot, in_use=segment.readers > 0)
        self._prepare()

    def _prepare(self) -> None:
        """Have the next slot made, if files are written."""
        if self.failure is None:
            self.pool.prepare()

    def _prepared(self, failed: bool) -> None:
        if failed:
            self._take_spare()
        self._owner.room_made()

    def _take_spare(self) -> Slot | None:
        """Return the next slot, once it is made; None if it cannot be."""
        try:
            return self.pool.take()
        except OSError as error:
            self._fail(f"no file for the next segment: {error.strerror or error}")
            return None

    # When the disk fails

    def _fail(self, reason: str) -> None:
        """Go on in memory."""
        if self.failure is None:
            self.failures += 1
            self._log.error("journal: {reason}; the log goes on in memory", reason=reason)
            self._call_later("retry", RETRY_SECONDS, self._retry)
        self.failure = reason
        self._owner.journal_failed()

    def _sync_failed(self, error: OSError) -> None:
        self._fail(f"what was sent last may not be on the disk, sync failed: {error.strerror}")
        if self._current is not None:
            self._owner.roll_soon()
        self._owner.room_made()

    def _retry(self) -> None:
        # A slot that was made ready before is made so again, to see whether it can be synced.
        if self.pool.ready and (slot := self._take_spare()) is not None:
            self.pool.put_back(slot)
        if not self.pool.try_disk(self._retried):
            self._call_later("retry", RETRY_SECONDS, self._retry)

    def _retried(self, works: bool) -> None:
        if not works:
            self._call_later("retry", RETRY_SECONDS, self._retry)
            return
        self._log.info("journal: the disk takes files again")
        self.failure = None
        self._owner.roll_soon()

    # Reading

    def readable(self, segment: Segment, start: int, stop: int) -> bool:
        """Tell whether positions are verified and in memory."""
        if not isinstance(segment, FileSegment):
            return True
        if not segment.verified:
            return False
        # What was there before has not been written by this process.
        if start >= max(self._head - HOT, self.head):
            return True
        return self._disk.resident(segment.slot, start - segment.start, stop - segment.start)

    def fetch(self, segment: Segment, start: int, stop: int, done: Callable[[], None]) -> None:
        """Read positions from the disk, and some more behind them; then call ``done``."""
        if not isinstance(segment, FileSegment):
            raise NotImplementedError("memory need not be fetched")
        self.pager.fetch(segment, start, stop, done)

    # Time

    def appended(self, head: int) -> None:
        """Take note that the log's head has moved."""
        self._head = head
        self.sync.appended(head)

    def keep_for(self, age: float | None) -> None:
        """Give up what is older than so many seconds from now on, None for whatever its age is."""
        if (look := self._calls.get("age")) is not None and look.active():
            look.cancel()
        self._age = age
        if age is not None:
            self._look_at_age()

    def _look_at_age(self) -> None:
        self._call_later("age", AGE_SECONDS, self._look_at_age)
        self._owner.give_up_expired()

    def _call_later(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        self._calls[name] = self._clock.callLater(seconds, action)
