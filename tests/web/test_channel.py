"""One connection to the side port: how long each step may take, and what is not taken in."""

import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from twisted.protocols.policies import ProtocolWrapper
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from alphapulse_relay.hub.peer import Refusal
from alphapulse_relay.web import channel as module
from alphapulse_relay.web.channel import (
    LOOK_SECONDS,
    NEXT_SECONDS,
    REQUEST_SECONDS,
    STALLED_SECONDS,
    Channel,
    Phase,
    untaken,
)
from alphapulse_relay.web.pages import PLAIN, Directory, Page
from tests.hub.fakes import Events, Hub
from tests.web.asking import Caller, request

LARGE = bytes(300_000)
HALF = request()[:20]
Connect = Callable[[], Caller]


class Upgraded(Resource):
    """Takes the connection over, as autobahn's resource does."""

    isLeaf = True

    def render(self, request: Any) -> int:
        request.channel.transport = None
        return NOT_DONE_YET


def site(hub: Hub, clock: Any) -> Site:
    root = Directory()
    root.putChild(b"healthz", Page(lambda _: b"alive\n", PLAIN))
    root.putChild(b"large", Page(lambda _: LARGE, PLAIN))
    root.putChild(b"upgrade", Upgraded())
    made = Site(root, reactor=clock)
    made.timeOut = None
    made.protocol = partial(Channel, hub.factory)  # type: ignore[assignment]
    return made


@pytest.fixture
def connect(hub: Hub, clock: Any) -> Iterator[Connect]:
    """Connects callers; when they are gone nothing of them is left."""
    callers: list[Caller] = []
    served = site(hub, clock)

    def make() -> Caller:
        callers.append(Caller(served))
        return callers[-1]

    yield make
    for caller in callers:
        caller.lose()
    assert not clock.getDelayedCalls()


@pytest.fixture
def refused(hub: Hub) -> Callable[[], dict[str, int]]:
    """Tells which connections were counted as refused."""
    return lambda: {reason: n for reason, n in hub.factory.counters.refused.items() if n}


def wait(clock: Any, seconds: float) -> None:
    """Let time pass, second by second."""
    clock.pump([1.0] * int(seconds))


class TestRequestsInTime:
    def test_silence(self, connect: Connect, clock: Any, refused: Any) -> None:
        caller = connect()
        wait(clock, REQUEST_SECONDS - 1)
        assert caller.ended == ""
        wait(clock, 1)
        assert caller.ended == "cut"
        assert refused() == {Refusal.TIMEOUT: 1}

    def test_a_trickle(self, connect: Connect, clock: Any, refused: Any) -> None:
        caller = connect()
        for each in HALF[: REQUEST_SECONDS - 1]:
            caller.send(bytes([each]))
            wait(clock, 1)
        assert caller.ended == ""
        caller.send(b"x")
        wait(clock, 1)
        assert caller.ended == "cut"
        assert refused() == {Refusal.TIMEOUT: 1}

    def test_a_trickle_of_headers(self, connect: Connect, clock: Any) -> None:
        caller = connect()
        caller.send(request()[:-2])
        for number in range(REQUEST_SECONDS):
            caller.send(b"X-%d: a\r\n" % number)
            wait(clock, 1)
        assert caller.ended == "cut"

    def test_in_time_at_the_last_moment(self, connect: Connect, clock: Any, refused: Any) -> None:
        caller = connect()
        wait(clock, REQUEST_SECONDS - 1)
        assert caller.ask().status == 200
        wait(clock, REQUEST_SECONDS - 1)
        assert caller.ask().status == 200
        assert (caller.ended, refused()) == ("", {})

    def test_who_had_an_answer_and_asks_no_more_is_let_go(
        self, connect: Connect, clock: Any, refused: Any
    ) -> None:
        caller = connect()
        caller.ask()
        wait(clock, REQUEST_SECONDS)
        assert (caller.ended, refused()) == ("closed", {})

    def test_who_had_an_answer_and_asks_half_is_not(
        self, connect: Connect, clock: Any, refused: Any
    ) -> None:
        caller = connect()
        caller.ask()
        caller.send(HALF)
        wait(clock, REQUEST_SECONDS)
        assert (caller.ended, refused()) == ("cut", {Refusal.TIMEOUT: 1})

    def test_half_a_request_that_came_with_the_one_before(
        self, connect: Connect, clock: Any, refused: Any
    ) -> None:
        caller = connect()
        caller.send(request() + HALF)
        clock.advance(NEXT_SECONDS)
        wait(clock, REQUEST_SECONDS)
        assert (caller.ended, refused()) == ("cut", {Refusal.TIMEOUT: 1})

    def test_several_at_once_are_answered_in_turn(self, connect: Connect, clock: Any) -> None:
        caller = connect()
        caller.send(request() * 3)
        for number in range(1, 4):
            assert caller.transport.value().count(b"200 OK") == number
            clock.advance(NEXT_SECONDS)
        assert caller.ended == ""

    def test_is_told_with_who_it_was(self, connect: Connect, clock: Any, logged: Events) -> None:
        connect()
        wait(clock, REQUEST_SECONDS)
        (line,) = logged.lines()
        assert line == "connection refused: 1 (tcp 192.168.1.1:54321), reason=timeout"

    def test_lines_are_bounded(
        self, connect: Connect, clock: Any, logged: Events, refused: Any
    ) -> None:
        for _ in range(50):
            connect()
        wait(clock, REQUEST_SECONDS)
        assert len(logged.lines()) == 10
        assert refused() == {Refusal.TIMEOUT: 50}


