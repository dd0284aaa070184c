"""Pace: publishers go as fast as the consumers that are not slow, and never wait for ever."""

from typing import Any

import pytest

from alphapulse_relay.hub.cursor import Cursor
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.pace import CHECK_INTERVAL, CHECKS_PER_WINDOW, Pace
from alphapulse_relay.hub.peer import Identity, State
from alphapulse_relay.hub.storage import SEGMENTS
from alphapulse_relay.protocol_v2.control import BRIDGE_NAME
from tests.hub.fakes import memory_log, message

SEGMENT = 1024
WINDOW = SEGMENTS * SEGMENT
LOOK = WINDOW // CHECKS_PER_WINDOW
PATIENCE = 1.0


class FakePeer:
    """What the pace sees of a peer."""

    def __init__(self, number: int, log: Log, took_at: float) -> None:
        self.identity = Identity(number, "fake")
        self.cursor = Cursor(log, frozenset({number}))
        self.state = State.LIVE
        self.took_at = took_at
        self.known: bool | None = True
        self.name = ""
        self.calls: list[str] = []

    @property
    def delivery(self) -> "FakePeer":
        return self

    def has_taken(self, since: float) -> bool:
        return self.took_at > since

    def hold(self) -> None:
        self.calls.append("hold")

    def release(self) -> None:
        self.calls.append("release")

    @property
    def reads(self) -> bool | None:
        return False if self.state is State.MUTED else self.known

    @property
    def held(self) -> bool:
        return self.calls[-1:] == ["hold"]


