"""A hub on real sockets in this process, and clients of it, for tests on the real reactor."""

import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from alphapulse_relay.client.address import TLSAddress
from alphapulse_relay.client.tls import encrypted
from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.ports import LISTEN_BACKLOG, PortReactor, RelayPort
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.protocol_v2.framing import Rules
from alphapulse_relay.tls import Files, MutualTLS
from tests.authority import SERVER, Authority

PATIENCE = 20.0
SOCKET_BUFFER = 106_496
"""Bytes: the kernel doubles it to what a Unix socket has (net.core.wmem_default)."""
reactor: Any = installed_reactor


async def until(condition: Callable[[], object]) -> None:
    """Let the reactor turn until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "never came true"
        await deferLater(reactor, 0, lambda: None)


async def turns(number: int = 20) -> None:
    """Let the reactor turn so often."""
    for _ in range(number):
        await deferLater(reactor, 0, lambda: None)


class Remote:
    """A client: a plain socket that is used in threads wherever it may have to wait."""

    def __init__(self, family: int, address: Any, tls: TLSAddress | None = None) -> None:
        self.socket = socket.socket(family)
        self.socket.settimeout(PATIENCE)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        self.socket.connect(address)
        if tls is not None:
            self.socket = encrypted(self.socket, tls)

    def send(self, data: bytes) -> Awaitable[None]:
        return deferToThread(self.socket.sendall, data)

    def receive(self, length: int) -> Awaitable[bytes]:
        return deferToThread(self._receive, length)

    def _receive(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length and (piece := self.socket.recv(length - len(received))):
            received += piece
        return bytes(received)

    def close(self) -> None:
        self.socket.close()


class Relay:
    """A hub that listens on a real socket, in this process."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        storage = MemoryStorage(8 << 20)
        self.factory = SignalRelayFactory(
            reactor, Rules(aside=True), storage, hold=1.0, max_peers=100
        )
        self.factory.open()
        self.remote_tls: TLSAddress | None = None
        if kind == "tls":
            self.port: Any = self._listen_tls(path.parent)
        elif kind == "relay":
            self.port = RelayPort(str(path), self.factory, LISTEN_BACKLOG, 0o660, reactor)
            self.port.startListening()
        else:
            opener = reactor if kind.startswith("ordinary") else PortReactor(reactor, self.factory)
            if kind.endswith("unix"):
                self.port = opener.listenUNIX(str(path), self.factory)
            else:
                self.port = opener.listenTCP(0, self.factory, interface="127.0.0.1")
        self.transports: list[Any] = []
        self.remotes: list[Remote] = []

    def _listen_tls(self, directory: Path) -> Any:
        authority = Authority(directory)
        relay = authority.issue("relay", "relay.example", usage=SERVER)
        desk = authority.issue("desk", "desk.example")
        self.ports = PortReactor(reactor, self.factory)
        context = MutualTLS(Files(relay.certificate, relay.key, authority.file, None))
        port = self.ports.listenSSL(0, self.factory, context, interface="127.0.0.1")
        self.authority = authority
        self.remote_tls = TLSAddress(
            "127.0.0.1",
            port.getHost().port,
            "relay.example",
            str(authority.file),
            str(desk.certificate),
            str(desk.key),
        )
        return port

    async def connect(self) -> tuple[Remote, Any]:
        """Return a client, and the peer that it is to the hub."""
        number = len(list(self.factory.peers))
        host = self.port.getHost()
        if hasattr(host, "port"):
            remote = await deferToThread(
                Remote, socket.AF_INET, (host.host, host.port), self.remote_tls
            )
        else:
            remote = Remote(socket.AF_UNIX, str(self.path))
        self.remotes.append(remote)
        await until(lambda: len(list(self.factory.peers)) == number + 1)
        peer: Any = list(self.factory.peers)[-1]
        self.transports.append(peer.transport)
        # TCP's would grow to megabytes.
        peer.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        return remote, peer

    async def stop(self) -> None:
        await self.port.stopListening()
        self.factory.drain.cut()
        await self.factory.drain.begin(0)
        for remote in self.remotes:
            remote.close()
        await until(lambda: not any(transport.connected for transport in self.transports))
        assert not list(self.factory.peers)
