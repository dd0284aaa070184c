"""How a connection is parted from, be it a peer or one that is refused at once.

Knows the last bytes and how long they may take; why it ends, others decide.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from alphapulse_relay.hub.outlet import IOutlet
from alphapulse_relay.hub.peer import Identity, Refusal, identify
from alphapulse_relay.protocol_v2.control import ErrorCode, build_error

if TYPE_CHECKING:
    from alphapulse_relay.hub.factory import SignalRelayFactory

FAREWELL_SECONDS = 5.0
"""How long an ordinary transport may take to send its last bytes."""


class Refuser(Protocol):
    """Tells a connection why it is not taken, and closes it."""

    transport: Any

    def __init__(self, factory: SignalRelayFactory, reason: Refusal) -> None:
        self._factory = factory
        self._reason = reason

    def connectionMade(self) -> None:
        """Send an Error and close."""
        identity = identify_peer(self._factory, self.transport)
        self._last_call = refuse(self._factory, self.transport, identity, self._reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Forget the connection."""
        if self._last_call.active():
            self._last_call.cancel()


def identify_peer(factory: SignalRelayFactory, transport: Any) -> Identity:
    """Give the other end of a transport a number, and tell who it is."""
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    return identify(factory.next_number(), handle, transport.getPeer())


def refuse(
    factory: SignalRelayFactory,
    transport: Any,
    identity: Identity,
    reason: Refusal,
    hint: str = "",
) -> IDelayedCall:
    """Count a connection that is not taken, tell it why, and close it as :func:`close_soon`."""
    factory.report.refused(identity, reason)
    code = ErrorCode.FORBIDDEN if reason is Refusal.FORBIDDEN else ErrorCode.TOO_MANY_PEERS
    text = f"refused: {reason}: {hint}" if hint else f"refused: {reason}"
    return close_soon(transport, build_farewell(code, text), factory.clock)


def close_soon(transport: Any, farewell: bytes, clock: IReactorTime) -> IDelayedCall:
    """Close a connection with some last bytes; who does not take them is cut after a while.

    Returns that last call, to be cancelled when the connection is gone.
    """
    IOutlet(transport).close(farewell)
    return clock.callLater(FAREWELL_SECONDS, transport.abortConnection)


def build_farewell(code: ErrorCode, text: str) -> bytes:
    """Return an Error message made now."""
    return build_error(code, text, timestamp=time.time_ns())
