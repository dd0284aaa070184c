"""Sync: when, how often, and up to where what was appended is on the disk."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alphapulse_relay.hub.disk import Slot, Span
from alphapulse_relay.hub.sync import ALWAYS, NEVER, Sync
from alphapulse_relay.journal.format import PAGE
from tests.hub.journals import FakeDisk, FakeWorker


class Synced:
    """A sync of two slots, and what it has told."""

    def __init__(self, directory: Path, clock: Any, every: float | None) -> None:
        self.clock = clock
        self.worker = FakeWorker(clock)
        self.disk = FakeDisk(directory)
        self.failed: list[int | None] = []
        self.told: list[int] = []
        self.sync = Sync(
            clock, self.worker, self.disk, every, lambda error: self.failed.append(error.errno)
        )
        self.sync.on_synced = lambda: self.told.append(self.sync.synced)
        self.slots: list[Slot] = [self.disk.make(n, 2 * PAGE, 2 * PAGE) for n in range(2)]
        self.written = 0
        self.sync.begin_at(0, {})
        self.write_to(0)

    def write_to(self, number: int) -> None:
        """Go on in a slot that is written anew: as many bytes of either file as of the log."""
        begin = self.written
        self.sync.write_to(self.slots[number], lambda: (self.written - begin, self.written - begin))

    @property
    def synced_slots(self) -> list[int]:
        return [number for name, number in self.disk.calls if name == "sync"]

    def append(self, head: int) -> None:
        self.written = head
        self.sync.appended(head)

    def turn(self) -> None:
        self.worker.run()
        self.clock.advance(0)

    def fail(self) -> None:
        self.disk.failing = {"sync": errno.EIO}

    def close(self) -> None:
        self.worker.close()
        self.sync.close()


@pytest.fixture
def make(tmp_path: Path, clock: Any) -> Iterator[Any]:
    yield lambda every: Synced(tmp_path, clock, every)
    clock.advance(0)
    assert not clock.getDelayedCalls()


class TestNever:
    def test_nothing_is_synced_before_the_end(self, make: Any) -> None:
        it = make(NEVER)
        it.append(100)
        it.turn()
        assert it.synced_slots == []
        assert it.sync.unsynced == 100
        it.close()
        assert it.synced_slots == [0]
        assert not it.sync.immediate


class TestAlways:
    def test_each_append_is_before_it_counts(self, make: Any) -> None:
        it = make(ALWAYS)
        it.worker.busy = True
        it.append(100)
        assert (it.sync.synced, it.sync.unsynced) == (0, 100)
        it.turn()
        assert (it.sync.synced, it.sync.unsynced) == (100, 0)
        assert it.told == [100]

    def test_what_comes_meanwhile_goes_together(self, make: Any) -> None:
        it = make(ALWAYS)
        it.worker.busy = True
        for head in (100, 200, 300):
            it.append(head)
        assert len(it.worker.tasks) == 1
        it.turn()
        assert it.told == [100]
        it.turn()
        assert it.told == [100, 300]
        assert it.synced_slots == [0, 0]

    def test_over_the_end_of_a_segment(self, make: Any) -> None:
        it = make(ALWAYS)
        it.worker.busy = True
        it.append(100)
        it.append(200)
        it.write_to(1)
        it.append(300)
        it.turn()
        it.turn()
        assert it.synced_slots == [0, 0, 1]
        assert it.told == [100, 300]

    def test_nothing_is_claimed_for_memory(self, make: Any) -> None:
        it = make(ALWAYS)
        it.worker.busy = True
        it.append(100)
        it.append(200)
        it.sync.write_to_memory()
        it.append(300)
        it.turn()
        it.turn()
        assert it.sync.synced == 200
        assert it.sync.unsynced == 100
        it.write_to(1)
        it.append(400)
        it.turn()
        assert it.sync.synced == 400

    def test_what_was_given_up_is_not_synced(self, make: Any) -> None:
        it = make(ALWAYS)
        it.worker.busy = True
        it.append(100)
        it.append(200)
        it.sync.forget(it.slots[0])
        it.turn()
        it.turn()
        assert it.synced_slots == [0]


class TestSeconds:
    def test_at_most_once_in_so_many(self, make: Any) -> None:
        it = make(2.0)
        for step in range(1, 41):
            it.append(step * 10)
            it.clock.advance(0.25)
        assert len(it.synced_slots) in (4, 5)
        it.clock.advance(2)
        it.turn()
        assert it.sync.synced == 400

    def test_none_while_nothing_is_appended(self, make: Any) -> None:
        it = make(2.0)
        it.append(100)
        it.clock.advance(2)
        it.turn()
        it.clock.advance(100)
        assert it.synced_slots == [0]
        assert not it.clock.getDelayedCalls()

    def test_what_came_during_a_slow_one_is_not_forgotten(self, make: Any) -> None:
        it = make(1.0)
        it.worker.busy = True
        it.append(100)
        it.clock.advance(1)
        it.append(200)
        it.clock.advance(1)  # the first is still under way
        it.turn()
        assert it.sync.synced == 100
        it.clock.advance(1)
        it.turn()
        assert it.sync.synced == 200

    def test_how_long_it_took_is_kept(self, make: Any) -> None:
        it = make(1.0)
        it.append(100)
        it.clock.advance(1)
        it.turn()
        assert sum(it.sync.seconds.counts) == 1


class TestFailure:
    def test_is_counted_and_told_and_moves_nothing(self, make: Any) -> None:
        it = make(ALWAYS)
        it.fail()
        it.append(100)
        it.turn()
        assert it.failed == [errno.EIO]
        assert it.sync.failures == 1
        assert it.sync.synced == 0
        assert it.told == []

    def test_is_not_tried_again(self, make: Any) -> None:
        it = make(ALWAYS)
        it.fail()
        it.append(100)
        it.turn()
        it.disk.failing = {}
        it.turn()
        it.close()
        assert it.synced_slots == [0]
        assert it.sync.synced == 0

    def test_at_the_end_is_told_too(self, make: Any) -> None:
        it = make(10.0)
        it.append(100)
        it.fail()
        it.close()
        assert it.failed == [errno.EIO]
        assert it.sync.failures == 1
        assert it.sync.synced == 0


class TestClose:
    def test_syncs_what_is_left(self, make: Any) -> None:
        it = make(10.0)
        it.append(100)
        it.close()
        assert it.synced_slots == [0]
        assert it.sync.synced == 100

    def test_also_what_the_worker_had_not_begun(self, make: Any) -> None:
        it = make(ALWAYS)
        it.worker.busy = True
        it.append(100)
        it.close()
        assert it.synced_slots == [0]
        assert it.sync.synced == 100

    def test_hears_of_a_failure_on_the_way(self, make: Any) -> None:
        it = make(ALWAYS)
        it.fail()
        it.append(100)
        it.close()
        it.clock.advance(0)
        assert it.failed == [errno.EIO]
        assert it.synced_slots == [0]

    def test_begins_nothing_more(self, make: Any) -> None:
        it = make(1.0)
        it.close()
        it.append(100)
        assert not it.clock.getDelayedCalls()
        assert it.synced_slots == []


def test_begins_with_what_is_not_surely_on_the_disk(make: Any) -> None:
    it = make(1.0)
    it.sync.begin_at(500, {slot: lambda: (PAGE, PAGE) for slot in it.slots})
    assert it.sync.synced == 500
    it.clock.advance(1)
    it.turn()
    assert it.synced_slots == [0, 1]
    assert it.disk.spans == [Span((0, 0), (PAGE, PAGE))] * 2
    assert it.sync.synced == 500


def test_no_more_than_was_written_since(make: Any) -> None:
    it = make(ALWAYS)
    for head in (100, 300):
        it.append(head)
        it.turn()
    assert it.disk.spans == [Span((0, 0), (100, 100)), Span((100, 100), (300, 300))]


def test_a_slot_that_is_used_again_meanwhile_is_synced_from_its_start(make: Any) -> None:
    it = make(ALWAYS)
    it.worker.busy = True
    it.append(PAGE)  # its sync is under way
    it.sync.forget(it.slots[0])
    it.write_to(0)
    it.append(PAGE + 100)
    it.turn()
    it.turn()
    assert it.disk.spans == [Span((0, 0), (PAGE, PAGE)), Span((0, 0), (100, 100))]
    assert it.sync.synced == PAGE + 100
