"""What waits goes on in order, as much as fits, and each part knows where it ends."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.bridge.envelope import Place
from alphapulse_relay.bridge.waiting import Gulp, Waiting
from alphapulse_relay.protocol_v2.framing import split
from tests.support import message

SIZES = (44, 60, 100)
ALL = [message(20, number, SIZES[number % 3]) for number in range(1, 61)]
"""Each has content of its own; they are 60, 100, 44 bytes long, and so on."""


def place(taken: int) -> Place:
    return Place(1, 500, taken, 9)


def waiting_with(*sizes: int) -> Waiting:
    """Return one in which the first messages of all wait, in runs of so many, at times 1, 2, 3."""
    waiting, taken = Waiting(), 0
    for time, size in enumerate(sizes, 1):
        data = b"".join(ALL[taken : taken + size])
        taken += size
        waiting.add(data, size, place(taken), time)
    return waiting


def check(gulp: Gulp, taken: int) -> int:
    """Check that these messages follow the first so many; return how many there are with it."""
    found = list(split(gulp.data))
    assert found == ALL[taken : taken + gulp.messages]
    assert gulp.end == place(taken + gulp.messages)
    return taken + gulp.messages


def test_nothing_waits() -> None:
    waiting = Waiting()
    assert not waiting
    assert (waiting.size, waiting.messages, waiting.since) == (0, 0, 0)
    assert waiting.take(1000) is None
    assert waiting.take_exactly(0) is None
    assert waiting.take_exactly(1) is None


def test_what_came_meanwhile_goes_at_once() -> None:
    waiting = waiting_with(2, 1, 3)
    assert (bool(waiting), waiting.messages, waiting.since) == (True, 6, 1)
    gulp = waiting.take(10_000)
    assert gulp == (b"".join(ALL[:6]), 6, place(6), 1)
    assert not waiting
    assert (waiting.size, waiting.messages, waiting.since) == (0, 0, 0)


class TestRoom:
    """The first six messages are 60, 100, 44, 60, 100 and 44 bytes long."""

    @pytest.mark.parametrize(
        ("room", "messages"),
        [(408, 6), (407, 3), (204, 3), (203, 2), (160, 2), (159, 1), (60, 1), (59, 1), (1, 1)],
    )
    def test_whole_runs_that_fit_or_what_fits_of_the_first(self, room: int, messages: int) -> None:
        waiting = waiting_with(3, 3)
        gulp = waiting.take(room)
        assert gulp is not None
        assert check(gulp, 0) == messages
        assert (waiting.messages, waiting.size) == (6 - messages, 408 - len(gulp.data))
        rest = waiting.take(10_000)
        assert rest is None if messages == 6 else rest is not None and check(rest, messages) == 6

    def test_one_that_is_too_large_goes_alone(self) -> None:
        waiting = waiting_with(1, 1, 1, 1)
        gulps = [waiting.take(99) for _ in range(4)]
        assert [gulp and gulp.messages for gulp in gulps] == [1, 1, 1, 1]
        waiting = waiting_with(4)
        gulps = [waiting.take(104) for _ in range(3)]
        assert [gulp and gulp.messages for gulp in gulps] == [1, 1, 2]
        assert waiting.take(104) is None


class TestPlaces:
    def test_a_run_that_is_cut(self) -> None:
        # 7 were taken behind that position before: the run's are the 8th to the 12th.
        waiting = Waiting()
        waiting.add(b"".join(ALL[:5]), 5, place(12), 30)
        first, rest = waiting.take(160), waiting.take(1000)
        assert first == (b"".join(ALL[:2]), 2, place(9), 30)
        assert rest == (b"".join(ALL[2:5]), 3, place(12), 30)

    def test_a_run_behind_another_position(self) -> None:
        waiting = Waiting()
        waiting.add(ALL[0], 1, Place(1, 500, 8, 9), 30)
        waiting.add(b"".join(ALL[1:4]), 3, Place(1, 700, 3, 9), 31)
        first = waiting.take_exactly(2)
        assert first == (b"".join(ALL[:2]), 2, Place(1, 700, 1, 9), 30)
        assert waiting.since == 31
        assert waiting.take(1000) == (b"".join(ALL[2:4]), 2, Place(1, 700, 3, 9), 31)


class TestExactly:
    @pytest.mark.parametrize("number", range(1, 7))
    def test_so_many(self, number: int) -> None:
        waiting = waiting_with(2, 3, 1)
        gulp = waiting.take_exactly(number)
        assert gulp is not None
        assert gulp.messages == number
        check(gulp, 0)
        assert waiting.messages == 6 - number
        assert waiting.since == (0 if number == 6 else 1 if number < 2 else 2 if number < 5 else 3)

    def test_not_before_there_are_so_many(self) -> None:
        waiting = waiting_with(2, 3)
        assert waiting.take_exactly(6) is None
        assert waiting.messages == 5
        waiting.add(b"".join(ALL[5:8]), 3, place(8), 3)
        gulp = waiting.take_exactly(6)
        assert gulp is not None
        assert check(gulp, 0) == 6
        rest = waiting.take(1000)
        assert rest is not None
        assert check(rest, 6) == 8


@given(st.integers(0, 1 << 32))
def test_however_it_is_taken(seed: int) -> None:
    chance = random.Random(seed)
    waiting, added, taken = Waiting(), 0, 0
    runs = [chance.randint(1, 6) for _ in range(chance.randint(1, 10))]
    while runs or waiting:
        if runs and chance.random() < 0.5:
            size = runs.pop()
            run = b"".join(ALL[added : added + size])
            added += size
            waiting.add(run, size, place(added), added)
        if chance.random() < 0.5:
            room = chance.choice((1, 44, 150, 300, 1000))
            gulp = waiting.take(room)
            assert gulp is None or len(gulp.data) <= room or gulp.messages == 1
        else:
            gulp = waiting.take_exactly(chance.randint(0, 9))
        if gulp is not None:
            taken = check(gulp, taken)
        assert waiting.messages == added - taken
        assert waiting.size == len(b"".join(ALL[taken:added]))
        assert bool(waiting) == (added > taken)
        assert (waiting.since > taken) == bool(waiting)
    assert added == taken
