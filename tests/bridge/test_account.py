"""How long something waits."""

from alphapulse_relay.bridge.account import Way


def test_nothing_waits() -> None:
    assert Way().waited(1000.0) == 0


def test_since_a_time() -> None:
    assert Way(waiting_since=990.0).waited(1000.0) == 10


def test_a_clock_that_was_set_back() -> None:
    assert Way(waiting_since=1010.0).waited(1000.0) == 0
