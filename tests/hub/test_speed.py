"""Speed: who is slow is told by what each took."""

from typing import Any

from alphapulse_relay.hub.cursor import Cursor
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.peer import Identity
from alphapulse_relay.hub.speed import MEASURES_PER_WINDOW, Speed
from tests.hub.fakes import memory_log

WINDOW = 8192
STEP = WINDOW // MEASURES_PER_WINDOW


class FakePeer:
    def __init__(self, log: Log, number: int) -> None:
        self.identity = Identity(number, "fake")
        self.cursor = Cursor(log, frozenset({number}))


class Scene:
    """Consumers that take each its part of what is appended."""

    def __init__(self, *parts: float) -> None:
        self.log = memory_log(WINDOW)
        self.speed = Speed(self.log)
        self.parts = parts
        self.peers: list[Any] = [FakePeer(self.log, number) for number in range(len(parts))]
        self.speed.measure(self.peers, now=False)

    def step(self, length: int = STEP, *, now: bool = False) -> frozenset[int]:
        self.log.space(length)
        self.log.append(length, 99, 1)
        for peer, part in zip(self.peers, self.parts, strict=True):
            peer.cursor.advance(int(length * part))
        self.speed.measure(self.peers, now=now)
        return self.speed.slow


def test_who_takes_less_than_half() -> None:
    assert Scene(1, 0.5, 0.49, 0).step() == {2, 3}


def test_beside_the_fastest_of_them() -> None:
    assert Scene(0.6, 0.4, 0.2).step() == {2}


def test_nobody_while_none_of_them_keeps_up() -> None:
    scene = Scene(0.1, 0)
    assert scene.step() == set()
    assert scene.step() == set()
    scene.parts = (1, 0)
    scene.step()
    assert scene.step() == {1}


def test_who_takes_nothing_beside_others_that_do_not() -> None:
    assert Scene(0, 0).step() == set()


def test_is_measured_anew() -> None:
    scene = Scene(1, 0)
    assert scene.step() == {1}
    scene.parts = (1, 1)
    assert scene.step() == set()


def test_is_not_measured_too_often() -> None:
    scene = Scene(1, 0)
    assert scene.step(STEP - 100) == set()
    assert scene.step(100) == {1}


def test_is_measured_when_asked_for() -> None:
    assert Scene(1, 0).step(100, now=True) == {1}


def test_who_has_just_come_is_not() -> None:
    scene = Scene(1, 0)
    scene.step(STEP // 2)
    scene.peers.append(FakePeer(scene.log, 2))
    scene.parts = (1, 0, 1)
    scene.speed.measure(scene.peers, now=False)
    assert scene.step(STEP // 2) == {1}
    scene.parts = (1, 0, 0)
    assert scene.step() == {1, 2}
