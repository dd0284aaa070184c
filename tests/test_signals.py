"""What a process does at signals, in the reactor's own time."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from alphapulse_relay.signals import heed_end, heed_hangup

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class FakeReactor:
    """Does what it is asked to when it is told to turn."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def callFromThread(self, act: Any, *arguments: Any) -> None:
        self.asked.append((act, arguments))

    def turn(self) -> None:
        for act, arguments in self.asked:
            act(*arguments)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_ends_is_told_the_name_at_the_next_turn(number: signal.Signals) -> None:
    reactor, told = FakeReactor(), []
    heed_end(reactor, told.append)
    signal.raise_signal(number)
    assert not told
    reactor.turn()
    assert told == [number.name]


def test_a_hangup_ends_nothing() -> None:
    reactor, told = FakeReactor(), []
    heed_hangup(reactor, lambda: told.append("read again"))
    signal.raise_signal(signal.SIGHUP)
    assert not told
    reactor.turn()
    assert told == ["read again"]
