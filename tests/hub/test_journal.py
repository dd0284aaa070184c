"""The journal: a log in files, over restarts, kills, full disks and damage."""

import errno
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alphapulse_relay.hub import journal as module
from alphapulse_relay.hub.journal import (
    AGE_SECONDS,
    JUMP,
    RETRY_SECONDS,
    JournalError,
    JournalInUse,
)
from alphapulse_relay.hub.storage import SEGMENTS
from alphapulse_relay.hub.sync import ALWAYS
from alphapulse_relay.journal.format import (
    EPOCH_FILE,
    LOCK_FILE,
    MAGIC,
    PAGE,
    Epoch,
    data_path,
    index_path,
)
from alphapulse_relay.protocol_v2.control import GapReason
from tests.hub.fakes import Events
from tests.hub.journals import MESSAGE, PER_SEGMENT, SIZE, SLOT, Kept

Make = Callable[..., Kept]
FULL = {"make": errno.ENOSPC, "clear": errno.EIO}


@pytest.fixture
def make(tmp_path: Path, clock: Any) -> Iterator[Make]:
    """Opens the journal of one directory; the last one is left in order."""
    opened: list[Kept] = []

    def make(**options: Any) -> Kept:
        opened.append(Kept(tmp_path / "journal", clock, **options))
        clock.advance(0)
        return opened[-1]

    yield make
    if opened and not opened[-1].maker._closed:
        opened[-1].close()
        clock.advance(0)
        assert not clock.getDelayedCalls()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the machine tells which of its starts this is."""
    path = tmp_path / "boot_id"
    path.write_text("first\n")
    monkeypatch.setattr(module, "BOOT_ID", path)
    return path


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


class TestSegments:
    def test_are_read_over_their_ends(self, make: Make) -> None:
        kept = make()
        kept.fill(3)
        assert len(kept.log.segments) >= 3
        found, position = b"", 0
        while piece := kept.log.read(position):
            found += piece
            position += len(piece)
        assert found == b"".join(kept.written.values())

    def test_are_used_again_the_oldest_first_within_the_size(self, make: Make) -> None:
        kept = make()
        tails = []
        for _ in range(20):
            kept.fill(1)
            tails.append(kept.log.tail)
            assert kept.disk_bytes() <= SIZE
            assert kept.journal.disk_bytes == kept.disk_bytes()
            kept.check()
        assert tails == sorted(tails)
        assert kept.log.tail > 0
        assert len(kept.log.segments) >= SEGMENTS - 2
        assert kept.disk.count("make") == SEGMENTS
        assert kept.log.gap_at(0) == (kept.log.tail, GapReason.RETENTION)

    def test_are_given_up_when_they_are_too_old(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = make(age=3600)
        kept.fill(3)
        tail = kept.log.tail
        kept.clock.advance(AGE_SECONDS)
        assert kept.log.tail == tail
        now = time.time_ns()
        monkeypatch.setattr(module.time, "time_ns", lambda: now + 3601 * 10**9)
        kept.clock.advance(AGE_SECONDS)
        assert [segment.end for segment in kept.log.segments] == [kept.log.head]
        assert kept.log.gap_at(0) == (kept.log.tail, GapReason.RETENTION)
        kept.check()

    def test_are_given_up_at_a_roll_when_they_are_too_old(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = make(age=3600)
        kept.fill(2)
        now = time.time_ns()
        monkeypatch.setattr(module.time, "time_ns", lambda: now + 3601 * 10**9)
        kept.fill(1)
        assert len(kept.log.segments) <= 2

    def test_that_is_nearly_full_holds_publishers_until_the_next_is_made(self, make: Make) -> None:
        kept = make()
        kept.maker.busy = True
        kept.fill(1)
        assert not kept.log.short  # the next one was ready before
        kept.append(PER_SEGMENT)
        assert not kept.journal.ready
        assert kept.log.short
        kept.events.clear()
        kept.settle()
        assert kept.events == ["on_room"]
        assert not kept.log.short

    def test_many_small_appends_hold_publishers_before_the_index_is_full(self, make: Make) -> None:
        kept = make()
        kept.maker.busy = True
        kept.append(kept.newest.capacity, 64)
        kept.append(1, 64)
        kept.append(kept.newest.capacity * 4 // 5, 64)
        assert kept.newest.used < kept.newest.size // 2
        assert kept.log.short

    def test_are_waited_for_where_they_must(self, make: Make) -> None:
        kept = make()
        kept.maker.busy = True
        kept.fill(4)
        assert kept.in_files
        assert len(kept.log.segments) >= 4
        kept.check()


class TestOpening:
    def test_goes_on_where_it_was(self, make: Make) -> None:
        first = make()
        first.append(PER_SEGMENT + 5)
        first.close()
        second = make()
        assert (second.log.head, second.log.messages) == (first.log.head, first.log.messages)
        assert second.log.epoch == first.log.epoch
        second.check(first.written)
        second.append(3)
        assert second.newest.start < first.log.head  # in the same segment
        second.check(first.written | second.written)

    def test_many_times_with_all_that_is_in_it(self, make: Make) -> None:
        written, head = {}, 0
        for number in range(12):
            kept = make()
            assert kept.log.head == head
            kept.append(7)
            written |= kept.written
            kept.check(written)
            assert kept.disk_bytes() <= SIZE
            head = kept.log.head
            if number % 2:
                kept.kill()
            else:
                kept.close()
        assert kept.journal.damage == 0

    def test_no_two_runs_have_the_same_origins(self, make: Make, tmp_path: Path) -> None:
        origins = set()
        for number in range(6):
            kept = make()
            kept.append()
            origins |= {kept.log.anonymous(connection) for connection in range(3)}
            kept.close()
            if number == 3:
                (tmp_path / "journal" / EPOCH_FILE).unlink()
        assert len(origins) == 6 * 3

    def test_a_lost_epoch_is_told_by_the_segments(
        self, make: Make, tmp_path: Path, logged: Events
    ) -> None:
        first = make()
        first.append()
        first.close()
        (tmp_path / "journal" / EPOCH_FILE).unlink()
        second = make()
        assert second.log.epoch == first.log.epoch
        assert second.log.head == first.log.head + JUMP
        assert second.journal.damage == 1
        assert logged.lines("epoch.json")

    def test_without_segments_it_is_another_journal(self, make: Make, tmp_path: Path) -> None:
        first = make(failing=FULL)
        first.append()
        first.kill()
        assert not list((tmp_path / "journal").glob("0*"))
        assert make().log.epoch != first.log.epoch

    @pytest.mark.parametrize("size", [SIZE // 2, SIZE // 4, SIZE * 2, SIZE * 5 // 4])
    def test_with_another_size(self, make: Make, size: int) -> None:
        first = make()
        first.fill(9)
        first.close()
        second = make(size=size)
        assert second.log.head == first.log.head
        assert second.disk_bytes() <= max(size, 2 * SLOT)
        second.check(first.written)
        for _ in range(40):
            second.append(6)
            assert second.in_files
            second.check(first.written | second.written)
            assert second.disk_bytes() <= max(size, 2 * SLOT)
        assert second.disk_bytes() <= size
        assert second.journal.failure is None

    def test_with_a_size_less_than_its_last_segment(self, make: Make) -> None:
        first = make(size=16 * SIZE)
        first.append(10)
        first.close()
        second = make(size=SIZE)
        for _ in range(20):
            second.fill(10)
            second.check(first.written | second.written)
        assert second.journal.failure is None
        assert second.disk_bytes() <= SIZE

    def test_a_segment_without_headers_is_never_overwritten(
        self, make: Make, tmp_path: Path
    ) -> None:
        first = make()
        first.fill(3)
        slot, size = first.log.segments[1].slot.number, first.log.segments[1].size
        first.close()
        data, index = (path(tmp_path / "journal", slot) for path in (data_path, index_path))
        for path, offset in ((data, size), (index, 0)):
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(b"gone" * 16)
        before = data.read_bytes(), index.read_bytes()
        second = make()
        assert second.journal.damage == 1
        lost = [at for at in first.written if second.log.gap_at(at) is not None]
        assert len(lost) == PER_SEGMENT
        assert second.log.gap_at(lost[0]) == (lost[-1] + MESSAGE, GapReason.DAMAGE)
        second.fill(20)
        assert (data.read_bytes(), index.read_bytes()) == before

    def test_positions_of_a_segment_without_headers_are_not_given_again(
        self, make: Make, tmp_path: Path
    ) -> None:
        first = make()
        first.append(2 * PER_SEGMENT + 2)
        newest = first.newest
        first.close()
        data, index = (
            path(tmp_path / "journal", newest.slot.number) for path in (data_path, index_path)
        )
        for path, offset in ((data, newest.size), (index, 0)):
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(b"gone" * 16)
        second = make()
        assert second.log.head == newest.start + JUMP
        assert second.log.gap_at(newest.start) == (second.log.head, GapReason.DAMAGE)
        second.append()
        second.close()
        assert make().log.head == newest.start + JUMP + MESSAGE

    def test_a_slot_that_was_being_made_is_no_damage(self, make: Make, tmp_path: Path) -> None:
        first = make()
        first.append()
        first.kill()
        (tmp_path / "journal" / "0005.v2.new").write_bytes(bytes(PAGE))
        second = make()
        second.fill(10)
        assert second.journal.damage == 0
        assert not list((tmp_path / "journal").glob("*.new"))

    def test_what_was_given_up_is_made_ready_in_the_background(self, make: Make) -> None:
        first = make()
        first.fill(9)
        first.close()
        second = make()
        second.maker.busy = True
        made = len(second.maker.tasks)
        assert made, "nothing is made ready"
        assert second.journal.ready


class TestErrors:
    def test_a_second_one(self, make: Make, tmp_path: Path, clock: Any) -> None:
        make()
        with pytest.raises(JournalInUse, match=r"journal is in use .*\(pid \d+\)$") as error:
            Kept(tmp_path / "journal", clock)
        assert "\n" not in str(error.value)

    def test_a_file_in_place_of_the_directory(self, tmp_path: Path, clock: Any) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "file", tmp_path / "file" / "journal"):
            with pytest.raises(JournalError, match=r"file(/journal: Not| is not) a directory$"):
                Kept(path, clock)

    def test_a_directory_of_somebody_else(self, tmp_path: Path, clock: Any) -> None:
        (tmp_path / "report.txt").write_text("mine")
        with pytest.raises(JournalError, match=r" is not empty and holds no journal$"):
            Kept(tmp_path, clock)
        assert [path.name for path in tmp_path.iterdir()] == ["report.txt"]

    def test_another_format(self, make: Make, tmp_path: Path, clock: Any) -> None:
        make().close()
        path = tmp_path / "journal" / EPOCH_FILE
        path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
        with pytest.raises(JournalError, match=r"format 7, this program knows 1$"):
            Kept(tmp_path / "journal", clock)

    def test_another_epoch(self, make: Make, tmp_path: Path, clock: Any) -> None:
        kept = make()
        kept.append()
        kept.close()
        Epoch(12345, 1, "boot", closed=True).write(tmp_path / "journal")
        with pytest.raises(JournalError, match=r"are of epoch \d+, the journal is 12345$"):
            Kept(tmp_path / "journal", clock)

    def test_an_epoch_that_is_none(self, tmp_path: Path, clock: Any) -> None:
        (tmp_path / EPOCH_FILE).write_text("[]")
        with pytest.raises(JournalError, match="cannot be read") as error:
            Kept(tmp_path, clock)
        assert "\n" not in str(error.value)

    def test_the_lock_tells_who_has_it(self, make: Make, tmp_path: Path) -> None:
        make()
        assert (tmp_path / "journal" / LOCK_FILE).read_text().strip().isdecimal()


class TestFullDisk:
    def test_goes_on_in_memory_with_no_position_left_out(self, make: Make, logged: Events) -> None:
        kept = make()
        kept.fill(1)
        kept.disk.failing = dict(FULL)
        kept.fill(3)
        assert not kept.in_files
        assert kept.journal.failure == "no file for the next segment: No space left on device"
        assert "on_failure" in kept.events
        assert logged.level_of("the log goes on in memory") == "error"
        assert kept.kept() == list(kept.written)
        kept.check()

    def test_memory_is_bounded_and_files_are_kept(self, make: Make) -> None:
        kept = make()
        kept.fill(1)
        kept.disk.failing = dict(FULL)
        kept.fill(3 * SEGMENTS)
        in_memory = [each for each in kept.log.segments if not hasattr(each, "slot")]
        assert len(in_memory) <= SEGMENTS
        kept.check()
        lost = next(at for at in kept.written if kept.log.gap_at(at))
        assert kept.log.gap_at(lost) == (in_memory[0].start, GapReason.RETENTION)
        assert kept.log.gap_at(0) is None

    def test_is_tried_again_and_files_come_back_at_once(self, make: Make, logged: Events) -> None:
        kept = make(failing=dict(FULL))
        kept.append(3)
        assert not kept.in_files
        tries = kept.disk.count("make")
        for more in (1, 2, 3):
            kept.clock.advance(RETRY_SECONDS)
            assert kept.disk.count("make") == tries + more
        kept.disk.failing = {}
        kept.clock.advance(RETRY_SECONDS)
        kept.clock.advance(0)
        assert kept.journal.failure is None
        assert logged.lines("takes files again")
        kept.append()
        assert kept.in_files
        assert kept.kept() == list(kept.written)
        kept.check()
        kept.clock.advance(10 * RETRY_SECONDS)
        assert kept.disk.count("make") == tries + 5  # that one, and the one behind it

    def test_publishers_are_not_held_for_memory(self, make: Make) -> None:
        kept = make(failing=dict(FULL))
        kept.append(PER_SEGMENT)
        assert not kept.log.short

    def test_what_lay_in_memory_is_a_gap_after_a_restart(self, make: Make) -> None:
        first = make()
        first.fill(1)
        first.disk.failing = dict(FULL)
        first.fill(3)
        first.disk.failing = {}
        first.clock.advance(RETRY_SECONDS)
        first.clock.advance(0)
        first.append()
        assert first.in_files
        lost_from, lost_to = first.log.segments[2].start, first.newest.start
        first.kill()
        second = make()
        assert second.log.head == first.log.head
        assert second.log.gap_at(lost_from) == (lost_to, GapReason.DAMAGE)
        second.check(first.written)

    @pytest.mark.parametrize("end", [Kept.close, Kept.kill])
    @pytest.mark.parametrize("back", [False, True])
    def test_positions_given_in_memory_are_never_given_again(
        self, make: Make, end: Callable[[Kept], None], back: bool
    ) -> None:
        first = make()
        first.fill(1)
        first.disk.failing = dict(FULL)
        first.fill(3)
        last = max(each.end for each in first.log.segments if hasattr(each, "slot"))
        if back:  # but nothing more is appended
            first.disk.failing = {}
            first.clock.advance(RETRY_SECONDS)
            first.clock.advance(0)
        end(first)
        second = make()
        assert second.log.head == last + JUMP
        assert second.log.gap_at(last) == (last + JUMP, GapReason.DAMAGE)
        # What was left out is nothing that anybody is behind by.
        for position in (last - MESSAGE, last, last + JUMP // 2):
            assert second.log.bytes_behind(position) == max(last - position, 0)
        second.append()
        assert second.in_files
        second.check(first.written | second.written)
        second.close()
        assert make().log.head == last + JUMP + MESSAGE

    def test_a_jump_into_a_full_disk_jumps_again(self, make: Make) -> None:
        heads = []
        for _ in range(3):
            kept = make(failing=dict(FULL) if heads else {})
            if not heads:
                kept.fill(1)
                kept.disk.failing = dict(FULL)
            kept.fill(2)
            heads.append(kept.log.head)
            kept.kill()
        assert heads[1] > heads[0]

    def test_a_failing_clear_keeps_its_slot(self, make: Make) -> None:
        kept = make()
        kept.fill(8)
        kept.disk.failing = dict(FULL)
        kept.fill(2)
        assert not kept.in_files
        kept.disk.failing = {}
        kept.clock.advance(RETRY_SECONDS)
        kept.clock.advance(0)
        kept.fill(10)
        assert kept.in_files
        assert kept.disk.count("make") == SEGMENTS
        assert kept.journal.disk_bytes == kept.disk_bytes() <= SIZE
        kept.check()


class TestEndings:
    def test_a_kill_leaves_no_gap(self, make: Make, machine: Path) -> None:
        first = make()
        first.fill(2)
        first.kill()
        second = make()
        assert second.log.head == first.log.head
        assert second.journal.damage == 0
        assert all(second.log.gap_at(at) is None for at in first.written)

    def test_a_kill_with_the_machine_does(self, make: Make, machine: Path, logged: Events) -> None:
        first = make()
        first.fill(2)
        first.kill()
        machine.write_text("second\n")
        second = make()
        assert second.log.head == first.log.head + JUMP
        assert second.log.gap_at(first.log.head) == (second.log.head, GapReason.DAMAGE)
        assert logged.lines("the machine stopped while the relay ran")
        second.append()
        assert second.log.messages == first.log.messages + 1

    def test_a_restart_of_the_machine_in_order_does_not(self, make: Make, machine: Path) -> None:
        first = make()
        first.append()
        first.close()
        machine.write_text("second\n")
        assert make().log.head == first.log.head

    def test_what_a_killed_relay_did_not_sync_is(self, make: Make) -> None:
        first = make(every=5.0)
        first.append()
        first.kill()
        second = make(every=5.0)
        wanted = ("sync", second.newest.slot.number)
        assert wanted not in second.disk.calls
        second.clock.advance(5)
        assert second.disk.calls.count(wanted) == 1


class TestFailingSync:
    def test_goes_on_in_memory_until_another_slot_is_synced(self, make: Make) -> None:
        kept = make(every=ALWAYS)
        kept.append()
        synced = kept.journal.sync.synced
        assert synced == kept.journal.acknowledged(kept.log.head) == kept.log.head
        kept.disk.failing = {"sync": errno.EIO}
        kept.append()
        kept.settle()
        assert "sync failed: Input/output error" in str(kept.journal.failure)
        assert not kept.journal.durable
        assert kept.journal.sync.failures == 1
        kept.append(3)
        assert not kept.in_files
        assert kept.journal.acknowledged(kept.log.head) == synced
        kept.clock.advance(RETRY_SECONDS)
        assert kept.journal.failure is not None
        kept.disk.failing = {}
        kept.clock.advance(RETRY_SECONDS)
        kept.clock.advance(0)
        assert kept.journal.failure is None
        assert kept.journal.durable
        assert kept.journal.acknowledged(kept.log.head) == synced
        kept.append()
        kept.settle()
        assert kept.in_files
        assert kept.journal.acknowledged(kept.log.head) == kept.log.head
        kept.check()

    def test_so_it_does_when_somebody_has_removed_the_files(
        self, make: Make, tmp_path: Path
    ) -> None:
        kept = make(every=ALWAYS)
        shutil.rmtree(tmp_path / "journal")
        kept.append()
        kept.settle()
        assert "somebody has removed its files" in str(kept.journal.failure)
        assert not kept.journal.durable

    def test_a_slow_disk_that_fails_holds_nobody(self, make: Make) -> None:
        kept = make(every=1.0)
        kept.maker.busy = True
        kept.fill(1)
        kept.append(2)
        kept.disk.failing = {"sync": errno.EIO}
        kept.clock.advance(1)
        kept.clock.advance(0)
        assert kept.journal.failure is not None
        assert kept.journal.ready
        kept.append(3)
        assert not kept.in_files
        kept.disk.failing = {}
        kept.maker.busy = False
        kept.settle()
        kept.clock.advance(RETRY_SECONDS)
        kept.settle()
        kept.append()
        assert kept.in_files
        assert kept.journal.disk_bytes == kept.disk_bytes()

    def test_two_failures_are_tried_again_once(self, make: Make) -> None:
        kept = make(every=ALWAYS)
        kept.syncer.busy = True
        kept.append(2)
        kept.disk.failing = {"sync": errno.EIO}
        kept.settle()
        kept.settle()
        assert kept.journal.sync.failures == 2
        kept.disk.failing = {}
        made = len(kept.maker.tasks)
        kept.clock.advance(RETRY_SECONDS)
        assert len(kept.maker.tasks) == made + 1


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
        assert second.journal.damage == 1
        assert logged.lines("the checksum does not fit")
        second.check(first.written)
        second.close()
        third = make()  # which knows by the index where to look
        assert third.log.gap_at(lost) == (lost + MESSAGE, GapReason.DAMAGE)
        third.settle()
        assert third.journal.damage == 1

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
        monkeypatch.setattr(module, "READ_AHEAD", MESSAGE + 100)
        segment = kept.log.segments[0]
        kept.disk.cold, kept.disk.failing = {segment.slot.number}, {"load": errno.EIO}
        for _ in range(2):
            kept.log.fetch(segment.start, segment.start + 100, lambda: None)
            kept.clock.advance(0)
        # Whole messages: who goes on behind it must find one.
        assert kept.log.gap_at(segment.start) == (segment.start + 2 * MESSAGE, GapReason.DAMAGE)
        assert kept.journal.damage == 1
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
        assert kept.journal.damage == 0
        kept.check()

    def test_that_is_given_up_is_not_verified(self, make: Make) -> None:
        _, kept = self.open_again(make, segments=6, busy=True)
        kept.fill(12)
        for _ in range(8):
            kept.settle()
        assert kept.journal.damage == 0
        assert len(kept.reader.tasks) == 1
        kept.check()


def test_nothing_follows_the_end(make: Make) -> None:
    first = make(every=ALWAYS)
    first.fill(3)
    first.close()
    kept = make(every=ALWAYS, busy=True)
    kept.append()
    kept.close()
    kept.reader.run()
    kept.clock.advance(0)
    assert not kept.clock.getDelayedCalls()


def test_spare_slots_have_no_header(make: Make, tmp_path: Path) -> None:
    kept = make()
    kept.fill(12)
    used = {each.slot.number for each in kept.log.segments}
    spare = {int(path.stem) for path in (tmp_path / "journal").glob("0*.v2")} - used
    assert spare
    for number in spare:
        assert MAGIC not in data_path(tmp_path / "journal", number).read_bytes()[-PAGE:]
