"""All connections to the side port: how many there may be, and who makes room for whom."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper

from alphapulse_relay.descriptors import WEB_CONNECTIONS_MAX
from alphapulse_relay.hub.peer import Refusal
from alphapulse_relay.web.access import Access
from alphapulse_relay.web.channel import REQUEST_SECONDS
from alphapulse_relay.web.connections import Connections
from alphapulse_relay.web.rates import Rates
from alphapulse_relay.web.site import build_site
from alphapulse_relay.web.status import SettingsRead
from tests.hub.fakes import Events, Hub
from tests.web.asking import Caller, request

MOST = 3
Connect = Callable[[], Caller]


@pytest.fixture
def connections(hub: Hub, clock: Any) -> Connections:
    access = Access((), None, publish=False)
    made = build_site(hub.factory, lambda: None, access, Rates(hub.factory, clock), SettingsRead())
    made.most = MOST
    return made


@pytest.fixture
def connect(connections: Connections, clock: Any) -> Iterator[Connect]:
    callers: list[Caller] = []

    def make() -> Caller:
        callers.append(Caller(connections))
        return callers[-1]

    yield make
    for caller in callers:
        caller.lose()
    assert not connections.protocols
    assert not clock.getDelayedCalls()


@pytest.fixture
def refused(hub: Hub) -> Callable[[], int]:
    return lambda: hub.factory.counters.refused[Refusal.TOO_MANY_WEB_CONNECTIONS]


def upgrade(caller: Caller) -> None:
    """Have a connection become a WebSocket, as autobahn's resource does it."""
    caller.send(request("/healthz"))
    channel = caller.protocol.wrappedProtocol
    transport, channel.transport = channel.transport, None
    channel.connectionLost(None)  # which autobahn forgets; here it ends the timer
    assert isinstance(transport, ProtocolWrapper)
    transport.wrappedProtocol = Protocol()
    transport.wrappedProtocol.makeConnection(transport)


class TestRoom:
    def test_as_many_as_there_is(self, connect: Connect, refused: Any) -> None:
        callers = [connect() for _ in range(MOST)]
        assert [caller.ask().status for caller in callers] == [200] * MOST
        assert refused() == 0

    def test_the_oldest_that_has_asked_nothing_goes(self, connect: Connect, refused: Any) -> None:
        asked, oldest, younger = connect(), connect(), connect()
        asked.ask()
        newest = connect()
        assert [each.ended for each in (asked, oldest, younger, newest)] == ["", "cut", "", ""]
        assert refused() == 1
        assert newest.ask().status == 200

    def test_even_one_that_has_sent_half(self, connect: Connect) -> None:
        half, *_ = [connect() for _ in range(MOST)]
        half.send(request()[:-1])
        connect()
        assert half.ended == "cut"

    def test_one_that_is_ended_counts_no_more(self, connect: Connect, refused: Any) -> None:
        """Though it is gone only a little later."""
        callers = [connect() for _ in range(MOST + 5)]
        assert [caller.ended for caller in callers] == ["cut"] * 5 + [""] * MOST
        assert refused() == 5

    def test_one_that_may_ask_again_goes_uncounted(self, connect: Connect, refused: Any) -> None:
        callers = [connect() for _ in range(MOST)]
        for caller in callers:
            caller.ask()
        assert connect().ask().status == 200
        assert [caller.ended for caller in callers] == ["cut", "", ""]
        assert refused() == 0

    def test_who_has_gone_makes_room(self, connect: Connect, refused: Any) -> None:
        callers = [connect() for _ in range(MOST)]
        callers[1].lose()
        connect()
        assert [caller.ended for caller in callers] == [""] * MOST

    def test_who_is_being_answered_is_left_alone(self, connect: Connect, refused: Any) -> None:
        callers = [connect() for _ in range(MOST)]
        for caller in callers:
            caller.transport.room = 0
            caller.send(request())
            caller.transport.producer.pauseProducing()
        late = connect()
        assert [caller.ended for caller in callers] == [""] * MOST
        assert (late.response.status, late.ended, refused()) == (503, "closed", 1)
        assert late.response.body == (
            b"the side port has as many connections as it takes: try again later\n"
        )

    def test_who_is_refused_and_does_not_go_is_cut(self, connect: Connect, clock: Any) -> None:
        for _ in range(MOST):
            upgrade(connect())
        late = connect()
        clock.advance(REQUEST_SECONDS)
        assert late.ended == "cut"


class TestWebSockets:
    def test_count_and_stay(self, connect: Connect, clock: Any, refused: Any) -> None:
        callers = [connect() for _ in range(MOST)]
        for caller in callers:
            upgrade(caller)
        late = connect()
        clock.pump([1.0] * 100)
        assert [caller.ended for caller in callers] == [""] * MOST
        assert (late.response.status, refused()) == (503, 1)

    def test_make_room_when_they_go(self, connect: Connect, refused: Any) -> None:
        callers = [connect() for _ in range(MOST)]
        for caller in callers:
            upgrade(caller)
        callers[0].lose()
        assert connect().ask().status == 200
        assert refused() == 0


def test_lines_are_bounded(connect: Connect, logged: Events) -> None:
    for _ in range(50):
        connect()
    lines = logged.lines()
    assert len(lines) == 10
    assert lines[0].endswith("reason=too_many_web_connections")


def test_the_log_calls_the_port_by_what_it_serves(connections: Connections) -> None:
    assert connections.logPrefix() == "QuietSite"


def test_the_limit(hub: Hub, clock: Any) -> None:
    access = Access((), None, publish=False)
    site = build_site(hub.factory, lambda: None, access, Rates(hub.factory, clock), SettingsRead())
    assert site.most == WEB_CONNECTIONS_MAX == 1000
