"""Ports whose connections are the hub's own transports."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from alphapulse_relay.hub.handshake import HandshakeFactory
from alphapulse_relay.hub.tls_port import TLSPort
from alphapulse_relay.hub.transport import RelayTransport, TCPTransport, UnixTransport

if TYPE_CHECKING:
    from alphapulse_relay.hub.factory import SignalRelayFactory

LISTEN_BACKLOG = 4096
"""Connections that may wait to be accepted: all consumers reconnect at once after a restart.
The kernel cuts it to net.core.somaxconn, 4096 by default (listen(2))."""

LAST_ACCEPTED = 256
"""Connections accepted of those that wait when a port is about to close. No more: a client that
connects again and again must not keep the relay from leaving."""


class UnixPort(unix.Port):
    """A listening Unix socket, bound here or passed in.

    The path on disk is not its business but while it binds: it is removed by who claimed it, and
    only if it is still the same socket.
    """

    # Somebody else may hold the socket, too, such as a successor: it must not be shut for them.
    _shouldShutdown = False  # noqa: N815 - tcp.Port's
    closed: Callable[[], None] | None = None
    """What to do when it is closed."""

    @classmethod
    def of(
        cls, listening: socket.socket, factory: IProtocolFactory, backlog: int, reactor: Any
    ) -> Self:
        """Return the port of a socket that was passed in, which is the port's from now on."""
        port = cls(os.fsencode(listening.getsockname()), factory, backlog, reactor=reactor)
        port._preexistingSocket = listening
        return port

    def startListening(self) -> None:
        """Accept, and bind and listen before if that is not done.

        Unlike ``unix.Port`` it never changes the permissions of a file that is there: the socket is
        made with those that it is to have. On one that was passed in it does not call listen(2):
        that would make this process the one that clients take for its own (SO_PEERCRED).
        """
        tcp._reservedFD.reserve()
        self.factory.doStart()  # type: ignore[union-attr]
        listening, self._preexistingSocket = self._preexistingSocket, None
        self.socket = listening or self._bound()
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def _bound(self) -> socket.socket:
        listening: socket.socket = self.createInternetSocket()
        umask = os.umask(0o777 & ~self.mode)
        try:
            listening.bind(self._bindPath)
            listening.listen(self.backlog)
        except OSError as error:
            listening.close()
            raise CannotListenError(None, self._bindPath, error) from error
        finally:
            os.umask(umask)
        return listening

    def connectionLost(self, reason: Failure) -> None:
        """Close the socket and leave its path alone."""
        tcp.Port.connectionLost(self, reason)
        if self.closed is not None:
            self.closed()


class RelayPort(UnixPort):
    """A listening Unix socket of the hub."""

    transport = UnixTransport


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
        if factory is not self._factory:
            outer = TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor)
            return self.listenTCP(port, outer, backlog, interface)
        handshakes = HandshakeFactory(self._hub, contextFactory, self._reactor)
        backlog = max(backlog, LISTEN_BACKLOG)
        opened = TLSPort(port, handshakes, backlog, interface, self._reactor)
        opened.startListening()
        return opened

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
