"""The journal: the log's segments in files, which outlive the process.

Where the disk is full or fails the next segment lies in memory, and the relay goes on; files come
back as soon as one can be made. What is in the files ``journal/format.py`` tells, how they are read
at start ``journal/recovery.py``; when they are synced, ``sync.py``.
"""

import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from alphapulse_relay.hub.counters import Histogram
from alphapulse_relay.hub.disk import Disk, Slot
from alphapulse_relay.hub.segment import Segment
from alphapulse_relay.hub.storage import LogOwner, MemoryStorage
from alphapulse_relay.hub.sync import SYNC_BOUNDS, Sync
from alphapulse_relay.hub.worker import Worker
from alphapulse_relay.journal import recovery
from alphapulse_relay.journal.format import (
    EPOCH_FILE,
    LOCK_FILE,
    MEMORY_FLAG,
    MEMORY_FLAG_OFFSET,
    MEMORY_FOLLOWS,
    PAGE,
    RECORD_SIZE,
    Epoch,
    FormatError,
    Header,
    data_path,
    data_size_of,
    index_size,
    slots,
)

WINDOW = 64 << 20
"""Bytes that consumers may be behind before publishers are held at a part of it: history is for
those that are slow, not for making everybody slow."""
HOT = 64 << 20
"""Bytes behind the head that are taken to be in memory: they were just written."""
READ_AHEAD = 4 << 20
"""Bytes read at once for who stands in history that is not in memory."""
RETRY_SECONDS = 5.0
"""How long after a failure of the disk it is tried again."""
AGE_SECONDS = 60.0
"""How often it is looked for segments that are too old."""
JUMP = 1 << 40
"""Positions left out where messages may have been lost that somebody has seen: more than can have
been appended. So no position is ever given twice."""
UNKNOWN_STARTS = 0x3FFFFFFF
"""Of which a number is drawn where the journal's own count is lost."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Differs from one start of the machine to the next (proc(5))."""


class JournalError(Exception):
    """A journal that cannot be opened; ``str()`` is one line."""


