"""The ports: whose connections get the hub's own transports, and what is left on disk."""

import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import ServerFactory

from alphapulse_relay.hub.ports import PortReactor, accept_waiting
from alphapulse_relay.hub.transport import TCPTransport, UnixTransport
from tests.hub.sockets import PATIENCE, Relay, reactor


class TestPort:
    async def test_leaves_the_path_alone(self, path: Path) -> None:
        relay = Relay(path, "relay")
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        await relay.stop()
        assert path.is_socket()

    async def test_leaves_a_successor_alone(self, path: Path) -> None:
        relay = Relay(path, "relay")
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
            await relay.stop()
            assert path.is_socket()

    async def test_accepts_no_more(self, path: Path) -> None:
        relay = Relay(path, "relay")
        await relay.stop()
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(path))


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class TestPortReactor:
    """Endpoint strings, as ``--listen`` takes them."""

    async def opened(self, endpoint: str, *, mine: bool = True) -> Any:
        factory = ServerFactory()
        ports: Any = PortReactor(reactor, factory if mine else ServerFactory())
        port: Any = await serverFromString(ports, endpoint).listen(factory)
        await port.stopListening()
        return port.transport

    @pytest.mark.parametrize("endpoint", ["tcp:0:interface=127.0.0.1", "tcp6:0:interface=\\:\\:1"])
    async def test_tcp(self, endpoint: str) -> None:
        if "tcp6" in endpoint and not has_ipv6():
            pytest.skip("this machine has no IPv6")
        assert await self.opened(endpoint) is TCPTransport

    async def test_unix(self, path: Path) -> None:
        assert await self.opened(f"unix:{path}") is UnixTransport

    async def test_passed_in(self, path: Path) -> None:
        for family, address, kind in [
            (socket.AF_INET, ("127.0.0.1", 0), TCPTransport),
            (socket.AF_UNIX, str(path), UnixTransport),
        ]:
            with socket.socket(family) as listening:
                listening.bind(address)
                listening.listen()
                factory = ServerFactory()
                ports = PortReactor(reactor, factory)
                port = ports.adoptStreamPort(listening.fileno(), family, factory)
                assert port.transport is kind
                await port.stopListening()

    async def test_of_another_factory_are_ordinary(self, path: Path) -> None:
        assert await self.opened("tcp:0:interface=127.0.0.1", mine=False) is tcp.Server
        assert await self.opened(f"unix:{path}", mine=False) is unix.Server

    def test_is_the_reactor_in_all_else(self) -> None:
        ports = PortReactor(reactor, ServerFactory())
        assert ports.callLater == reactor.callLater

    async def test_many_may_wait_and_are_accepted(self, path: Path) -> None:
        """More than Twisted lets wait, or accepts in a turn: all consumers reconnect at once."""
        accepted: list[Any] = []
        factory = ServerFactory()
        factory.buildProtocol = lambda _: accepted.append(1)  # type: ignore[assignment,method-assign,func-returns-value]
        ports: Any = PortReactor(reactor, factory)
        port: Any = await serverFromString(ports, "tcp:0:interface=127.0.0.1").listen(factory)
        where = ("127.0.0.1", port.getHost().port)
        clients = [socket.create_connection(where, timeout=PATIENCE) for _ in range(150)]
        accept_waiting(port)
        assert len(accepted) == 150
        await port.stopListening()
        accept_waiting(port)
        for client in clients:
            client.close()
