"""The journal: a log in files, over restarts, kills, full disks and damage."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alphapulse_relay.hub import journal as module
from alphapulse_relay.hub.epoch import JUMP
from alphapulse_relay.hub.journal import (
    AGE_SECONDS,
    RETRY_SECONDS,
    JournalError,
    JournalInUse,
)
from alphapulse_relay.hub.storage import SEGMENTS
from alphapulse_relay.hub.sync import ALWAYS
from alphapulse_relay.journal.format import (
    EPOCH_FILE,
    LOCK_FILE,
    Epoch,
)
from alphapulse_relay.protocol_v2.control import GapReason
from tests.hub.fakes import Events
from tests.hub.journals import MESSAGE, PER_SEGMENT, SIZE, Kept

Make = Callable[..., Kept]
FULL = {"make": errno.ENOSPC, "clear": errno.EIO}


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

    def test_are_given_up_by_another_age(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = make(age=3600)
        kept.fill(3)
        kept.journal.keep_for(None)
        now = time.time_ns()
        monkeypatch.setattr(module.time, "time_ns", lambda: now + 3601 * 10**9)
        kept.clock.advance(AGE_SECONDS)
        assert len(kept.log.segments) > 1
        kept.journal.keep_for(3600)
        assert len(kept.log.segments) == 1

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
        assert kept.journal.pager.damage == 0


class TestErrors:
    def test_a_second_one(self, make: Make, tmp_path: Path, clock: Any) -> None:
        make()
        with pytest.raises(JournalInUse, match=r"journal is in use .*\(pid \d+\)$") as error:
            Kept(tmp_path / "journal", clock)
        assert "\n" not in str(error.value)

    def test_a_file_in_place_of_the_directory(self, tmp_path: Path, clock: Any) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path / "file", tmp_path / "file" / "journal"):
            with pytest.raises(JournalError, match=r"file(/journal: Not| is not) a directory"):
                Kept(path, clock)

    def test_a_directory_of_somebody_else(self, tmp_path: Path, clock: Any) -> None:
        (tmp_path / "report.txt").write_text("mine")
        with pytest.raises(JournalError, match=r" is not empty and holds no journal$"):
            Kept(tmp_path, clock)
        assert [path.name for path in tmp_path.iterdir()] == ["report.txt"]

    def test_a_directory_that_others_can_write_to(self, tmp_path: Path, clock: Any) -> None:
        """They could have links there to what the relay would write."""
        directory, victim = tmp_path / "journal", tmp_path / "victim"
        directory.mkdir()
        victim.write_text("important")
        (directory / LOCK_FILE).symlink_to(victim)
        directory.chmod(0o1777)
        with pytest.raises(JournalError, match=r"others can write .* choose another --journal$"):
            Kept(directory, clock)
        assert victim.read_text() == "important"
        assert [path.name for path in directory.iterdir()] == [LOCK_FILE]

    @pytest.mark.parametrize("name", [LOCK_FILE, "0000.v2", "0000.index"])
    def test_a_link_in_place_of_a_file(
        self, make: Make, tmp_path: Path, clock: Any, name: str
    ) -> None:
        make().close()
        (tmp_path / "journal" / name).rename(tmp_path / "elsewhere")
        (tmp_path / "journal" / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(JournalError, match=r"Too many levels of symbolic links$"):
            Kept(tmp_path / "journal", clock)

    @pytest.mark.parametrize("name", [LOCK_FILE, EPOCH_FILE, "0000.v2", "0000.index"])
    def test_a_pipe_in_place_of_a_file(
        self, make: Make, tmp_path: Path, clock: Any, name: str
    ) -> None:
        make().close()
        (tmp_path / "journal" / name).unlink()
        os.mkfifo(tmp_path / "journal" / name)
        with pytest.raises(JournalError, match=r"Not a regular file$"):
            Kept(tmp_path / "journal", clock)

    def test_it_is_made_with_its_parents_whatever_the_umask(
        self, tmp_path: Path, clock: Any
    ) -> None:
        before = os.umask(0)
        try:
            Kept(tmp_path / "a" / "journal", clock).close()
        finally:
            os.umask(before)
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755
        assert (tmp_path / "a" / "journal").stat().st_mode & 0o777 == 0o750

    def test_another_format(self, make: Make, tmp_path: Path, clock: Any) -> None:
        make().close()
        path = tmp_path / "journal" / EPOCH_FILE
        path.write_text(path.read_text().replace('"format": 2', '"format": 7'))
        with pytest.raises(JournalError, match=r"format 7, this program knows 2$"):
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


class TestSync:
    def test_what_a_killed_relay_did_not_sync_is_synced(self, make: Make) -> None:
        first = make(every=5.0)
        first.append()
        first.kill()
        second = make(every=5.0)
        wanted = ("sync", second.newest.slot.number)
        assert wanted not in second.disk.calls
        second.clock.advance(5)
        assert second.disk.calls.count(wanted) == 1

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
        assert kept.journal.pool.disk_bytes == kept.disk_bytes()

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
