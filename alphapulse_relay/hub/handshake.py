"""TLS connections on their way in: nobody is a peer before the handshake is done.

Knows the handshake and how it may fail; who may do what once it is done, it does not know. What
OpenSSL has to compute for it takes as long as forwarding hundreds of messages: that is done in a
thread, where nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from OpenSSL.crypto import X509
from OpenSSL.SSL import Connection, WantReadError, X509VerificationCodes
from OpenSSL.SSL import Error as OpenSSLError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

import alphapulse_relay.hub.tls_outlet  # noqa: F401 - the outlet of those that come in
from alphapulse_relay.hub.peer import Identity, Refusal
from alphapulse_relay.hub.worker import ThreadWorker, Worker

if TYPE_CHECKING:
    from alphapulse_relay.hub.factory import SignalRelayFactory
    from alphapulse_relay.hub.tls_port import TLSPort

HANDSHAKE_SECONDS = 10.0
"""How long a handshake may take: a few round trips, however far."""
HELLO_SECONDS = 2.0
"""How long its first word may take: clients speak first (RFC 8446, section 2), at once."""
STAY_SECONDS = 1.0
"""Who comes in and is still there then is no flood: another one may begin in its place. So desks
that come back after a restart need not wait for long."""
_READ_SIZE = 1 << 15
"""Bytes that are taken at once of what is to be sent: more than a step of the handshake makes."""
_FAULTS = {
    code: name.removeprefix("ERR_").lower().replace("_", " ")
    for name, code in vars(X509VerificationCodes).items()
    if name.startswith("ERR_")
}
"""What OpenSSL may find wrong with a certificate (X509_verify_cert_error_string(3)), in words."""


class HandshakeFactory(ServerFactory):
    """Has connections to a port join the hub once their handshake is done.

    ``context`` makes the TLS of each; it is what ``reactor.listenSSL`` takes.
    """

    noisy = False
    port: TLSPort
    """Where they are accepted."""

    def __init__(self, hub: SignalRelayFactory, context: Any, reactor: Any) -> None:
        self.hub = hub
        self.worker: Worker = ThreadWorker(reactor, "handshakes")
        self.tls = TLSMemoryBIOFactory(context, False, hub, reactor)
        self.connection_for: Callable[[Any], Connection] = self.tls._creatorCallable
        # What is wrapped has a connection by then: Twisted would begin a handshake of its own.
        self.tls._creatorCallable = attrgetter("shaken")
        self._under_way: set[Handshake] = set()

    def logPrefix(self) -> str:
        """Return what the log calls a port."""
        return f"{type(self.hub).__name__} (TLS)"

    def buildProtocol(self, addr: IAddress | None) -> Handshake:
        """Return what waits for a handshake."""
        return Handshake(self, addr)

    def stopFactory(self) -> None:
        """Let nobody in any more: the port is closed."""
        for handshake in tuple(self._under_way):
            handshake.refuse("the relay is leaving")
        self.worker.close()

    def began(self, handshake: Handshake) -> None:
        """Take note of one more."""
        self._under_way.add(handshake)
        self.port.take_turn()

    def ended(self, handshake: Handshake) -> None:
        """Take note that one is done, or has failed."""
        self._under_way.remove(handshake)
        if handshake.silent:
            self.port.give_turn_back()

    def stayed(self, connection: Any) -> None:
        """Look whether one that came in has stayed."""
        if connection.connected:
            self.port.give_turn_back()


class Handshake(Protocol):
    """A connection whose handshake is under way.

    Each step is a call of OpenSSL in a thread. Meanwhile nothing is read, and nothing else touches
    the connection's TLS.
    """

    transport: Any

    def __init__(self, factory: HandshakeFactory, address: IAddress | None) -> None:
        self._factory = factory
        self.factory = factory.tls  # which Twisted asks for what else it may speak
        self._hub = factory.hub
        self._address = address
        self._tls: Connection = factory.connection_for(self)
        self._tls.set_verify(self._tls.get_context().get_verify_mode(), self._look_at_verdict)
        self.silent = True
        """Whether the other end has said nothing yet, so that nothing was computed."""
        self._under_way = False
        self._fault = ""  # of the other end's certificate

    def connectionMade(self) -> None:
        """Wait for the handshake, but not for ever."""
        # A signal must not wait for the one before it to be acknowledged (tcp(7)).
        self.transport.setTcpNoDelay(True)
        self._limit = self._hub.clock.callLater(
            HELLO_SECONDS, self.refuse, f"nothing was said in {HELLO_SECONDS:g} s"
        )
        self._under_way = True
        self._factory.began(self)

    def dataReceived(self, data: bytes) -> None:
        """Take the next step; what comes meanwhile, be it the end, is read after it."""
        if self.silent:
            self.silent = False
            self._limit.cancel()
            self._limit = self._hub.clock.callLater(
                HANDSHAKE_SECONDS, self.refuse, f"not done in {HANDSHAKE_SECONDS:g} s"
            )
        self.transport.pauseProducing()
        self._factory.worker.submit(partial(shake, self._tls, data), self._stepped)

    def _stepped(self, step: Future[Shaken]) -> None:
        if not self._under_way:
            return
        shaken = step.result()
        self.transport.write(shaken.answer)
        self.transport.resumeProducing()
        if shaken.error is not None:
            self._end()
            self._refused(self._fault or shaken.error)
            self.transport.loseConnection()  # once it has been told why
        elif shaken.done:
            self._come_in()

    def _come_in(self) -> None:
        """Give the connection to the hub."""
        self._end()
        protocol = self._hub.buildProtocol(self._address)
        tls: Any = self._factory.tls.protocol(self._factory.tls, protocol, False)
        tls.shaken = self._tls
        self.transport.protocol = tls
        tls.makeConnection(self.transport)
        protocol.makeConnection(tls)
        tls._flushReceiveBIO()  # what has come with the last of the handshake
        self._hub.clock.callLater(STAY_SECONDS, self._factory.stayed, tls)

    def refuse(self, why: str) -> None:
        """Cut a connection that does not come in."""
        self._end()
        self._refused(why)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Take note of a handshake that has failed."""
        if self._under_way:
            self._end()
            self._refused("the connection ended")

    def _refused(self, why: str) -> None:
        peer = self.transport.getPeer()
        identity = Identity(self._hub.next_number(), "tls", address=f"{peer.host}:{peer.port}")
        self._hub.report.refused(identity, Refusal.TLS, why)

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


class Shaken(NamedTuple):
    """What a step has led to: bytes for the other end, and whether it was the last, or failed."""

    answer: bytes
    done: bool = False
    error: str | None = None


def shake(tls: Connection, data: bytes) -> Shaken:
    """Take the next step of a handshake with bytes that came from the other end."""
    try:
        tls.bio_write(data)
        tls.do_handshake()
    except WantReadError:
        return Shaken(_answer(tls))
    except OpenSSLError as error:
        return Shaken(_answer(tls), error=_words(error))
    return Shaken(_answer(tls), done=True)


def _answer(tls: Connection) -> bytes:
    try:
        return tls.bio_read(_READ_SIZE)
    except WantReadError:
        return b""


def _words(error: OpenSSLError) -> str:
    """Tell why a handshake failed."""
    return str(error.args[0][-1][-1]) if error.args and error.args[0] else "the connection ended"
