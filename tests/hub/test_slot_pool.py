"""The slots of a journal: within its size, used again, and never one that is not known."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from alphapulse_relay.hub.journal import (
    RETRY_SECONDS,
)
from alphapulse_relay.hub.storage import SEGMENTS
from alphapulse_relay.journal.format import (
    MAGIC,
    PAGE,
    data_path,
    index_path,
)
from alphapulse_relay.protocol_v2.control import GapReason
from tests.hub.journals import MESSAGE, PER_SEGMENT, SIZE, SLOT, Kept

Make = Callable[..., Kept]
FULL = {"make": errno.ENOSPC, "clear": errno.EIO}


def test_are_used_again_the_oldest_first_within_the_size(make: Make) -> None:
    kept = make()
    tails = []
    for _ in range(20):
        kept.fill(1)
        tails.append(kept.log.tail)
        assert kept.disk_bytes() <= SIZE
        assert kept.journal.pool.disk_bytes == kept.disk_bytes()
        kept.check()
    assert tails == sorted(tails)
    assert kept.log.tail > 0
    assert len(kept.log.segments) >= SEGMENTS - 2
    assert kept.disk.count("make") == SEGMENTS
    assert kept.log.gap_at(0) == (kept.log.tail, GapReason.RETENTION)


@pytest.mark.parametrize("size", [SIZE // 2, SIZE // 4, SIZE * 2, SIZE * 5 // 4])
def test_with_another_size(make: Make, size: int) -> None:
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


def test_with_a_size_less_than_its_last_segment(make: Make) -> None:
    first = make(size=16 * SIZE)
    first.append(10)
    first.close()
    second = make(size=SIZE)
    for _ in range(20):
        second.fill(10)
        second.check(first.written | second.written)
    assert second.journal.failure is None
    assert second.disk_bytes() <= SIZE


def test_a_segment_without_headers_is_never_overwritten(make: Make, tmp_path: Path) -> None:
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
    assert second.journal.pager.damage == 1
    lost = [at for at in first.written if second.log.gap_at(at) is not None]
    assert len(lost) == PER_SEGMENT
    assert second.log.gap_at(lost[0]) == (lost[-1] + MESSAGE, GapReason.DAMAGE)
    second.fill(20)
    assert (data.read_bytes(), index.read_bytes()) == before


def test_a_slot_that_was_being_made_is_no_damage(make: Make, tmp_path: Path) -> None:
    first = make()
    first.append()
    first.kill()
    (tmp_path / "journal" / "0005.v2.new").write_bytes(bytes(PAGE))
    second = make()
    second.fill(10)
    assert second.journal.pager.damage == 0
    assert not list((tmp_path / "journal").glob("*.new"))


@pytest.mark.parametrize("left", [data_path, index_path])
def test_a_slot_of_which_one_file_had_its_name_is_no_damage(
    make: Make, tmp_path: Path, left: Callable[[Path, int], Path]
) -> None:
    """As a kill leaves it between the two renames when it is made, or when it is removed."""
    first = make()
    first.append()
    first.kill()
    used = {each.slot.number for each in first.log.segments}
    spare = next(number for number in range(SEGMENTS) if number not in used)
    (path,) = {data_path, index_path} - {left}
    path(tmp_path / "journal", spare).unlink()
    second = make()
    assert second.log.head == first.log.head, "positions are left out for nothing"
    second.fill(10)
    assert second.journal.pager.damage == 0
    assert second.journal.pool.disk_bytes == second.disk_bytes() <= SIZE
    second.check(first.written | second.written)


@pytest.mark.parametrize("path", [data_path, index_path])
def test_a_segment_that_lost_a_file_and_its_header_is_never_taken_for_a_spare_slot(
    make: Make, tmp_path: Path, path: Callable[[Path, int], Path]
) -> None:
    first = make()
    first.append(3)
    first.close()
    (segment,) = first.log.segments
    data, index = (
        each(tmp_path / "journal", segment.slot.number) for each in (data_path, index_path)
    )
    for file, offset in ((data, segment.size), (index, 0)):
        with file.open("r+b") as opened:
            opened.seek(offset)
            opened.write(bytes(PAGE if path is index_path else 64))
    before = data.read_bytes()
    path(tmp_path / "journal", segment.slot.number).unlink()
    for _ in range(2):
        again = make()
        assert again.journal.pager.damage == 1
        again.fill(9)
        again.close()
        if path is data_path:
            return  # there is nothing in it by now
        assert data.read_bytes() == before


def test_what_was_given_up_is_made_ready_in_the_background(make: Make) -> None:
    first = make()
    first.fill(9)
    first.close()
    second = make()
    second.maker.busy = True
    made = len(second.maker.tasks)
    assert made, "nothing is made ready"
    assert second.journal.ready


def test_a_failing_clear_keeps_its_slot(make: Make) -> None:
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
    assert kept.journal.pool.disk_bytes == kept.disk_bytes() <= SIZE
    kept.check()


def test_spare_slots_have_no_header(make: Make, tmp_path: Path) -> None:
    kept = make()
    kept.fill(12)
    used = {each.slot.number for each in kept.log.segments}
    spare = {int(path.stem) for path in (tmp_path / "journal").glob("0*.v2")} - used
    assert spare
    for number in spare:
        assert MAGIC not in data_path(tmp_path / "journal", number).read_bytes()[-PAGE:]
