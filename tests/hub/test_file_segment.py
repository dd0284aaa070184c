"""A segment in two files: what it holds is in them."""

from pathlib import Path

import pytest

from alphapulse_relay.hub.disk import Disk, Slot
from alphapulse_relay.hub.file_segment import FileSegment
from alphapulse_relay.journal.format import PAGE, RECORD_SIZE, Header

SIZE = 64 * 1024


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return Disk(tmp_path).make(0, SIZE + PAGE, 2 * PAGE)


@pytest.fixture
def segment(slot: Slot) -> FileSegment:
    return FileSegment(Header(1, 0, 0, 0, SIZE), slot)


def test_is_new(segment: FileSegment) -> None:
    assert (segment.verified, segment.readers) == (True, 0)
    assert segment.written() == (0, PAGE)


def test_what_is_put_there_is_in_the_file(segment: FileSegment, slot: Slot) -> None:
    segment.data[:4] = b"here"
    assert slot.data[:4] == b"here"


def test_goes_on_behind_what_was_there(slot: Slot) -> None:
    segment = FileSegment(Header(1, 0, 1000, 0, SIZE), slot, records=3, used=500)
    assert segment.end == 1500
    assert segment.written() == (500, PAGE + 3 * RECORD_SIZE)
