"""The ports: whose connections get the hub's own transports, and what is left on disk."""

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ServerFactory

from alphapulse_relay.hub.ports import PortReactor, UnixPort, accept_waiting
from alphapulse_relay.hub.transport import TCPTransport, UnixTransport
from tests.hub.sockets import PATIENCE, Relay, reactor


class TestPort:
    async def test_leaves_the_path_alone(self, path: Path) -> None:
        relay = Relay(path, "relay")
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        await relay.stop()
        assert path.is_socket()

    @pytest.mark.parametrize("umask", [0, 0o777])
    def test_has_its_permissions_when_it_is_bound(
        self, path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not by changing them after: there is no moment with others."""
        monkeypatch.delattr(os, "chmod")
        before = os.umask(umask)
        try:
            port = UnixPort(str(path).encode(), ServerFactory(), mode=0o640, reactor=reactor)
            bound = port._bound()
            assert os.umask(umask) == umask
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        bound.close()

    def test_a_path_that_is_taken(self, path: Path) -> None:
        path.touch()
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(CannotListenError, match="Address already in use"):
            UnixPort(str(path).encode(), ServerFactory(), reactor=reactor).startListening()
        assert len(os.listdir("/proc/self/fd")) == before

    async def test_that_was_passed_in_changes_nothing_on_disk(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.bind(str(path))
            path.chmod(0o600)
            theirs.listen()
            theirs.setblocking(False)
            closed: list[bool] = []
            port = UnixPort.of(theirs.dup(), ServerFactory(), 5, reactor)
            port.closed = lambda: closed.append(True)
            port.startListening()
            assert port.getHost().name == str(path).encode()
            await port.stopListening()
            assert closed == [True]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))  # it was not shut for those that have it, too
                theirs.accept()[0].close()

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
