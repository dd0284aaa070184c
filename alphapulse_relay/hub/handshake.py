"""TLS connections on their way in: nobody is a peer before the handshake is done.

Knows the handshake and how it may fail; who may do what once it is done, it does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL.crypto import X509
from OpenSSL.SSL import Connection, X509VerificationCodes
from OpenSSL.SSL import Error as OpenSSLError
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

import alphapulse_relay.hub.tls_outlet  # noqa: F401 - the outlet of those that come in
from alphapulse_relay.hub.farewell import identify_peer
from alphapulse_relay.hub.peer import Refusal

if TYPE_CHECKING:
    from alphapulse_relay.hub.factory import SignalRelayFactory

HANDSHAKE_SECONDS = 10.0
"""How long a handshake may take: a few round trips, however far."""
HANDSHAKES_MAX = 128
"""How many may be under way at a port. Beyond, whoever began first goes, who has had most time: so
those that never end one neither use up the descriptors nor keep others out."""
_FAULTS = {
    code: name.removeprefix("ERR_").lower().replace("_", " ")
    for name, code in vars(X509VerificationCodes).items()
    if name.startswith("ERR_")
}
"""What OpenSSL may find wrong with a certificate (X509_verify_cert_error_string(3)), in words."""


class HandshakeFactory(ServerFactory):
    """Has connections join the hub once their handshake is done."""

    noisy = False

    def __init__(self, hub: SignalRelayFactory) -> None:
        self.hub = hub
        self._under_way: dict[Handshake, None] = {}  # in the order in which they began

    def logPrefix(self) -> str:
        """Return what the log calls a port: the same as without TLS."""
        return type(self.hub).__name__

    def buildProtocol(self, addr: IAddress | None) -> Handshake:
        """Return what waits for a handshake."""
        return Handshake(self, addr)

    def stopFactory(self) -> None:
        """Let nobody in any more: the port is closed."""
        for handshake in tuple(self._under_way):
            handshake.refuse("the relay is leaving")

    def began(self, handshake: Handshake) -> None:
        """Take note of one more; the oldest goes if they are too many."""
        self._under_way[handshake] = None
        if len(self._under_way) > HANDSHAKES_MAX:
            next(iter(self._under_way)).refuse("too many handshakes are under way")

    def ended(self, handshake: Handshake) -> None:
        """Take note that one is done, or has failed."""
        del self._under_way[handshake]


@implementer(IHandshakeListener)
class Handshake(Protocol):
    """A connection whose handshake is under way."""

    transport: Any

    def __init__(self, factory: HandshakeFactory, address: IAddress | None) -> None:
        self._factory = factory
        self._hub = factory.hub
        self._address = address
        self._under_way = True
        self._fault = ""  # of the other end's certificate

    def connectionMade(self) -> None:
        """Wait for the handshake, but not for ever."""
        # A signal must not wait for the one before it to be acknowledged (tcp(7)).
        self.transport.setTcpNoDelay(True)
        tls: Connection = self.transport.getHandle()
        tls.set_verify(tls.get_context().get_verify_mode(), self._look_at_verdict)
        self._limit = self._hub.clock.callLater(
            HANDSHAKE_SECONDS, self.refuse, f"not done in {HANDSHAKE_SECONDS:g} s"
        )
        self._factory.began(self)

    def handshakeCompleted(self) -> None:
        """Give the connection to the hub."""
        self._end()
        protocol = self._hub.buildProtocol(self._address)
        self.transport.wrappedProtocol = protocol
        protocol.makeConnection(self.transport)

    def refuse(self, why: str) -> None:
        """Cut a connection that does not come in."""
        self._refused(why)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take note of a handshake that has failed."""
        if self._under_way:
            self._refused(self._fault or _words(reason))

    def _refused(self, why: str) -> None:
        self._end()
        self._hub.refused(identify_peer(self._hub, self.transport), Refusal.TLS, why)

    def _end(self) -> None:
        self._under_way = False
        if self._limit.active():
            self._limit.cancel()
        self._factory.ended(self)

    def _look_at_verdict(
        self, _tls: Connection, _certificate: X509, fault: int, _depth: int, fine: int
    ) -> bool:
        """Keep what is wrong with a certificate: the error that follows does not tell."""
        if not fine:
            self._fault = _FAULTS.get(fault, f"certificate error {fault}")
        return bool(fine)


def _words(reason: Failure) -> str:
    """Tell why a handshake failed."""
    error = reason.value
    if isinstance(error, OpenSSLError) and error.args and error.args[0]:
        return str(error.args[0][-1][-1])
    return "the connection ended"
