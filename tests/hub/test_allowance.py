"""How much may be taken at a steady rate."""

import pytest

from alphapulse_relay.hub.allowance import BURST_SECONDS, Allowance

NOW = 1000.0


def test_a_second_s_worth_may_be_taken_at_once() -> None:
    allowance = Allowance(10)
    allowance.take(10, NOW)
    assert allowance.owed_seconds(NOW) == 0
    allowance.take(1, NOW)
    assert allowance.owed_seconds(NOW) == pytest.approx(0.1)


def test_what_is_owed_is_paid_back_with_time() -> None:
    allowance = Allowance(10)
    allowance.take(40, NOW)
    assert allowance.owed_seconds(NOW) == pytest.approx(3)
    assert allowance.owed_seconds(NOW + 2) == pytest.approx(1)
    assert allowance.owed_seconds(NOW + 3) == 0


def test_who_takes_as_fast_as_the_rate_never_owes() -> None:
    allowance = Allowance(10)
    for number in range(1000):
        allowance.take(1, NOW + number / 10)
        assert allowance.owed_seconds(NOW + number / 10) == 0


def test_no_more_than_the_burst_is_saved() -> None:
    allowance = Allowance(10)
    allowance.take(20, NOW)
    later = NOW + 1000
    allowance.take(11, later)
    assert allowance.owed_seconds(later) == pytest.approx(0.1)


def test_is_whole_once_all_is_saved_again() -> None:
    allowance = Allowance(10)
    assert allowance.is_whole(NOW)
    allowance.take(5, NOW)
    assert not allowance.is_whole(NOW)
    assert not allowance.is_whole(NOW + BURST_SECONDS / 2 - 0.01)
    assert allowance.is_whole(NOW + BURST_SECONDS / 2 + 0.01)


def test_what_is_given_back_is_as_if_it_had_not_been_taken() -> None:
    allowance = Allowance(10.0)
    allowance.take(12, NOW)
    allowance.give_back(2)
    assert allowance.owed_seconds(NOW) == 0
    allowance.take(3, NOW)
    assert allowance.owed_seconds(NOW) == pytest.approx(0.3)


def test_no_more_is_saved_for_what_is_given_back() -> None:
    allowance = Allowance(10.0)
    allowance.take(5, NOW)
    later = NOW + 60
    allowance.give_back(5)
    allowance.take(11, later)
    assert allowance.owed_seconds(later) == pytest.approx(0.1)


@pytest.mark.parametrize("rate", [5, 20])
def test_at_another_rate_as_much_is_owed(rate: int) -> None:
    allowance = Allowance(10)
    allowance.take(40, NOW)
    allowance.change_rate(rate, NOW)
    assert allowance.owed_seconds(NOW) == pytest.approx(30 / rate)
    later = NOW + 1000
    allowance.take(rate + 1, later)
    assert allowance.owed_seconds(later) == pytest.approx(1 / rate)


def test_at_another_rate_what_was_saved_is_the_same_part_of_the_burst() -> None:
    allowance = Allowance(10)
    allowance.take(4, NOW)
    allowance.change_rate(100, NOW)
    allowance.take(60, NOW)
    assert allowance.owed_seconds(NOW) == 0
    allowance.take(1, NOW)
    assert allowance.owed_seconds(NOW) == pytest.approx(0.01)


def test_more_may_be_saved() -> None:
    allowance = Allowance(10, burst=3)
    allowance.take(30, NOW)
    assert allowance.owed_seconds(NOW) == 0
    allowance.take(1, NOW)
    assert allowance.owed_seconds(NOW) == pytest.approx(0.1)
