"""What the tests of the journal share: workers and a disk that do as told, and a log in files."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorTime

from alphapulse_relay.hub.disk import Disk, Slot, Span
from alphapulse_relay.hub.file_segment import FileSegment
from alphapulse_relay.hub.journal import Journal, Workers
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.storage import SEGMENTS, MemoryStorage
from alphapulse_relay.hub.sync import NEVER
from tests.hub.fakes import message

SLOT = 256 * 1024
SIZE = 8 * SLOT
"""A small journal: a segment takes twelve messages of 16 KiB."""
MESSAGE = 16 * 1024
PER_SEGMENT = 12


class Task(Future[Any]):
    """Work that may wait; who needs its result at once waits for it."""

    def __init__(self, work: Callable[[], Any], done: Callable[[], None]) -> None:
        super().__init__()
        self._work = work
        self._done = done

    def run(self) -> None:
        if self.done():
            return
        try:
            self.set_result(self._work())
        except OSError as error:
            self.set_exception(error)
        self._done()

    def result(self, timeout: float | None = None) -> Any:
        if not self.cancelled():
            self.run()
        return super().result(timeout)


class FakeWorker:
    """Does what it is given at once, or when told if it is ``busy``; tells of it a turn later."""

    def __init__(self, clock: IReactorTime, *, busy: bool = False) -> None:
        self.busy = busy
        self.tasks: list[Task] = []
        self._clock = clock
        self._closed = False

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> Future[Any]:
        assert not self._closed
        task = Task(work, lambda: self._clock.callLater(0, self._tell, done, task) and None)
        self.tasks.append(task)
        if not self.busy:
            task.run()
        return task

    def run(self) -> None:
        """Do what has waited."""
        for task in self.tasks:
            task.run()

    def close(self) -> None:
        self._closed = True
        for task in self.tasks:
            task.cancel()

    def _tell(self, done: Callable[[Any], None], task: Task) -> None:
        if not self._closed:
            done(task)


class FakeDisk(Disk):
    """A directory whose operations fail as told: ``failing`` has an errno for each name."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.failing: dict[str, int] = {}
        self.calls: list[tuple[str, int]] = []
        self.spans: list[Span | None] = []
        """What was synced, call by call."""
        self.cold: set[int] = set()
        """Slots that are not in memory until they are loaded."""

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)

    def make(self, number: int, data_size: int, index_size: int) -> Slot:
        self._called("make", number)
        return super().make(number, data_size, index_size)

    def clear(self, slot: Slot) -> None:
        self._called("clear", slot.number)
        super().clear(slot)

    def sync(self, slot: Slot, span: Span | None = None) -> None:
        self._called("sync", slot.number)
        self.spans.append(span)
        super().sync(slot, span)

    def load(self, slot: Slot, start: int, stop: int) -> None:
        self._called("load", slot.number)
        self.cold.discard(slot.number)
        super().load(slot, start, stop)

    def resident(self, slot: Slot, start: int, stop: int) -> bool:
        return slot.number not in self.cold

    def _called(self, name: str, number: int) -> None:
        self.calls.append((name, number))
        if name in self.failing:
            raise OSError(self.failing[name], os.strerror(self.failing[name]))


class Kept:
    """A log in the files of a directory, and all that was appended to it, by position."""

    def __init__(
        self,
        directory: Path,
        clock: Any,
        *,
        size: int = SIZE,
        every: float | None = NEVER,
        age: float | None = None,
        busy: bool = False,
        failing: dict[str, int] | None = None,
    ) -> None:
        self.directory = directory
        self.clock = clock
        self.maker, self.syncer = FakeWorker(clock), FakeWorker(clock)
        self.reader = FakeWorker(clock, busy=busy)
        self.disk = FakeDisk(directory)
        self.disk.failing = failing or {}
        self.journal = Journal(
            clock,
            self.disk,
            Workers(self.maker, self.reader, self.syncer),
            MemoryStorage(SEGMENTS * SLOT),
            size=size,
            every=every,
            age=age,
        )
        self.forgotten: list[tuple[int, int]] = []
        self.log = Log(self.journal, lambda start, stop: self.forgotten.append((start, stop)))
        self.events: list[str] = []
        for name in ("on_room", "on_failure", "on_synced"):
            setattr(self.log, name, partial(self.events.append, name))
        self.written: dict[int, bytes] = {}
        self.log.open()

    @property
    def newest(self) -> Any:
        return self.log.segments[-1]

    @property
    def in_files(self) -> bool:
        return isinstance(self.newest, FileSegment)

    def append(self, count: int = 1, size: int = MESSAGE) -> None:
        """Append so many messages, a turn of the reactor for each."""
        for _ in range(count):
            data = message(size, len(self.written))
            self.log.space(size)[:] = data
            self.written[self.log.head] = data
            self.log.append(size, self.log.anonymous(1), 1)
            self.clock.advance(0)

    def fill(self, segments: int) -> None:
        """Append as many messages as fill so many segments."""
        self.append(segments * PER_SEGMENT)

    def check(self, written: dict[int, bytes] | None = None) -> None:
        """See that all that is kept, and not damaged, is what was written."""
        written = self.written if written is None else written
        for position, data in written.items():
            if self.log.gap_at(position) is None:
                assert bytes(self.log.read(position)[: len(data)]) == data

    def kept(self) -> list[int]:
        """Return the positions of the messages that can be read."""
        return [at for at in self.written if self.log.gap_at(at) is None]

    def settle(self) -> None:
        """Let all that has waited be done."""
        for worker in (self.maker, self.reader, self.syncer):
            worker.run()
        for _ in range(20):
            self.clock.advance(0)

    def disk_bytes(self) -> int:
        """Return what the segments' files take in the directory."""
        return sum(path.stat().st_size for path in self.directory.glob("0*"))

    def close(self) -> None:
        self.journal.close()

    def kill(self) -> None:
        """End as a process does that is killed: the files are as they are."""
        for worker in (self.maker, self.reader, self.syncer):
            worker.close()
        for call in self.clock.getDelayedCalls():
            call.cancel()
        assert self.journal._lock is not None
        os.close(self.journal._lock)