class TestAnswersTaken:
    @pytest.fixture
    def held(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """What the socket says it holds; a test changes it, as who reads does."""
        held = [1000]
        monkeypatch.setattr(module, "untaken", lambda transport: held[0])
        return held

    @pytest.fixture
    def reader(self, connect: Connect) -> Caller:
        """One that has asked for much, of which its transport takes nothing yet."""
        caller = connect()
        caller.transport.room = 0
        caller.send(request("/large"))
        return caller

    def test_who_takes_nothing_is_cut(
        self, reader: Caller, clock: Any, refused: Any, held: list[int]
    ) -> None:
        wait(clock, STALLED_SECONDS - 1)
        assert reader.ended == ""
        wait(clock, 1)
        assert (reader.ended, refused()) == ("cut", {Refusal.STALLED: 1})

    def test_who_takes_some_has_as_long_again(
        self, reader: Caller, clock: Any, held: list[int]
    ) -> None:
        for _ in range(5):
            wait(clock, STALLED_SECONDS - LOOK_SECONDS)
            held[0] -= 1
        assert reader.ended == ""
        wait(clock, STALLED_SECONDS + LOOK_SECONDS)
        assert reader.ended == "cut"

    def test_room_is_progress_too(self, reader: Caller, clock: Any, held: list[int]) -> None:
        for _ in range(3):
            wait(clock, STALLED_SECONDS - 1)
            reader.transport.take(0)
        assert reader.ended == ""

    def test_the_next_request_has_its_time_once_the_answer_is_taken(
        self, reader: Caller, clock: Any, refused: Any, held: list[int]
    ) -> None:
        while len(reader.transport.value()) < len(LARGE):
            reader.transport.take(0)
        wait(clock, STALLED_SECONDS - 1)
        assert reader.ended == ""
        reader.transport.take()
        wait(clock, REQUEST_SECONDS - 1)
        assert reader.ended == ""
        assert reader.ask().status == 200
        wait(clock, REQUEST_SECONDS)
        assert (reader.ended, refused()) == ("closed", {})

    def test_no_further_answer_is_made_meanwhile(
        self, reader: Caller, clock: Any, held: list[int]
    ) -> None:
        """Else who asks much and reads nothing would fill the memory."""
        reader.send(request("/large") * 5)
        while len(reader.transport.value()) < len(LARGE):
            reader.transport.take(0)
        assert reader.transport.value().count(b"200 OK") == 1
        for _ in range(10):
            reader.transport.take()
            clock.advance(NEXT_SECONDS)
        assert reader.transport.value().count(b"200 OK") == 6

    def test_who_takes_nothing_before_it_is_closed_is_cut(
        self, connect: Connect, clock: Any, refused: Any, held: list[int]
    ) -> None:
        caller = connect()
        caller.ask(connection="close")
        assert caller.ended == "closed"
        wait(clock, STALLED_SECONDS)
        assert (caller.ended, refused()) == ("cut", {Refusal.STALLED: 1})

    def test_gone_while_it_is_answered(self, reader: Caller) -> None:
        reader.transport.producer.stopProducing()
        reader.lose()

    def test_gone_when_all_is_written_and_not_taken(self, reader: Caller) -> None:
        while len(reader.transport.value()) < len(LARGE):
            reader.transport.take(0)
        reader.lose()


class TestBodies:
    @pytest.mark.parametrize(
        "headers",
        [
            {"content_length": "1"},
            {"content_length": "99999999999"},
            {"transfer_encoding": "chunked"},
            {"content_length": "5", "expect": "100-continue"},
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
    def test_are_refused_unread(
        self, connect: Connect, method: str, headers: dict[str, str]
    ) -> None:
        caller = connect()
        response = caller.ask("/healthz", method, **headers)
        assert (response.status, caller.ended) == (413, "closed")
        assert response.body == b"a request to the side port has no body\n"
        assert int(response.headers["content-length"]) == len(response.body)
        assert response.headers["connection"] == "close"
        caller.send(b"5\r\nhello\r\n" + request())
        assert caller.transport.value().count(b"HTTP/1.1") == 1

    def test_one_that_comes_along(self, connect: Connect) -> None:
        caller = connect()
        caller.send(request("/healthz", "POST", content_length="5") + b"hello" + request())
        assert caller.response.status == 413
        assert caller.transport.value().count(b"HTTP/1.1") == 1

    def test_an_empty_one_is_none(self, connect: Connect) -> None:
        assert connect().ask("/healthz", content_length="0").status == 200
        assert connect().ask("/healthz", "POST", content_length="0").status == 405

    def test_what_is_no_request(self, connect: Connect, clock: Any) -> None:
        caller = connect()
        caller.send(b"\x16\x03\x01 hello\r\n\r\n" + request())
        assert (caller.response.status, caller.ended) == (400, "closed")
        caller.send(request())
        assert caller.transport.value().count(b"HTTP/1.1") == 1


class TestUpgraded:
    """A WebSocket has its own limits."""

    def test_no_time_is_up(self, connect: Connect, clock: Any, refused: Any) -> None:
        caller = connect()
        caller.send(request("/upgrade"))
        wait(clock, 2 * (REQUEST_SECONDS + STALLED_SECONDS))
        assert (caller.ended, refused()) == ("", {})

    def test_not_even_after_a_large_answer(
        self, connect: Connect, clock: Any, refused: Any
    ) -> None:
        caller = connect()
        caller.transport.room = 0
        caller.send(request("/large") + request("/upgrade"))
        while caller.protocol.transport is not None:
            caller.transport.take(0)
            clock.advance(NEXT_SECONDS)
        wait(clock, 2 * (REQUEST_SECONDS + STALLED_SECONDS))
        assert (caller.ended, refused()) == ("", {})

    def test_nor_while_much_is_under_way(self, connect: Connect, clock: Any, refused: Any) -> None:
        caller = connect()
        caller.send(request("/upgrade"))
        caller.transport.producer.pauseProducing()
        wait(clock, 2 * STALLED_SECONDS)
        assert (caller.ended, refused()) == ("", {})


def test_what_a_socket_holds() -> None:
    here, there = socket.socketpair()
    with here, there:

        class Holder:
            def getHandle(self) -> socket.socket:
                return here

        wrapped: Any = ProtocolWrapper(None, None)
        wrapped.transport = Holder()
        assert untaken(wrapped) == 0
        here.send(bytes(1000))
        before = untaken(wrapped)
        assert before >= 1000
        there.recv(1000)
        assert untaken(wrapped) == 0
    assert untaken(object()) == 0


def test_phases(connect: Connect) -> None:
    caller = connect()
    phases = [caller.protocol.phase]
    caller.transport.room = 0
    caller.send(request("/large"))
    phases.append(caller.protocol.phase)
    caller.transport.take()
    phases.append(caller.protocol.phase)
    caller.ask(connection="close")
    phases.append(caller.protocol.phase)
    assert phases == [Phase.FRESH, Phase.ANSWERING, Phase.IDLE, Phase.CLOSING]
