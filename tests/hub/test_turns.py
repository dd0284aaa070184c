"""Turns: in the order in which they were asked for, and no longer at once than others can wait."""

from typing import Any

import pytest

from alphapulse_relay.hub import turns as module
from alphapulse_relay.hub.peer import State
from alphapulse_relay.hub.turns import TURN_SECONDS, Turns

OTHERS = "others"


class Waiting:
    """As much of a peer as is asked for."""

    def __init__(self, state: State = State.LIVE) -> None:
        self.state = state


class Scene:
    """Turns on a clock of its own, and what was served."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.turns = Turns(clock, self.serve)
        self.served: list[Any] = []
        self.again: set[Any] = set()
        """Who wants one more turn."""

    def serve(self, peer: Any) -> None:
        self.served.append(peer)
        if peer in self.again:
            self.again.remove(peer)
            self.turns.add(peer)

    def let_others(self) -> None:
        """Have something else be done in the next turn of the reactor."""
        self.clock.callLater(0, self.served.append, OTHERS)

    def wait(self, count: int, state: State = State.LIVE) -> list[Any]:
        """Have so many peers wait."""
        peers: list[Any] = [Waiting(state) for _ in range(count)]
        for peer in peers:
            self.turns.add(peer)
        return peers


@pytest.fixture
def scene(clock: Any, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """One where serving takes no time, however busy the machine is."""
    monkeypatch.setattr(module, "perf_counter", lambda: 0.0)
    return Scene(clock)


def test_each_has_one_in_the_next_turn_of_the_reactor(scene: Scene) -> None:
    peers = scene.wait(3)
    assert scene.served == []
    scene.clock.advance(0)
    assert scene.served == peers
    assert not scene.clock.getDelayedCalls()


def test_who_asks_twice_has_one(scene: Scene) -> None:
    (peer,) = scene.wait(1)
    scene.turns.add(peer)
    scene.clock.advance(0)
    assert scene.served == [peer]


def test_who_wants_more_has_it_behind_the_others(scene: Scene) -> None:
    first, second = scene.wait(2)
    scene.let_others()
    scene.again = {first}
    scene.clock.advance(0)
    assert scene.served == [first, second, OTHERS, first]
    assert first not in scene.turns


@pytest.mark.parametrize("state", [State.BEHIND, State.MUTED])
def test_who_takes_no_more_by_then_has_none(scene: Scene, state: State) -> None:
    (peer,) = scene.wait(1, state)
    scene.clock.advance(0)
    assert scene.served == []
    assert peer not in scene.turns


def test_no_more_than_there_is_time_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(10))
    monkeypatch.setattr(module, "perf_counter", lambda: next(seconds) * TURN_SECONDS / 2)
    peers = scene.wait(3)
    scene.let_others()
    scene.clock.advance(0)
    assert scene.served == [*peers[:2], OTHERS, peers[2]]


def test_who_leaves_has_none(scene: Scene) -> None:
    first, second = scene.wait(2)
    scene.turns.remove(first)
    scene.clock.advance(0)
    assert scene.served == [second]


def test_nothing_is_planned_when_all_have_left(scene: Scene) -> None:
    for peer in scene.wait(2):
        scene.turns.remove(peer)
    assert not scene.clock.getDelayedCalls()


def test_who_does_not_wait_can_leave(scene: Scene) -> None:
    scene.turns.remove(Waiting())  # type: ignore[arg-type]
    assert not scene.clock.getDelayedCalls()
