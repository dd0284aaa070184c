"""A hub behind a TLS port in this process, and clients that come to it."""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread

from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.peer import Refusal
from alphapulse_relay.hub.ports import PortReactor
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.protocol_v2.framing import Rules
from tests.authority import SERVER, Authority, Issued
from tests.hub.fakes import Events
from tests.hub.sockets import PATIENCE, reactor, until


class Door:
    """A hub behind ``mtls:``, in this process; the relay is "relay.example"."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.relay = self.authority.issue("relay", "relay.example", usage=SERVER)
        self.hub = SignalRelayFactory(
            reactor, Rules(aside=True), MemoryStorage(16 << 20), hold=1.0, max_peers=100
        )
        self.hub.open()
        self.ports: Any = PortReactor(reactor, self.hub)
        self.sockets: list[socket.socket] = []

    async def listen(self, endpoint: str = "", interface: str = "127.0.0.1") -> None:
        endpoint = endpoint or (
            f"mtls:0:certKey={self.relay.certificate}:privateKey={self.relay.key}"
            f":clientCA={self.authority.file}:crl={self.authority.crl}:interface={interface}"
        )
        self.port: Any = await serverFromString(self.ports, endpoint).listen(self.hub)

    @property
    def number(self) -> int:
        return int(self.port.getHost().port)

    @property
    def peers(self) -> list[Any]:
        return list(self.hub.peers)

    def text(self, issued: Issued) -> str:
        where = f"tls:127.0.0.1:{self.number}:ca={self.authority.file}:name=relay.example"
        return f"{where}:cert={issued.certificate}:key={issued.key}"

    def plain(self) -> socket.socket:
        """Connect, and leave it at that."""
        self.sockets.append(socket.create_connection(("127.0.0.1", self.number), PATIENCE))
        return self.sockets[-1]

    def open(self, issued: Issued | None, **limits: ssl.TLSVersion) -> ssl.SSLSocket:
        """Connect as whoever it is, and shake hands; for a thread."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority.file)
        for limit, version in limits.items():
            setattr(context, limit, version)
        if issued is not None:
            context.load_cert_chain(issued.certificate, issued.key)
        wrapped = context.wrap_socket(self.plain(), server_hostname="relay.example")
        self.sockets.append(wrapped)
        return wrapped

    async def enter(self, issued: Issued, **limits: ssl.TLSVersion) -> ssl.SSLSocket:
        """Connect, and become a peer."""
        before = len(self.peers)
        connection = await deferToThread(self.open, issued, **limits)
        await until(lambda: len(self.peers) == before + 1)
        return connection

    async def refused(self, act: Callable[[], object], logged: Events) -> str:
        """Do what is to be refused; return why it was, as the log has it."""
        before = self.hub.counters.refused[Refusal.TLS]
        with suppress(OSError):
            await deferToThread(act)
        await until(lambda: self.hub.counters.refused[Refusal.TLS] == before + 1)
        assert not self.peers
        assert self.hub.counters.accepted == 0
        (line,) = logged.lines("reason=tls")
        return line.partition("reason=tls: ")[2]

    async def close(self) -> None:
        await maybeDeferred(self.port.stopListening)
        self.hub.drain.cut()
        await self.hub.drain.begin(0)
        for each in self.sockets:
            each.close()
        await until(lambda: not self.hub.connections)


def talk(door: Door, data: bytes) -> None:
    """Send, and wait for the end."""
    connection = door.plain()
    connection.sendall(data)
    while connection.recv(65536):
        pass
