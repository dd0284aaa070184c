"""Ports whose connections are the hub's own transports."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from alphapulse_relay.hub.handshake import HandshakeFactory
from alphapulse_relay.hub.transport import RelayTransport, TCPTransport, UnixTransport

if TYPE_CHECKING:
    from alphapulse_relay.hub.factory import SignalRelayFactory

LISTEN_BACKLOG = 4096
"""Connections that may wait to be accepted: all consumers reconnect at once after a restart.
The kernel cuts it to net.core.somaxconn, 4096 by default (listen(2))."""

LAST_ACCEPTED = 256
"""Connections accepted of those that wait when a port is about to close. No more: a client that
connects again and again must not keep the relay from leaving."""


class RelayPort(unix.Port):
    """A listening Unix socket.

    The path on disk is not its business: it is removed by who claimed it, and only if it is still
    the same socket.
    """

    transport = UnixTransport

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and leave its path alone."""
        tcp.Port.connectionLost(self, reason)


class PortReactor:
    """A reactor whose plain ports for the hub accept connections with the hub's own transports.

    For endpoint strings (``tcp:``, ``tcp6:``, ``unix:``, ``systemd:``): an endpoint asks its
    reactor for a port. At a TLS port (``ssl:``, ``mtls:``) peers join the hub once their handshake
    is done. A port for another factory is as from ``reactor``, but as many may wait there.
    """

    def __init__(self, reactor: Any, hub: SignalRelayFactory) -> None:
        self._reactor = reactor
        self._hub = hub
        self._factory: IProtocolFactory = hub
        self.contexts: list[object] = []
        """What the TLS ports ask of their clients, and prove to them."""

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> Any:
        """Listen on a TCP port, as ``IReactorTCP``; at least LISTEN_BACKLOG may wait there."""
        backlog = max(backlog, LISTEN_BACKLOG)
        opened = self._reactor.listenTCP(port, factory, backlog, interface)
        return self._tuned(opened, factory, TCPTransport)

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        contextFactory: Any,  # noqa: N803 - IReactorSSL's name
        backlog: int = 50,
        interface: str = "",
    ) -> Any:
        """Listen for TLS on a TCP port, as ``IReactorSSL``; LISTEN_BACKLOG may wait there."""
        self.contexts.append(contextFactory)
        inner = HandshakeFactory(self._hub) if factory is self._factory else factory
        outer = TLSMemoryBIOFactory(contextFactory, False, inner, self._reactor)
        return self.listenTCP(port, outer, backlog, interface)

    def listenUNIX(
        self, address: str, factory: IProtocolFactory, backlog: int = 50, **named: Any
    ) -> Any:
        """Listen on a Unix socket, as ``IReactorUNIX``; at least LISTEN_BACKLOG may wait there."""
        backlog = max(backlog, LISTEN_BACKLOG)
        opened = self._reactor.listenUNIX(address, factory, backlog, **named)
        return self._tuned(opened, factory, UnixTransport)

    def adoptStreamPort(self, descriptor: int, family: int, factory: IProtocolFactory) -> Any:
        """Listen on a socket that was passed in, as ``IReactorSocket``."""
        opened = self._reactor.adoptStreamPort(descriptor, family, factory)
        transport = UnixTransport if family == socket.AF_UNIX else TCPTransport
        return self._tuned(opened, factory, transport)

    def _tuned(
        self, port: Any, factory: IProtocolFactory, transport: type[RelayTransport]
    ) -> IListeningPort:
        """Have the port make the hub's transports; it has accepted no connection yet."""
        if factory is self._factory:
            port.transport = transport
        return port  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


def accept_waiting(port: Any) -> None:
    """Accept those that wait at a port: they may have sent something already."""
    if port.connected:
        port.numberAccepts = LAST_ACCEPTED
        port.doRead()
