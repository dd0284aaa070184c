"""The bound on log lines."""

from typing import Any

import pytest

from alphapulse_relay.hub.throttle import LINES_PER_SECOND, Throttle


@pytest.fixture
def throttle(clock: Any) -> Throttle:
    return Throttle(clock)


def test_admits_ten_a_second(throttle: Throttle, clock: Any) -> None:
    for _ in range(3):
        outcomes = [throttle.admit() for _ in range(100)]
        admitted = [outcome for outcome in outcomes if outcome is not None]
        assert len(admitted) == LINES_PER_SECOND == 10
        clock.advance(1)


def test_tells_once_how_many_were_left_out(throttle: Throttle, clock: Any) -> None:
    assert [throttle.admit() for _ in range(13)] == [""] * 10 + [None] * 3
    clock.advance(1)
    assert [throttle.admit() for _ in range(2)] == [" (3 such lines left out before)", ""]


def test_what_was_left_out_adds_up_over_idle_time(throttle: Throttle, clock: Any) -> None:
    for _ in range(12):
        throttle.admit()
    clock.advance(3600)
    assert throttle.admit() == " (2 such lines left out before)"


def test_in_any_length_of_time_the_bound_holds(throttle: Throttle, clock: Any) -> None:
    admitted = 0
    for _ in range(1000):
        admitted += throttle.admit() is not None
        clock.advance(0.01)
    assert admitted <= 11 * LINES_PER_SECOND
