"""Which journal it is over restarts, and that no position is given twice."""

import errno
from collections.abc import Callable
from pathlib import Path

from alphapulse_relay.hub.epoch import JUMP
from alphapulse_relay.journal.format import (
    EPOCH_FILE,
    data_path,
    index_path,
)
from alphapulse_relay.protocol_v2.control import GapReason
from tests.hub.fakes import Events
from tests.hub.journals import MESSAGE, PER_SEGMENT, Kept

Make = Callable[..., Kept]
FULL = {"make": errno.ENOSPC, "clear": errno.EIO}


def test_no_two_runs_have_the_same_origins(make: Make, tmp_path: Path) -> None:
    origins = set()
    for number in range(6):
        kept = make()
        kept.append()
        origins |= {kept.log.anonymous(connection) for connection in range(3)}
        kept.close()
        if number == 3:
            (tmp_path / "journal" / EPOCH_FILE).unlink()
    assert len(origins) == 6 * 3


def test_a_lost_epoch_is_told_by_the_segments(make: Make, tmp_path: Path, logged: Events) -> None:
    first = make()
    first.append()
    first.close()
    (tmp_path / "journal" / EPOCH_FILE).unlink()
    second = make()
    assert second.log.epoch == first.log.epoch
    assert second.log.head == first.log.head + JUMP
    assert second.journal.pager.damage == 1
    assert logged.lines("epoch.json")


def test_without_segments_it_is_another_journal(make: Make, tmp_path: Path) -> None:
    first = make(failing=FULL)
    first.append()
    first.kill()
    assert not list((tmp_path / "journal").glob("0*"))
    assert make().log.epoch != first.log.epoch


def test_positions_of_a_segment_without_headers_are_not_given_again(
    make: Make, tmp_path: Path
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


def test_a_kill_leaves_no_gap(make: Make, machine: Path) -> None:
    first = make()
    first.fill(2)
    first.kill()
    second = make()
    assert second.log.head == first.log.head
    assert second.journal.pager.damage == 0
    assert all(second.log.gap_at(at) is None for at in first.written)


def test_a_kill_with_the_machine_does(make: Make, machine: Path, logged: Events) -> None:
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


def test_a_restart_of_the_machine_in_order_does_not(make: Make, machine: Path) -> None:
    first = make()
    first.append()
    first.close()
    machine.write_text("second\n")
    assert make().log.head == first.log.head
