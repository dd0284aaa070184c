"""The side port: what each address tells of a bridge, and how many may ask."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats")

from twisted.internet.task import Clock

from alphapulse_relay import __version__
from alphapulse_relay.bridge.account import Loss
from alphapulse_relay.bridge.bridge import Bridge
from alphapulse_relay.bridge.site import CONNECTIONS_MAX, IDLE_SECONDS, Status, build_site
from alphapulse_relay.web.pages import HEADERS
from tests.bridge.bridges import make_ready, make_service
from tests.web.asking import Caller

NOW = 2000.0
STATUS = {
    "version": str,
    "pid": int,
    "started_at": float,
    "uptime_seconds": float,
    "name": str,
    "stream": str,
    "ready": bool,
    "trouble": str,
    "relay": {"trouble": str, "connections": int},
    "nats": {"trouble": str, "reconnects": int},
    "publish_seconds": float,
    "outward": dict,
    "inward": dict,
    "lost": dict.fromkeys(Loss, int),
    "own": int,
    "filtered": int,
}
"""The document of a bridge that has no connection yet."""


@pytest.fixture
def bridge(tmp_path: Path) -> Bridge:
    return make_service(tmp_path).bridge


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connect(bridge: Bridge, clock: Clock) -> Iterator[Callable[[], Caller]]:
    site = build_site(bridge, clock)
    callers: list[Caller] = []

    def call() -> Caller:
        callers.append(Caller(site))
        return callers[-1]

    yield call
    for caller in callers:
        caller.lose()


@pytest.fixture
def caller(connect: Callable[[], Caller]) -> Caller:
    return connect()


def shape(document: Any, model: Any) -> Any:
    """Return what a document is made of, as deep as its model tells."""
    if isinstance(model, dict):
        return {key: shape(value, model.get(key)) for key, value in document.items()}
    return type(document)


class TestAddresses:
    def test_alive(self, caller: Caller) -> None:
        answer = caller.ask("/healthz")
        assert (answer.status, answer.body) == (200, b"alive\n")
        assert HEADERS.items() <= answer.headers.items()

    def test_ready(self, caller: Caller, bridge: Bridge) -> None:
        answer = caller.ask("/readyz")
        assert (answer.status, answer.body) == (
            503,
            b"not ready: no relay: not connected yet\n",
        )
        make_ready(bridge)
        answer = caller.ask("/readyz")
        assert (answer.status, answer.body) == (200, b"ready\n")

    def test_metrics(self, caller: Caller) -> None:
        answer = caller.ask("/metrics")
        assert b'\nsignal_relay_bridge_messages_total{way="inward"} 0.0\n' in answer.body

    def test_status(self, caller: Caller) -> None:
        answer = caller.ask("/api/status")
        assert answer.headers["content-type"] == "application/json"
        document = json.loads(answer.body)
        assert shape(document, STATUS) == STATUS
        assert (document["version"], document["ready"]) == (__version__, False)

    @pytest.mark.parametrize("path", ["/api", "/page", "/signals"])
    def test_nothing_else(self, caller: Caller, path: str) -> None:
        assert caller.ask(path).status == 404

    def test_which_there_are(self, caller: Caller) -> None:
        places = caller.ask("/").body.decode().partition(": ")[2].split()
        assert len(places) == 4
        for place in places:
            assert caller.ask(place).status in {200, 503}

    def test_it_can_only_be_read(self, caller: Caller) -> None:
        assert caller.ask("/metrics", "PUT").status == 405


def test_figures_of_a_status(bridge: Bridge) -> None:
    times = iter((NOW, NOW + 5))
    status = Status(bridge, lambda: next(times))
    way = bridge.account.inward
    way.messages, way.waiting_since, way.crossing_seconds = 3, NOW + 3, 0.5
    bridge.account.lost[Loss.REFUSED] = 1
    document = status.describe()
    assert (document["started_at"], document["uptime_seconds"]) == (NOW, 5)
    assert document["inward"] == {
        "trouble": "not begun yet",
        "messages": 3,
        "bytes": 0,
        "stored_bytes": 0,
        "runs": 0,
        "repeated": 0,
        "waiting_messages": 0,
        "waiting_bytes": 0,
        "lag_seconds": 2,
        "crossing_seconds": 0.5,
    }
    assert document["lost"]["refused"] == 1


class TestConnections:
    def test_who_says_nothing_is_sent_away(self, caller: Caller, clock: Clock) -> None:
        clock.advance(IDLE_SECONDS)
        assert caller.ended == "closed"

    def test_there_are_only_so_many(self, bridge: Bridge, clock: Clock) -> None:
        site = build_site(bridge, clock)
        callers = [Caller(site) for _ in range(CONNECTIONS_MAX)]
        assert site.buildProtocol(None) is None
        callers.pop().lose()
        callers.append(Caller(site))
        for caller in callers:
            caller.lose()
