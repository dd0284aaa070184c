"""What lies in files comes back into memory, and is compared with its index before it is served."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alphapulse_relay.hub import journal as module
from alphapulse_relay.hub import pager
from alphapulse_relay.journal.format import (
    data_path,
)
from alphapulse_relay.protocol_v2.control import GapReason
from tests.hub.fakes import Events
from tests.hub.journals import MESSAGE, SIZE, Kept

Make = Callable[..., Kept]
FULL = {"make": errno.ENOSPC, "clear": errno.EIO}


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


class TestHistory:
    def open_again(self, make: Make, segments: int = 4, **options: Any) -> tuple[Kept, Kept]:
        first = make()
        first.fill(segments)
        first.close()
        return first, make(**options)

    def readable(self, kept: Kept, segment: Any) -> bool:
        return kept.log.at_hand(segment.start, segment.start + MESSAGE)

    def test_is_verified_in_the_background_the_newest_first(self, make: Make) -> None:
        _, kept = self.open_again(make, busy=True)
        old = list(kept.log.segments[:-1])
        assert self.readable(kept, kept.newest)
        while old:
            assert not any(self.readable(kept, each) for each in old)
            kept.reader.tasks[-1].run()
            kept.clock.advance(0)
            assert self.readable(kept, old.pop())

    def test_damage_becomes_a_hole(self, make: Make, tmp_path: Path, logged: Events) -> None:
        first = make()
        first.fill(3)
        first.close()
        segment = first.log.segments[1]
        flip(data_path(tmp_path / "journal", segment.slot.number), 2 * MESSAGE + 100)
        second = make()
        second.settle()
        lost = segment.start + 2 * MESSAGE
        assert second.log.gap_at(lost) == (lost + MESSAGE, GapReason.DAMAGE)
        assert [at for at in first.written if second.log.gap_at(at)] == [lost]
        assert second.journal.pager.damage == 1
        assert logged.lines("the checksum does not fit")
        second.check(first.written)
        second.close()
        third = make()  # which knows by the index where to look
        assert third.log.gap_at(lost) == (lost + MESSAGE, GapReason.DAMAGE)
        third.settle()
        assert third.journal.pager.damage == 1

    def test_that_is_not_in_memory_is_fetched(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, kept = self.open_again(make)
        monkeypatch.setattr(module, "HOT", 0)
        segment = kept.log.segments[0]
        assert self.readable(kept, segment)
        kept.disk.cold = {segment.slot.number}
        assert not self.readable(kept, segment)
        done: list[bool] = []
        kept.log.fetch(segment.start, segment.start + MESSAGE, lambda: done.append(True))
        kept.clock.advance(0)
        assert done
        assert self.readable(kept, segment)

    def test_that_cannot_be_read_is_damage(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, kept = self.open_again(make)
        monkeypatch.setattr(module, "HOT", 0)
        monkeypatch.setattr(pager, "READ_AHEAD", MESSAGE + 100)
        segment = kept.log.segments[0]
        kept.disk.cold, kept.disk.failing = {segment.slot.number}, {"load": errno.EIO}
        for _ in range(2):
            kept.log.fetch(segment.start, segment.start + 100, lambda: None)
            kept.clock.advance(0)
        # Whole messages: who goes on behind it must find one.
        assert kept.log.gap_at(segment.start) == (segment.start + 2 * MESSAGE, GapReason.DAMAGE)
        assert kept.journal.pager.damage == 1
        kept.check(first.written)

    def test_under_fetch_is_not_used_again(self, make: Make) -> None:
        _, kept = self.open_again(make, busy=True)
        segment = kept.log.segments[0]
        before = bytes(segment.data[: segment.used])
        kept.log.fetch(segment.start, segment.start + MESSAGE, lambda: None)
        kept.fill(12)
        assert kept.log.tail > segment.start
        assert bytes(segment.data[: len(before)]) == before
        assert kept.disk_bytes() <= SIZE
        kept.reader.run()
        kept.clock.advance(0)
        assert kept.journal.pager.damage == 0
        kept.check()

    def test_that_is_given_up_is_not_verified(self, make: Make) -> None:
        _, kept = self.open_again(make, segments=6, busy=True)
        kept.fill(12)
        for _ in range(8):
            kept.settle()
        assert kept.journal.pager.damage == 0
        assert len(kept.reader.tasks) == 1
        kept.check()
