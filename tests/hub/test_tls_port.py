"""The port for TLS, on real sockets: whose turn it is in a flood, and who is passed over."""

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from alphapulse_relay.hub import handshake, tls_port
from alphapulse_relay.hub.peer import Refusal
from tests.hub.door import Door
from tests.hub.fakes import Events
from tests.hub.sockets import reactor, turns, until

Listen = Callable[..., Awaitable[Door]]
NO_TLS = b"no TLS at all"


@pytest_twisted.async_yield_fixture
async def listen(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a door at which a handshake may begin every hundred seconds, and others in store."""
    doors: list[Door] = []

    async def listen(
        rate: float = 0.01, store: float = 0, stay: float = 60, interface: str = "127.0.0.1"
    ) -> Door:
        monkeypatch.setattr(tls_port, "HANDSHAKES_PER_SECOND", rate)
        monkeypatch.setattr(tls_port, "HANDSHAKES_BURST_SECONDS", store / rate)
        monkeypatch.setattr(handshake, "STAY_SECONDS", stay)
        doors.append(Door(path.parent))
        await doors[-1].listen(interface=interface)
        return doors[-1]

    yield listen
    for each in doors:
        await each.close()


def refused(door: Door) -> int:
    return door.hub.counters.refused[Refusal.TLS]


def come_and_go(door: Door, said: bytes) -> None:
    connection = door.plain()
    connection.sendall(said)
    connection.close()


class TestFlood:
    async def test_of_those_who_mean_it_all_come_in(
        self, door: Door, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each waits for its turn, and those that stay make room for it."""
        monkeypatch.setattr(handshake, "STAY_SECONDS", 0.1)
        desk = door.authority.issue("desk")
        await gatherResults([deferToThread(door.open, desk) for _ in range(20)])
        await until(lambda: len(door.peers) == 20)
        assert refused(door) == 0

    async def test_waits_to_be_accepted(self, listen: Listen, logged: Events) -> None:
        door = await listen(store=1)
        for _ in range(3):
            door.plain().sendall(NO_TLS)
        await until(lambda: refused(door) == 2)
        await turns()
        assert refused(door) == 2

    async def test_is_accepted_one_by_one(self, listen: Listen, logged: Events) -> None:
        door = await listen()
        for _ in range(3):
            door.plain()
        await turns()
        await door.port.stopListening()
        assert len(logged.lines("reason=tls: the relay is leaving")) == 1

    async def test_of_those_who_stay_waits_for_nobody(self, listen: Listen) -> None:
        door = await listen(stay=0.01)
        desk = door.authority.issue("desk")
        for _ in range(3):
            await door.enter(desk)

    async def test_of_those_who_come_and_go_waits(self, listen: Listen) -> None:
        door = await listen(stay=0.2)
        (await door.enter(door.authority.issue("desk"))).close()
        await until(lambda: not door.peers)
        door.plain().sendall(NO_TLS)
        await deferLater(reactor, 0.3)
        assert refused(door) == 0

    async def test_is_accepted_by_and_by(self, listen: Listen) -> None:
        door = await listen(rate=50)
        desk = door.authority.issue("desk")
        for _ in range(3):
            await door.enter(desk)

    async def test_of_those_who_say_nothing_keeps_nobody_out_for_long(
        self, listen: Listen, logged: Events, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(handshake, "HELLO_SECONDS", 0.05)
        door = await listen()
        for _ in range(5):
            door.plain()
        await door.enter(door.authority.issue("desk"))
        assert refused(door) == 5


class TestPassesOver:
    async def test_who_has_gone(self, listen: Listen, logged: Events) -> None:
        """They take nobody's turn, whatever they have said; and nothing is made for them."""
        door = await listen(stay=0.05)
        await door.enter(door.authority.issue("desk"))
        made: list[Any] = []
        build = door.port.factory.buildProtocol
        door.port.factory.buildProtocol = lambda address: made.append(address) or build(address)
        number = 12
        for each in range(number):
            come_and_go(door, b"\x16\3\1" * (each % 2))
        other = await door.enter(door.authority.issue("other"))
        assert refused(door) == number
        assert [address.port for address in made] == [other.getsockname()[1]]
        assert "reason=tls: the connection ended" in logged.lines("connection refused: ")[0]

    @pytest.mark.parametrize("singly", [True, False])
    async def test_only_some_at_once(
        self, listen: Listen, logged: Events, monkeypatch: pytest.MonkeyPatch, singly: bool
    ) -> None:
        """Messages wait for that: a few now, the others after a rest."""
        monkeypatch.setattr(tls_port, "PASSED_OVER_AT_ONCE", 4)
        monkeypatch.setattr(tls_port, "REST_SECONDS", 60)
        door = await listen()
        for _ in range(12):
            come_and_go(door, b"")
            if singly:
                await turns()
        await until(lambda: refused(door) == 4)
        await turns()
        assert refused(door) == 4

    async def test_the_descriptors_of_those_too(self, listen: Listen, logged: Events) -> None:
        door = await listen(stay=0.05)
        await door.enter(door.authority.issue("desk"))
        before = descriptors()
        for _ in range(20):
            come_and_go(door, b"")
        await until(lambda: refused(door) == 20)
        assert descriptors() <= before

    @pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
    async def test_by_the_address_it_came_from(self, listen: Listen, logged: Events) -> None:
        door = await listen(interface="\\:\\:1")
        connection = socket.create_connection(("::1", door.number))
        port = connection.getsockname()[1]
        connection.close()
        await until(lambda: refused(door) == 1)
        assert logged.lines(f"(tls ::1:{port}), reason=tls: the connection ended")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
