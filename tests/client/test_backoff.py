"""How long is waited between attempts."""

import pytest

from alphapulse_relay.client.backoff import FIRST_DELAY, LONGEST_DELAY, Backoff


def test_doubles_up_to_a_bound():
    backoff = Backoff(lambda: 1.0)
    delays = [backoff.delay() for _ in range(10)]
    assert delays == pytest.approx([min(FIRST_DELAY * 2**n, LONGEST_DELAY) for n in range(10)])
    assert delays[-1] == LONGEST_DELAY


def test_begins_again():
    backoff = Backoff(lambda: 1.0)
    backoff.delay()
    backoff.reset()
    assert backoff.delay() == FIRST_DELAY


def test_jitter_reaches_from_nothing_to_the_bound():
    draws = iter([0.0, 0.25, 1.0])
    backoff = Backoff(draws.__next__)
    assert [backoff.delay() for _ in range(3)] == [0, FIRST_DELAY * 2 / 4, FIRST_DELAY * 4]


def test_clients_differ():
    assert len({Backoff().delay() for _ in range(20)}) > 1
