"""The pager: brings what lies in files back into memory, and compares it with its index.

Knows what is damaged, or cannot be read: that becomes a hole in its segment, and a line in the log.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from twisted.logger import Logger

from alphapulse_relay.hub.disk import Disk
from alphapulse_relay.hub.file_segment import FileSegment
from alphapulse_relay.hub.worker import Worker
from alphapulse_relay.journal.format import data_path
from alphapulse_relay.journal.recovery import Damage, verify_records

READ_AHEAD = 4 << 20
"""Bytes read at once for who stands in history that is not in memory."""


class Pager:
    """Reads in the thread of ``reader``."""

    _log = Logger()

    def __init__(self, disk: Disk, reader: Worker) -> None:
        self.damage = 0
        """Places found damaged since the start."""
        self._disk = disk
        self._reader = reader

    def fetch(self, segment: FileSegment, start: int, stop: int, done: Callable[[], None]) -> None:
        """Read positions from the disk, and some more behind them; then call ``done``."""
        begin, end = start - segment.start, segment.used
        if segment.verified:
            end = min(max(stop - segment.start, begin + READ_AHEAD), end)
        else:
            begin = 0
        segment.readers += 1

        def fetch() -> list[Damage]:
            if segment.verified:
                self._disk.load(segment.slot, begin, end)
                return []
            return self._verify(segment)

        def fetched(future: "Future[list[Damage]]") -> None:
            segment.readers -= 1
            self._fetched(segment, segment.start + begin, segment.start + end, future)
            done()

        self._reader.submit(fetch, fetched)

    def verify_next(self, segments: list[FileSegment]) -> None:
        """Verify all that was there at the start, the newest first: that is asked for first."""
        while segments and segments[-1].verified:
            segments.pop()
        if segments:
            segment = segments.pop()
            self.fetch(segment, segment.start, segment.end, partial(self.verify_next, segments))

    def _verify(self, segment: FileSegment) -> list[Damage]:
        """Read and verify a segment; what of it was not in memory does not stay there."""
        resident = self._disk.resident(segment.slot, 0, max(segment.used, 1))
        self._disk.load(segment.slot, 0, segment.used)
        damage = verify_records(
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
        self, segment: FileSegment, start: int, stop: int, future: "Future[list[Damage]]"
    ) -> None:
        """Take note of the damage found in positions, or that none of them can be read."""
        try:
            damage = future.result()
        except OSError as error:
            start = segment.record_start(max(segment.record_at(start), 0))
            stop = segment.record_start(segment.record_at(stop - 1) + 1)
            name = data_path(Path(), segment.slot.number).name
            damage = [Damage(name, start, stop, f"cannot be read: {error.strerror}")]
        segment.verified = True
        new = [each for each in damage if (each.start, each.stop) not in segment.holes]
        segment.holes = sorted([*segment.holes, *((each.start, each.stop) for each in new)])
        self.report(new)

    def report(self, damage: Iterable[Damage]) -> None:
        """Count what is damaged, and log it."""
        for each in damage:
            self.damage += 1
            self._log.error(
                "journal damaged: {file}, positions {start} to {stop}: {detail}",
                file=each.file,
                start=each.start,
                stop=each.stop,
                detail=each.detail,
            )
