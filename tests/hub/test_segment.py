"""A segment: runs end to end in one piece of memory, with a record for each."""

import time

import pytest

from alphapulse_relay.hub.segment import Segment
from alphapulse_relay.hub.storage import anonymous
from alphapulse_relay.journal.format import PAGE, RECORD_SIZE, Header, Record, run_check
from tests.hub.fakes import message, messages

START, ORDINAL, EPOCH = 1000, 7, 99


def make(size: int = 4096, records: int = 8) -> Segment:
    header = Header(EPOCH, 1, START, ORDINAL, size)
    return Segment(header, anonymous(size), anonymous(PAGE + records * RECORD_SIZE))


def append(segment: Segment, origin: int, *run: bytes) -> int:
    """Append a run; return where it begins."""
    position, data = segment.end, b"".join(run)
    segment.data[segment.used : segment.used + len(data)] = data
    segment.append(len(data), origin, segment.messages_at_end(), len(run))
    return position


@pytest.fixture
def segment() -> Segment:
    """Three runs: of one message of 50 bytes, of three of 60, of two of 70."""
    segment = make()
    for origin, count, size in ((1, 1, 50), (2, 3, 60), (1, 2, 70)):
        append(segment, origin, *messages(count, size))
    return segment


def test_an_empty_one() -> None:
    segment = make()
    assert (segment.end, segment.messages_at_end()) == (START, ORDINAL)
    assert not segment.read(START)
    assert segment.record_at(START) == -1
    assert segment.walk(START) == (START, ORDINAL)
    assert abs(segment.newest_time() - time.time_ns()) < 10**9


def test_a_record_tells_of_its_run(segment: Segment) -> None:
    record = Record.unpack(segment.index, 1, EPOCH)
    assert record is not None
    assert record == segment.record(1)
    run = bytes(segment.read(START + 50)[:180])
    assert record[2:] == (2, ORDINAL + 1, 180, 3, run_check(run))
    assert (record.position, record.stop) == (START + 50, START + 230)
    assert segment.newest_time() == segment.record(2).time >= record.time
    assert Record.unpack(segment.index, 3, EPOCH) is None


class TestRoom:
    def test_ends_with_the_bytes(self) -> None:
        segment = make(size=200)
        assert segment.has_room(200)
        assert not segment.has_room(201)
        append(segment, 1, message(100))
        assert segment.has_room(100)
        assert not segment.has_room(101)

    def test_ends_with_the_records(self) -> None:
        segment = make(records=2)
        append(segment, 1, message(50))
        assert segment.has_room(1)
        append(segment, 1, message(50))
        assert not segment.has_room(1)

    def test_ends_when_it_is_sealed(self, segment: Segment) -> None:
        segment.seal()
        assert not segment.has_room(1)
        assert segment.is_low(4)

    @pytest.mark.parametrize(("used", "low"), [(300, False), (301, True)])
    def test_is_low_where_less_than_a_part_of_the_bytes_is_left(self, used: int, low: bool) -> None:
        segment = make(size=400)
        append(segment, 1, message(used))
        assert segment.is_low(4) is low

    @pytest.mark.parametrize(("records", "low"), [(6, False), (7, True)])
    def test_is_low_where_less_than_a_part_of_the_records_is_left(
        self, records: int, low: bool
    ) -> None:
        segment = make(records=8)
        for _ in range(records):
            append(segment, 1, message(40))
        assert segment.is_low(4) is low


class TestFinding:
    @pytest.mark.parametrize(
        ("offset", "record"), [(0, 0), (49, 0), (50, 1), (229, 1), (230, 2), (369, 2), (370, 2)]
    )
    def test_the_record_of_a_position(self, segment: Segment, offset: int, record: int) -> None:
        assert segment.record_at(START + offset) == record

    @pytest.mark.parametrize(
        ("offset", "found"),
        [
            (0, (0, 0)),
            (49, (0, 0)),
            (50, (50, 1)),
            (110, (110, 2)),
            (169, (110, 2)),
            (369, (300, 5)),
        ],
    )
    def test_the_message_around_a_position(
        self, segment: Segment, offset: int, found: tuple[int, int]
    ) -> None:
        assert segment.walk(START + offset) == (START + found[0], ORDINAL + found[1])

    @pytest.mark.parametrize(
        ("count", "record"), [(-1, -1), (0, 0), (1, 1), (3, 1), (4, 2), (5, 2), (6, 2), (100, 2)]
    )
    def test_the_record_of_a_message(self, segment: Segment, count: int, record: int) -> None:
        assert segment.record_of(ORDINAL + count) == record

    def test_the_record_since_a_time(self, segment: Segment) -> None:
        times = [segment.record(number).time for number in range(3)]
        assert segment.record_since(0) == 0
        assert segment.record_since(times[1]) <= 1
        assert segment.record_since(times[2] + 1) == 3

    def test_where_records_begin(self, segment: Segment) -> None:
        starts = [segment.record_start(number) - START for number in range(4)]
        assert starts == [0, 50, 230, 370]


class TestHoles:
    @pytest.fixture
    def damaged(self, segment: Segment) -> Segment:
        """The second message of the second run, and the third run."""
        segment.holes = [(START + 110, START + 170), (START + 230, START + 370)]
        return segment

    @pytest.mark.parametrize(
        ("offset", "stop"),
        [(109, None), (110, 170), (169, 170), (170, None), (230, 370), (370, None)],
    )
    def test_end_where_they_do(self, damaged: Segment, offset: int, stop: int | None) -> None:
        assert damaged.hole_at(START + offset) == (None if stop is None else START + stop)

    @pytest.mark.parametrize(("offset", "length"), [(0, 110), (100, 10), (170, 60), (370, 0)])
    def test_are_not_read(self, damaged: Segment, offset: int, length: int) -> None:
        assert len(damaged.read(START + offset)) == length

    def test_what_is_behind_one_is_found_without_looking_into_it(self, damaged: Segment) -> None:
        damaged.data[110:170] = bytes(60)
        assert damaged.walk(START + 170)[0] == START + 170
        assert damaged.walk(START + 180)[0] == START + 170


class TestStretch:
    def test_of_others(self, segment: Segment) -> None:
        assert segment.stretch(START, frozenset({1}), 4096) == (START + 50, START + 230)
        assert segment.stretch(START, frozenset({2}), 4096) == (START, START + 50)
        assert segment.stretch(START, frozenset({3}), 4096) == (START, START + 370)

    def test_of_nobody_is_empty_at_the_end(self, segment: Segment) -> None:
        assert segment.stretch(START, frozenset({1, 2}), 4096) == (START + 370, START + 370)

    def test_is_no_longer_than_a_run_more_than_wanted(self, segment: Segment) -> None:
        assert segment.stretch(START, frozenset({3}), 50) == (START, START + 50)
        assert segment.stretch(START, frozenset({3}), 51) == (START, START + 230)