class JournalInUse(JournalError):  # noqa: N818 - says what is
    """Another process has it."""


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
        self.damage = 0
        """Places found damaged since the start."""
        self.sync = Sync(clock, workers.syncer, disk, every, self._sync_failed)
        self._clock, self._disk, self._workers, self._memory = clock, disk, workers, memory
        self._age = age
        self._data_size = data_size_of(size)
        self._index_size = index_size(self._data_size)
        self.slot_size = self._data_size + self._index_size
        """Bytes of a segment's files."""
        self._slots: dict[int, Slot | None] = {}  # None: being made
        self._free: list[Slot] = []
        self._spare: Future[Slot] | None = None
        self._next_number = 0
        self._current: FileSegment | None = None  # where is written; None in memory
        self._head = 0
        self._lock: int | None = None
        self._calls: dict[str, IDelayedCall] = {}

    @property
    def window(self) -> int:
        """How many bytes consumers may be behind; see ``storage.Storage``."""
        return min(WINDOW, (self.size // self.slot_size - 2) * self._data_size // 2)

    @property
    def ready(self) -> bool:
        """Whether the next segment is ready, or lies in memory."""
        return self.failure is not None or self._spare is None or self._spare.done()

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

    @property
    def disk_bytes(self) -> int:
        """Bytes that the files take."""
        return sum(slot.size if slot else self.slot_size for slot in self._slots.values())

    # Opening and closing

    def open(self, owner: LogOwner) -> Sequence[Segment]:
        """Lock the directory and return what is in it. Raises :class:`JournalError`."""
        self._owner = owner
        self.sync.on_synced = owner.synced
        directory = self._disk.directory
        try:
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            _refuse_foreign(directory)
            self._lock = self._disk.lock(directory / LOCK_FILE)
            if self._lock is None:
                raise JournalInUse(f"{directory} is in use by another relay{_holder(directory)}")
            segments = self._recover()
        except FormatError as error:
            raise JournalError(f"{directory}: {error}") from None
        except FileExistsError:
            raise JournalError(f"{directory} is not a directory") from None
        except OSError as error:
            raise JournalError(f"{directory}: {error.strerror or error}") from None
        self._begin_epoch(segments)
        self._prepare()
        self._verify_next(list(segments))
        if self._age is not None:
            self._call_later("age", AGE_SECONDS, self._look_at_age)
        return segments

    def _recover(self) -> list[FileSegment]:
        recovered = recovery.recover(self._disk.directory, writable=True, verify="last")
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
            self._slots[slot.number] = slot
            segments.append(segment)
        for number in recovered.spare:
            self._adopt(self._disk.open(number))
        self._report(recovered.damage)
        self._found = recovered.epoch
        return segments

    def _adopt(self, slot: Slot) -> None:
        """Use a spare slot that was there, if it has the size that slots have now."""
        if (len(slot.data), len(slot.index)) == (self._data_size, self._index_size):
            self._slots[slot.number] = slot
            self._free.append(slot)
        else:
            self._disk.remove(slot)

    def _begin_epoch(self, segments: Sequence[FileSegment]) -> None:
        before, boot = self._found, _boot()
        if before is None or not segments:  # which positions were given is not known
            before = Epoch(_new_epoch(), 0, boot, closed=True)
        # Where it is not known how often it was opened, no number of then must come again.
        starts = before.starts if before.boot else _new_epoch() & UNKNOWN_STARTS
        self.epoch, self.run_number = before.epoch, starts + 1
        if segments:
            last = segments[-1]
            lost = len(set(slots(self._disk.directory)).difference(self._slots))
            self._next_number = last.number + 1 + lost
            self._current = last
            self.head = last.end
            self.sync.write_to(last.slot, last.written, last.written() if before.closed else (0, 0))
            between = last.number - segments[0].number + 1 - len(segments)
            reason = _may_miss(last, before, boot)
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
        unsynced = {} if before.closed else {each.slot: each.written for each in segments}
        self.sync.begin_at(self.head, unsynced)
        self._head = self.head
        try:
            Epoch(self.epoch, self.run_number, boot, closed=False).write(self._disk.directory)
        except OSError as error:
            raise JournalError(f"{self._disk.directory}: {error.strerror or error}") from None

    def close(self) -> None:
        """Sync and leave in order. May wait for the disk."""
        self._workers.close()
        self.sync.close()
        for call in self._calls.values():
            if call.active():
                call.cancel()
        closed = self.failure is None
        try:
            Epoch(self.epoch, self.run_number, _boot(), closed).write(self._disk.directory)
        except OSError as error:
            self._log.warn("journal: {error}", error=str(error))
        for slot in self._slots.values():
            if slot is not None:
                slot.close()
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
        room = self.size - self.disk_bytes + len(self._free) * self.slot_size
        gone = []
        for segment in segments[:-1]:
            if room >= self.slot_size and segment.newest_time() >= least:
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
        if segment.readers or slot.size != self.slot_size or self.disk_bytes > self.size:
            del self._slots[slot.number]
            self._disk.remove(slot)
        else:
            self._free.append(slot)
        self._prepare()

    def _take_spare(self) -> Slot | None:
        """Return the next slot, once it is made; None if it cannot be."""
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        try:
            slot = spare.result()
        except OSError as error:
            self._drop_unmade()
            self._fail(f"no file for the next segment: {error.strerror or error}")
            return None
        self._slots[slot.number] = slot
        return slot

    def _drop_unmade(self) -> None:
        self._slots = {number: slot for number, slot in self._slots.items() if slot is not None}

    def _prepare(self) -> None:
        """Have the next slot made, if there is room for it."""
        if self._spare is None and self.failure is None and (work := self._making()) is not None:
            self._spare = self._workers.maker.submit(work, self._prepared)

    def _making(self, *, sync: bool = False) -> Callable[[], Slot] | None:
        """Return what makes the next slot, in a thread; None if there is no room for it."""
        if self._free:
            return partial(self._clear, self._free.pop(), sync)
        # The only one there is may be of a larger journal.
        if self.disk_bytes + self.slot_size > self.size and len(self._slots) > 1:
            return None
        number = next(n for n in count() if n not in self._slots and self._disk.is_free(n))
        self._slots[number] = None
        return partial(self._make, number, sync)

    def _make(self, number: int, sync: bool) -> Slot:
        slot = self._disk.make(number, self._data_size, self._index_size)
        if sync:
            self._disk.sync(slot)
        return slot

    def _clear(self, slot: Slot, sync: bool) -> Slot:
        try:
            self._disk.clear(slot, sync=not self.sync.never)
            if sync:
                self._disk.sync(slot)
        except OSError:
            self._free.append(slot)
            raise
        return slot

    def _prepared(self, spare: "Future[Slot]") -> None:
        if spare is self._spare and spare.exception() is not None:
            self._take_spare()
        self._owner.room_made()

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
        done = self._spare is not None and self._spare.done()
        if done and (slot := self._take_spare()) is not None:
            self._free.append(slot)
        work = None if self._spare is not None else self._making(sync=True)
        if work is None:
            self._call_later("retry", RETRY_SECONDS, self._retry)
        else:
            self._workers.maker.submit(work, self._retried)

    def _retried(self, slot: "Future[Slot]") -> None:
        if slot.exception() is not None:
            self._drop_unmade()
            self._call_later("retry", RETRY_SECONDS, self._retry)
            return
        self._log.info("journal: the disk takes files again")
        self.failure, self._spare = None, slot
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
        begin, end = start - segment.start, segment.used
        if segment.verified:
            end = min(max(stop - segment.start, begin + READ_AHEAD), end)
        else:
            begin = 0
        segment.readers += 1

        def fetch() -> list[recovery.Damage]:
            if segment.verified:
                self._disk.load(segment.slot, begin, end)
                return []
            return self._verify(segment)

        def fetched(future: "Future[list[recovery.Damage]]") -> None:
            segment.readers -= 1
            self._fetched(segment, segment.start + begin, segment.start + end, future)
            done()

        self._workers.reader.submit(fetch, fetched)

    def _verify_next(self, segments: list[FileSegment]) -> None:
        """Verify all that was there at the start, the newest first: that is asked for first."""
        while segments and segments[-1].verified:
            segments.pop()
        if segments:
            segment = segments.pop()
            self.fetch(segment, segment.start, segment.end, partial(self._verify_next, segments))

    def _verify(self, segment: FileSegment) -> list[recovery.Damage]:
        """Read and verify a segment; what of it was not in memory does not stay there."""
        resident = self._disk.resident(segment.slot, 0, max(segment.used, 1))
        self._disk.load(segment.slot, 0, segment.used)
        damage = recovery.verify_records(
            segment.data,
            segment.index,
            segment.header,
            0,
            segment.records,
            file=data_path(self._disk.directory, segment.slot.number).name,
            mark=True,
        )
        if not resident:
            self._disk.release(segment.slot)
        return damage

    def _fetched(
        self, segment: FileSegment, start: int, stop: int, future: "Future[list[recovery.Damage]]"
    ) -> None:
        """Take note of the damage found in positions, or that none of them can be read."""
        try:
            damage = future.result()
        except OSError as error:
            start = segment.record_start(max(segment.record_at(start), 0))
            stop = segment.record_start(segment.record_at(stop - 1) + 1)
            name = data_path(Path(), segment.slot.number).name
            damage = [recovery.Damage(name, start, stop, f"cannot be read: {error.strerror}")]
        segment.verified = True
        new = [each for each in damage if (each.start, each.stop) not in segment.holes]
        segment.holes = sorted([*segment.holes, *((each.start, each.stop) for each in new)])
        self._report(new)

    def _report(self, damage: Iterable[recovery.Damage]) -> None:
        for each in damage:
            self.damage += 1
            self._log.error(
                "journal damaged: {file}, positions {start} to {stop}: {detail}",
                file=each.file,
                start=each.start,
                stop=each.stop,
                detail=each.detail,
            )

    # Time

    def appended(self, head: int) -> None:
        """Take note that the log's head has moved."""
        self._head = head
        self.sync.appended(head)

    def _look_at_age(self) -> None:
        self._call_later("age", AGE_SECONDS, self._look_at_age)
        self._owner.give_up_expired()

    def _call_later(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        self._calls[name] = self._clock.callLater(seconds, action)


def _refuse_foreign(directory: Path) -> None:
    """Raise :class:`JournalError` for a directory that is somebody else's: it would be filled."""
    names = {path.name for path in directory.iterdir()}
    if names and not names & {EPOCH_FILE, LOCK_FILE} and not slots(directory):
        raise JournalError(f"{directory} is not empty and holds no journal")


def _new_epoch() -> int:
    return random.SystemRandom().getrandbits(63) | 1


def _boot() -> str:
    """Return which start of the machine this is; never the same twice if it cannot be told."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return str(_new_epoch())


def _may_miss(last: FileSegment, before: Epoch, boot: str) -> str | None:
    """Return why positions may have been given behind the last segment, if they may."""
    (flag,) = MEMORY_FLAG.unpack_from(last.slot.index, MEMORY_FLAG_OFFSET)
    if flag == MEMORY_FOLLOWS:
        return "the disk was full while the relay ran"
    return (
        "the machine stopped while the relay ran"
        if not before.closed and before.boot != boot
        else None
    )


def _holder(directory: Path) -> str:
    try:
        return f" (pid {int((directory / LOCK_FILE).read_text())})"
    except (OSError, ValueError):
        return ""
