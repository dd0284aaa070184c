"""All connections to the side port: how many there may be, and who makes room.

Knows what each is at, and that some become WebSockets.
"""

from itertools import chain
from typing import Any

from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocolNegotiationFactory,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import SERVICE_UNAVAILABLE
from twisted.web.server import Site
from zope.interface import implementer, noLongerProvides

from alphapulse_relay.descriptors import WEB_CONNECTIONS_MAX
from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.farewell import close_soon, identify_peer
from alphapulse_relay.hub.peer import Refusal
from alphapulse_relay.web.channel import Channel, Phase, plain_answer


class Connection(ProtocolWrapper):
    """A connection, whichever protocol it has come to speak."""

    @property
    def phase(self) -> Phase | None:
        """What it is at; None for a WebSocket."""
        protocol = self.wrappedProtocol
        return protocol.phase if isinstance(protocol, Channel) else None

    def connectionMade(self) -> None:
        """Pass for a plain transport: autobahn takes none but Twisted's own for one with TLS."""
        if ISSLTransport.providedBy(self):
            noLongerProvides(self, ISSLTransport)


@implementer(IProtocolNegotiationFactory)
class Connections(WrappingFactory[Any]):
    """Lets connections to a Site in, as long as there is room or can be made."""

    noisy = False
    protocol = Connection

    def __init__(
        self, site: Site, hub: SignalRelayFactory, most: int = WEB_CONNECTIONS_MAX
    ) -> None:
        super().__init__(site)
        self._hub = hub
        self.most = most
        """Connections at a time."""

    def logPrefix(self) -> str:
        """Return what the log calls the port: by what it serves."""
        return str(self.wrappedFactory.logPrefix())

    def acceptableProtocols(self) -> list[bytes]:
        """Return what may be spoken over TLS (ALPN): the channel knows no other."""
        return [b"http/1.1"]

    def buildProtocol(self, addr: Any) -> Any:
        """Return what serves a new connection, or refuses it."""
        if len(self.protocols) >= self.most and not self._make_room():
            return _Full(self._hub)
        return super().buildProtocol(addr)

    def unregisterProtocol(self, p: Connection) -> None:
        """Take note that a connection is gone, or as good as gone."""
        self.protocols.pop(p, None)

    def _make_room(self) -> bool:
        """End the oldest connection that has sent no request, or else waits for a further one."""
        fresh = (each for each in self.protocols if each.phase is Phase.FRESH)
        idle = (each for each in self.protocols if each.phase is Phase.IDLE)
        victim = next(chain(fresh, idle), None)
        if victim is None:
            return False
        self.unregisterProtocol(victim)
        victim.wrappedProtocol.make_room()
        return True


class _Full(Protocol):
    """Tells a connection that there is no room, and closes it."""

    _last_call: IDelayedCall

    def __init__(self, hub: SignalRelayFactory) -> None:
        self._hub = hub

    def connectionMade(self) -> None:
        """Answer before anything is asked."""
        reason = Refusal.TOO_MANY_WEB_CONNECTIONS
        self._hub.report.refused(identify_peer(self._hub, self.transport), reason)
        text = "the side port has as many connections as it takes: try again later"
        farewell = plain_answer(SERVICE_UNAVAILABLE, text)
        self._last_call = close_soon(self.transport, farewell, self._hub.clock)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Forget the connection."""
        if self._last_call.active():
            self._last_call.cancel()