class Scene:
    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.log = memory_log(WINDOW, self.forget)
        self.peers: list[Any] = []
        self.pace = Pace(clock, self.log, PATIENCE, lambda: self.peers)
        self.publisher = self.peer(took_at=-1)
        self.consumer = self.peer()

    def peer(self, took_at: float | None = None) -> Any:
        at = self.clock.seconds() if took_at is None else took_at
        self.peers.append(FakePeer(len(self.peers) + 1, self.log, at))
        return self.peers[-1]

    def publish(self, length: int, publisher: Any = None, size: int = LOOK) -> None:
        """Publish so many bytes in messages of ``size``; stops as soon as it is held."""
        publisher = publisher or self.publisher
        for _ in range(length // size):
            if publisher.held:
                return
            self.log.space(size)[:] = message(size)
            self.log.append(size, publisher.identity.number, 1)
            publisher.cursor.published(size, 1)
            self.pace.appended(publisher)

    def take(self, peer: Any, up_to: int) -> None:
        """Have a peer take all but ``up_to`` bytes."""
        peer.cursor.alight(self.log.head - up_to)
        peer.took_at = self.clock.seconds()
        self.pace.progressed(peer)

    def forget(self, start: int, tail: int) -> None:
        """Do to a peer that is too far behind what the hub does to a muted one."""
        for peer in self.peers:
            if not peer.cursor.away and peer.cursor.position < tail:
                peer.cursor.leave()


@pytest.fixture
def scene(clock: Any) -> Scene:
    return Scene(clock)


def test_goes_on_up_to_half_the_window(scene: Scene) -> None:
    scene.publish(WINDOW // 2)
    assert scene.publisher.calls == []
    assert scene.pace.held == 0


def test_holds_above_half_the_window(scene: Scene) -> None:
    scene.publish(WINDOW // 2 + LOOK)
    assert scene.publisher.calls == ["hold"]
    assert scene.pace.held == 1
    assert scene.log.lag(scene.consumer.cursor.position) == WINDOW // 2 + LOOK


def test_small_messages_hold_at_latest_one_look_later(scene: Scene) -> None:
    scene.publish(WINDOW, size=LOOK // 4)
    lag = scene.log.lag(scene.consumer.cursor.position)
    assert scene.publisher.held
    assert WINDOW // 2 < lag <= WINDOW // 2 + LOOK


def test_releases_within_a_quarter(scene: Scene) -> None:
    scene.publish(WINDOW)
    scene.take(scene.consumer, WINDOW // 4 + 1)
    assert scene.publisher.calls == ["hold"]
    scene.take(scene.consumer, WINDOW // 4)
    assert scene.publisher.calls == ["hold", "release"]
    assert scene.pace.held == 0


def test_can_be_held_again(scene: Scene) -> None:
    for _ in range(3):
        scene.publish(WINDOW)
        scene.take(scene.consumer, 0)
    assert scene.publisher.calls == ["hold", "release"] * 3


def test_a_slow_one_does_not_hold_where_a_fast_one_is(scene: Scene) -> None:
    fast = scene.peer()
    for _ in range(6):
        scene.publish(WINDOW // 8)
        scene.take(fast, 0)
    assert scene.log.lag(scene.consumer.cursor.position) > WINDOW // 2
    assert scene.publisher.calls == []


def test_where_there_is_nobody_nothing_holds(scene: Scene) -> None:
    scene.peers.remove(scene.consumer)
    scene.publish(2 * WINDOW)
    assert scene.publisher.calls == []


def test_a_publisher_is_not_its_own_consumer(scene: Scene) -> None:
    scene.publisher.took_at = scene.clock.seconds()
    assert scene.publisher.cursor.at_head
    scene.publish(WINDOW)
    assert scene.publisher.held


def test_another_publisher_that_reads_is_a_consumer(scene: Scene) -> None:
    other = scene.peer()
    for _ in range(6):
        scene.publish(WINDOW // 8)
        scene.take(other, 0)
    assert not scene.publisher.held


def test_who_took_nothing_for_the_patience_does_not_count(scene: Scene) -> None:
    scene.consumer.took_at = scene.clock.seconds() - PATIENCE
    scene.publish(2 * WINDOW)
    assert scene.publisher.calls == []


def test_who_is_not_known_to_read_does_not_count(scene: Scene) -> None:
    scene.consumer.state = State.MUTED
    scene.publish(WINDOW // 2 + LOOK)
    assert scene.publisher.calls == []


@pytest.mark.parametrize("state", [State.LIVE, State.BEHIND])
def test_one_that_is_coming_back_does_not_count(scene: Scene, state: State) -> None:
    """It has taken bytes just now, of a message that the log may no longer hold."""
    scene.publish(LOOK)
    scene.consumer.cursor.leave()
    scene.consumer.state = state
    for _ in range(2 * CHECKS_PER_WINDOW):
        scene.consumer.took_at = scene.clock.seconds()
        scene.publish(LOOK)
    assert scene.log.tail > 0
    assert scene.publisher.calls == []


def test_one_that_is_coming_back_while_a_publisher_is_held(scene: Scene) -> None:
    other = scene.peer()
    scene.publish(WINDOW)
    other.cursor.leave()
    other.cursor.alight(0)
    scene.take(scene.consumer, 0)
    assert scene.publisher.calls == ["hold", "release"]


def test_goes_on_without_those_that_stopped(scene: Scene) -> None:
    scene.publish(WINDOW)
    scene.clock.pump([CHECK_INTERVAL] * 19)
    assert scene.publisher.calls == ["hold"]
    scene.clock.pump([CHECK_INTERVAL] * 2)
    assert scene.publisher.calls == ["hold", "release"]
    assert scene.pace.held_seconds == pytest.approx(PATIENCE, abs=2 * CHECK_INTERVAL)


def test_who_takes_a_little_keeps_the_hold(scene: Scene) -> None:
    scene.publish(WINDOW)
    for step in range(1, 40):
        scene.clock.pump([CHECK_INTERVAL] * 2)
        scene.take(scene.consumer, WINDOW // 2 - step)
    assert scene.publisher.calls == ["hold"]
    scene.take(scene.consumer, 0)
    assert scene.publisher.calls == ["hold", "release"]


class TestSeveral:
    def test_each_is_held_on_its_own_account(self, scene: Scene) -> None:
        other = scene.peer(took_at=-1)
        scene.publish(WINDOW)
        assert (scene.publisher.held, other.held) == (True, False)
        scene.publish(LOOK, other)
        assert (scene.publisher.held, other.held) == (True, True)
        assert scene.pace.held == 2
        scene.take(scene.consumer, 0)
        assert (scene.publisher.calls, other.calls) == (["hold", "release"],) * 2

    def test_forty_are_held_with_the_next_that_each_appends(self, scene: Scene) -> None:
        others = [scene.peer(took_at=-1) for _ in range(39)]
        scene.publish(WINDOW)
        before = scene.log.head
        for other in others:
            scene.publish(32, other, size=32)
        assert all(other.calls == ["hold"] for other in others)
        assert scene.log.head == before + 39 * 32
        scene.take(scene.consumer, 0)
        assert all(other.calls == ["hold", "release"] for other in others)

    def test_those_that_went_on_are_looked_at_less_often(self, scene: Scene) -> None:
        """Looking at all peers at each append would cost more than the append."""
        looks = []
        scene.pace._peers = lambda: looks.append(1) or scene.peers  # type: ignore[func-returns-value]
        scene.publish(WINDOW // 4, size=32)
        assert WINDOW // 4 // 32 == 64
        assert len(looks) <= CHECKS_PER_WINDOW // 4 + 1

    def test_two_that_only_have_each_other(self, scene: Scene) -> None:
        """One is at the head for the other, who is held by nobody then."""
        scene.peers.remove(scene.consumer)
        other = scene.peer()
        scene.publisher.took_at = scene.clock.seconds()
        scene.publish(WINDOW)
        assert scene.publisher.held
        assert not other.held
        scene.take(other, 0)
        assert not scene.publisher.held

    def test_one_is_released_while_another_stays_held(self, scene: Scene) -> None:
        """The only fast one is a publisher: it does not count for itself."""
        other = scene.peer()
        scene.publish(WINDOW)
        scene.publish(LOOK, other)
        assert scene.pace.held == 2
        scene.take(other, 0)
        scene.clock.advance(CHECK_INTERVAL)
        assert not scene.publisher.held
        assert other.held
        assert scene.pace.held == 1


class TestProgress:
    """Of one consumer: others are looked at only if it is waited for and has come near."""

    @pytest.fixture
    def counting(self, scene: Scene) -> list[int]:
        looks: list[int] = []
        peers = scene.peers
        scene.pace._peers = lambda: looks.append(1) or peers  # type: ignore[func-returns-value]
        return looks

    def test_looks_at_the_others_when_it_is_near(self, scene: Scene, counting: list[int]) -> None:
        scene.publish(WINDOW)
        counting.clear()
        scene.take(scene.consumer, WINDOW // 4 + 1)
        assert counting == []
        scene.take(scene.consumer, 0)
        assert counting == [1]
        assert scene.publisher.calls == ["hold", "release"]

    def test_of_those_that_are_not_waited_for(self, scene: Scene, counting: list[int]) -> None:
        """However many there are, they cost nothing."""
        others = [scene.peer() for _ in range(20)]
        for other in others:
            other.cursor.alight(0)
        scene.publish(WINDOW)
        counting.clear()
        for other in others[:-2]:
            scene.take(other, 0)
        assert len(counting) <= 2
        assert scene.publisher.calls == ["hold"]

    def test_of_one_that_is_away(self, scene: Scene) -> None:
        other = scene.peer()
        scene.publish(WINDOW)
        other.cursor.leave()
        scene.pace.progressed(other)
        assert scene.publisher.calls == ["hold"]

    def test_while_nobody_is_held(self, scene: Scene, counting: list[int]) -> None:
        scene.pace.progressed(scene.consumer)
        assert counting == []

    def test_of_a_held_one_releases_the_others(self, scene: Scene) -> None:
        other = scene.peer()
        scene.publish(WINDOW)
        scene.publish(LOOK, other)
        scene.take(other, 0)
        scene.clock.advance(CHECK_INTERVAL)
        assert (scene.publisher.calls, other.calls) == (["hold", "release"], ["hold"])


class TestSlow:
    """Who takes less than half of what the fastest takes is not waited for; all others are."""

    def flood(self, scene: Scene, part: int) -> None:
        """Publish three windows; one consumer takes all, the other 1 / ``part`` of it."""
        fast = scene.peer()
        for _ in range(3 * CHECKS_PER_WINDOW):
            scene.publish(LOOK)
            scene.take(fast, 0)
            own = scene.consumer.cursor
            if not own.away:
                scene.take(scene.consumer, scene.log.head - own.position - LOOK // part)
            if scene.publisher.held:
                return

    def test_is_not_waited_for(self, scene: Scene) -> None:
        self.flood(scene, 4)
        assert scene.consumer.cursor.away
        assert scene.publisher.calls == []

    def test_nearly_as_fast_is(self, scene: Scene) -> None:
        self.flood(scene, 2)
        assert scene.publisher.calls == ["hold"]
        scene.take(scene.consumer, WINDOW // 4)
        assert scene.publisher.calls == ["hold", "release"]

    def test_nor_is_a_bridge_that_is_nearly_as_fast(self, scene: Scene) -> None:
        scene.consumer.name = BRIDGE_NAME
        self.flood(scene, 2)
        assert scene.publisher.calls == []

    def test_a_bridge_is_where_there_is_nobody_else(self, scene: Scene) -> None:
        scene.consumer.name = BRIDGE_NAME
        scene.publish(WINDOW)
        assert scene.publisher.held
        scene.take(scene.consumer, WINDOW // 4)
        assert not scene.publisher.held

    def test_one_that_stops_while_another_goes_on(self, scene: Scene) -> None:
        fast = scene.peer()
        scene.publish(WINDOW)
        assert scene.publisher.held
        scene.take(fast, 0)
        assert not scene.publisher.held

    def test_is_found_out_while_nothing_is_appended(self, scene: Scene) -> None:
        """The one that goes on is not among those that are waited for most."""
        fast, *_ = [scene.peer() for _ in range(3)]
        fast.cursor.alight(LOOK)
        scene.publish(WINDOW)
        scene.take(fast, 0)
        assert scene.publisher.held
        scene.clock.advance(CHECK_INTERVAL)
        assert not scene.publisher.held


class TestLeaving:
    def test_of_the_held_one(self, scene: Scene) -> None:
        scene.publish(WINDOW)
        scene.peers.remove(scene.publisher)
        scene.pace.forget(scene.publisher)
        assert scene.pace.held == 0
        assert not scene.clock.getDelayedCalls()
        assert scene.publisher.calls == ["hold"]

    def test_of_the_consumer(self, scene: Scene) -> None:
        scene.publish(WINDOW)
        scene.peers.remove(scene.consumer)
        scene.pace.forget(scene.consumer)
        assert scene.publisher.calls == ["hold", "release"]

    def test_of_one_that_is_not_held(self, scene: Scene) -> None:
        scene.pace.forget(scene.publisher)
        assert scene.pace.held_seconds == 0


class TestTimer:
    def test_runs_only_while_someone_is_held(self, scene: Scene) -> None:
        assert not scene.clock.getDelayedCalls()
        scene.publish(WINDOW)
        assert len(scene.clock.getDelayedCalls()) == 1
        scene.clock.advance(CHECK_INTERVAL)
        assert len(scene.clock.getDelayedCalls()) == 1
        scene.take(scene.consumer, 0)
        assert not scene.clock.getDelayedCalls()

    def test_is_gone_after_it_released(self, scene: Scene) -> None:
        scene.publish(WINDOW)
        scene.clock.pump([CHECK_INTERVAL] * 30)
        assert not scene.publisher.held
        assert not scene.clock.getDelayedCalls()

    def test_is_one_for_all(self, scene: Scene) -> None:
        other = scene.peer(took_at=-1)
        scene.publish(WINDOW)
        scene.publish(LOOK, other)
        assert len(scene.clock.getDelayedCalls()) == 1


class TestHeldSeconds:
    def test_grows_while_held(self, scene: Scene) -> None:
        scene.publish(WINDOW)
        assert scene.pace.held_seconds == 0
        scene.clock.advance(0.25)
        assert scene.pace.held_seconds == pytest.approx(0.25)

    def test_stays_and_adds_up(self, scene: Scene) -> None:
        for total in (0.5, 1.0):
            scene.publish(WINDOW)
            scene.clock.advance(0.5)
            scene.take(scene.consumer, 0)
            scene.clock.advance(10)
            scene.take(scene.consumer, 0)
            assert scene.pace.held_seconds == pytest.approx(total)

    def test_two_at_once_count_once(self, scene: Scene) -> None:
        other = scene.peer(took_at=-1)
        scene.publish(WINDOW)
        scene.publish(LOOK, other)
        scene.clock.advance(0.5)
        scene.take(scene.consumer, 0)
        assert scene.pace.held_seconds == pytest.approx(0.5)


class TestUnknown:
    """Peers of which nobody can tell yet whether they read."""

    def test_do_not_count_beside_one_that_is_known_to(self, scene: Scene) -> None:
        scene.publish(WINDOW // 4)
        scene.peer().known = None  # at the head, and all that it is sent fits its socket
        scene.publish(WINDOW)
        assert scene.publisher.held
        assert scene.log.lag(scene.consumer.cursor.position) < WINDOW * 3 // 4

    def test_count_where_there_is_nobody_else(self, scene: Scene) -> None:
        scene.consumer.known = None
        scene.publish(WINDOW)
        assert scene.publisher.held
