"""Where in the log a subscription begins."""

import random
from unittest import mock

import pytest

from alphapulse_relay.hub.history import (
    NEWEST_BYTES,
    AtLast,
    AtPosition,
    LastMatching,
    newest,
    position_at,
)
from alphapulse_relay.hub.log import Log
from alphapulse_relay.protocol_v2.selection import Selector
from tests.hub.fakes import memory_log, message

TWENTY = Selector(sources=frozenset({20}))


def publish(log: Log, *run: bytes) -> None:
    data = b"".join(run)
    log.space(len(data))[:] = data
    log.append(len(data), 1, len(run))


def search(log: Log, number: int, selector: Selector = TWENTY) -> int:
    found = LastMatching(log, selector, number)
    while not found.step():
        assert found.wants() is None
    return found.position


def position_of_last(log: Log, number: int) -> int:
    found = AtLast(log, number)
    assert found.wants() is None
    assert found.step()
    return found.position


class TestTime:
    def test_is_that_of_arrival(self) -> None:
        log = memory_log(8 * 1024)
        for when in range(100, 2000, 100):
            with mock.patch("time.time_ns", return_value=when):
                publish(log, message(400))
        assert len(log.segments) == 8
        assert position_at(log, 0) == log.tail
        assert position_at(log, 1800) == log.head - 2 * 400
        assert position_at(log, 1801) == log.head - 400
        assert position_at(log, 1901) == log.head

    def test_of_an_empty_log(self) -> None:
        assert position_at(memory_log(), 0) == 0


class TestLast:
    @pytest.mark.parametrize("seed", range(10))
    def test_any(self, seed: int) -> None:
        chance, log = random.Random(seed), memory_log(8 * 1024)
        at: list[tuple[int, int]] = []
        for _ in range(chance.choice([0, 1, 30, 100])):
            run = [
                message(chance.randint(40, 200), source=chance.choice([20, 21]))
                for _ in range(chance.randint(1, 4))
            ]
            start = log.head
            publish(log, *run)
            for each in run:
                at.append((start, each[6]))
                start += len(each)
        kept = [(position, source) for position, source in at if position >= log.tail]
        matching = [position for position, source in kept if source == 20]
        for number in range(1, 40):
            every = kept[-number][0] if number <= len(kept) else log.tail
            assert position_of_last(log, number) == every
            some = matching[-number] if number <= len(matching) else log.tail
            assert search(log, number) == some
        assert position_of_last(log, 0) == log.head

    def test_passes_over_damage(self) -> None:
        log = memory_log()
        publish(log, message(100), message(100))
        publish(log, message(100), message(100))
        publish(log, message(100))
        log.segments[0].holes = [(200, 300)]
        assert search(log, 1) == 400
        assert search(log, 2) == 100
        assert search(log, 9) == 0

    def test_of_all_with_damage_between(self) -> None:
        log = memory_log()
        publish(log, *[message(100)] * 5)
        log.segments[0].holes = [(100, 200)]
        assert position_of_last(log, 1) == 400
        assert position_of_last(log, 3) == 200
        assert position_of_last(log, 4) == 0
        assert position_of_last(log, 5) == 0

    def test_yields_after_each_record(self) -> None:
        log = memory_log()
        for _ in range(10):
            publish(log, message(source=21))
        found = LastMatching(log, TWENTY, 1)
        assert [found.step() for _ in range(11)] == [False] * 10 + [True]


class TestPosition:
    def test_is_the_next_boundary(self) -> None:
        log = memory_log()
        publish(log, message(100), message(100))
        publish(log, message(60))
        for position in range(log.head + 1):
            found = AtPosition(log, position)
            assert found.wants() is None
            assert found.step()
            assert found.position == min(end for end in (0, 100, 200, 260) if end >= position)

    @pytest.mark.parametrize("position", [0, 1, 150, 259, 260])
    def test_what_it_looks_into_is_fetched_first(self, position: int) -> None:
        log = memory_log()
        publish(log, message(100), message(100))
        publish(log, message(60))
        with mock.patch.object(log, "at_hand", return_value=False):
            wanted = AtPosition(log, position).wants()
        within = {1: (0, 200), 150: (0, 200), 259: (200, 260)}
        assert wanted == within.get(position)

    def test_a_damaged_size_leads_no_further_than_its_append(self) -> None:
        log = memory_log()
        publish(log, message(100), message(100))
        publish(log, message(60))
        log.segments[0].data[27] = 0x10  # the first message claims 268 million bytes
        assert log.boundary(50) == 200
        assert log.messages_before(50) == 0

    def test_stays_where_positions_are_missing(self) -> None:
        log = memory_log()
        publish(log, message(100), message(100))
        log.segments[0].holes = [(0, 100)]
        found = AtPosition(log, 50)
        assert found.wants() is None
        assert found.step()
        assert found.position == 50


def test_the_last_ones_are_fetched_before_they_are_counted() -> None:
    log = memory_log()
    publish(log, message(100), message(100))
    with mock.patch.object(log, "at_hand", return_value=False):
        assert AtLast(log, 2).wants() is None, "the append begins there"
        assert AtLast(log, 1).wants() == (0, 200)
        assert AtLast(log, 9).wants() is None


class TestNewest:
    def test_matches_the_searches(self) -> None:
        log = memory_log()
        for number in range(50):
            publish(log, message(100, number, 20 + number % 2))
        for number in (1, 2, 7, 25):
            assert newest(log, None, number, 0) == log.head - 100 * number
            assert newest(log, TWENTY, number, 0) == log.head - 200 * number
        assert newest(log, TWENTY, 26, 0) == newest(log, None, 51, 0) == 0
        assert newest(log, Selector(sources=frozenset({99})), 1, 0) == log.head

    def test_never_before_the_floor(self) -> None:
        log = memory_log()
        publish(log, *[message(100, number) for number in range(50)])
        assert newest(log, None, 10, log.head - 300) == log.head - 300
        assert newest(log, TWENTY, 10, log.head) == log.head

    def test_does_not_look_through_all_of_a_long_past(self) -> None:
        log = memory_log(4 * NEWEST_BYTES)
        publish(log, message(100, source=21))
        rest = message(1000)
        while log.head < 2 * NEWEST_BYTES:
            publish(log, *[rest] * 50)
        assert newest(log, Selector(sources=frozenset({21})), 1, 0) == log.head
        found = newest(log, None, 1_000_000, 0)
        assert log.head - NEWEST_BYTES <= found < log.head - NEWEST_BYTES + 1000
