"""A hub whose log is in files, and a disk that fails when it is told to."""

import errno
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from alphapulse_relay.hub.disk import Disk, Slot, Span
from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.journal import Journal, Workers
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.protocol_v2.control import ControlMessage, build_control
from alphapulse_relay.protocol_v2.framing import Rules
from tests.hub.fakes import WINDOW, Client, Hub

SIZE = 12 << 20
"""Bytes of the journal: about the least that the relay takes."""
Result = TypeVar("Result")


class Now:
    """A worker that does it at once, and says so in the reactor's next turn."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock

    def submit(
        self, work: Callable[[], Result], done: Callable[["Future[Result]"], None]
    ) -> "Future[Result]":
        future = Future[Result]()
        try:
            future.set_result(work())
        except OSError as error:
            future.set_exception(error)
        self._clock.callLater(0, done, future)
        return future

    def close(self) -> None:
        pass


class FailingDisk(Disk):
    """Says what a disk says that is ``full``, or ``broken``."""

    full = broken = False

    def make(self, number: int, data_size: int, index_size: int) -> Slot:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().make(number, data_size, index_size)

    def sync(self, slot: Slot, span: Span | None = None) -> None:
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(slot, span)


class JournaledHub(Hub):
    """A hub with a journal in ``directory``, synced after so many seconds."""

    def __init__(self, clock: Any, directory: Path, every: float | None = 1.0) -> None:
        super().__init__(clock)
        self.disk = FailingDisk(directory)
        workers = Workers(Now(clock), Now(clock), Now(clock))
        memory = MemoryStorage(WINDOW)
        self.journal = Journal(clock, self.disk, workers, memory, size=SIZE, every=every)
        rules = Rules(aside=True)
        self.factory = SignalRelayFactory(clock, rules, self.journal, hold=1.0, max_peers=100)
        self.factory.open()
        self.counters = self.factory.counters
        clock.advance(0)

    def fill_segment(self, publisher: Client) -> None:
        """Publish until the log needs another segment."""
        before = self.factory.log.segments[-1]
        while self.factory.log.segments[-1] is before:
            self.fill(publisher, 128 * 1024)
            self.clock.advance(0)

    def bytes_in_directory(self) -> int:
        """Return how much the segments' files take."""
        files = [*self.disk.directory.glob("*.v2"), *self.disk.directory.glob("*.index")]
        return sum(file.stat().st_size for file in files)

    def finish(self) -> None:
        self.clock.advance(0)
        self.journal.close()
        super().finish()


def say(client: Client, content: ControlMessage) -> None:
    """Have a client send a control message."""
    client.send(build_control(content, timestamp=0, source=20))
