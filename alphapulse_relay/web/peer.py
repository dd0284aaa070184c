"""A WebSocket as a peer of the hub: as any other, but for when it is served.

It looks at the log by itself, some times a second, instead of being woken for each run: so that
browsers cost those who trade nothing, however much flows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alphapulse_relay.hub.account import RefusedError
from alphapulse_relay.hub.delivery import Delivery
from alphapulse_relay.hub.dialogue import NOTHING, RequestError
from alphapulse_relay.hub.farewell import build_farewell
from alphapulse_relay.hub.framed import FramedCursor
from alphapulse_relay.hub.peer import Ending, Identity, State
from alphapulse_relay.hub.protocol import SignalRelayProtocol
from alphapulse_relay.protocol_v2.control import Subscribe
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.framing import Run

if TYPE_CHECKING:
    from alphapulse_relay.hub.factory import SignalRelayFactory
    from alphapulse_relay.web.signals import Visitor

SAMPLE_SECONDS = 0.1
"""Between two samples: the eye does not follow more than ten pictures of numbers a second."""
_READ_ONLY = "this WebSocket may only read: see --web-publish"


class WebSocketDelivery(Delivery):
    """Sends to a browser; of what is live only the newest ``sample`` messages, if that is not 0."""

    def __init__(self, peer: WebSocketPeer, outlet: Any, sample: int) -> None:
        super().__init__(peer, outlet)
        self._sample = sample
        self._sampled_at = -math.inf
        self._sampled_to = 0  # the position up to which the sample was taken

    def has_taken(self, since: float) -> bool:  # noqa: ARG002
        """Return False: no publisher waits for a browser, which is moved on or catches up."""
        return False

    def resumeProducing(self) -> None:
        """Go on: there is room for more, first of all for the answer to a ping."""
        self._outlet.answer_ping()
        super().resumeProducing()

    def deliver(self) -> None:
        """Send from the cursor on; of a live sample, now and then the newest."""
        cursor = self.peer.cursor
        if self._sample and isinstance(cursor, FramedCursor) and not cursor.replaying:
            now = self._factory.clock.seconds()
            if now - self._sampled_at >= SAMPLE_SECONDS:
                self._sampled_at, self._sampled_to = now, self.peer.log.head
                cursor.keep_newest(self._sample)
            elif cursor.position >= self._sampled_to:
                return
        super().deliver()


class WebSocketPeer(SignalRelayProtocol):
    """The hub's side of a WebSocket; subscribes to what the visitor's query asks for."""

    cursor_type = FramedCursor
    transport: Any

    def __init__(self, hub: SignalRelayFactory, visitor: Visitor) -> None:
        super().__init__(hub)
        self.tokens = visitor.tokens
        self._visitor = visitor

    def connectionMade(self) -> None:
        """Join the hub, and subscribe; if that cannot be, say why and close."""
        super().connectionMade()
        if self.ended:
            return
        try:
            self.dialogue().subscribe(self._wanted())
        except RequestError as error:
            self.end(Ending.REFUSED, build_farewell(error.code, str(error)))

    def _wanted(self) -> Subscribe:
        """Return what the query asks for: no messages where the visitor may only publish."""
        asked, account = self._visitor.query.asked, self.account
        if account is None or account.rule.subscribe or asked.types:
            return asked
        may_publish = self._visitor.may_publish and account.rule.may_publish
        return replace(asked, types=NOTHING) if may_publish else asked

    def _turn_away(self, error: RefusedError) -> None:
        """Tell the visitor that it is not let in, and close."""
        self.transport.reason = Ending.REFUSED
        super()._turn_away(error)

    def identify(self) -> Identity:
        """Return who asked for the WebSocket."""
        return self._visitor.identity

    def make_delivery(self) -> Delivery:
        """Return what sends to the browser."""
        return WebSocketDelivery(self, self.outlet, self._visitor.query.sample)

    @property
    def woken(self) -> bool:
        """Return False: it looks by itself."""
        return False

    def look(self) -> None:
        """Send what there is by now, as far as it can be."""
        if self.transport.starved:
            self.transport.go_on()
        elif self.state is State.LIVE and not self.cursor.at_head:
            self.factory.go_on(self)

    def runReceived(self, run: memoryview, messages: int, received_at: float) -> None:
        """Have the run sent to all others, if the visitor may publish."""
        if self._visitor.may_publish:
            super().runReceived(run, messages, received_at)
        else:
            error = WireError(Rejection.READ_ONLY, 0, _READ_ONLY)
            rejected = Run(0, len(run), 0, {Rejection.READ_ONLY: messages}, error, None)
            self.messagesRejected(rejected, self.stream_offset - len(run))

    def part(self, reason: Ending) -> None:
        """Close the WebSocket as the relay leaves; its last frame says so."""
        self.end(reason)

    def end(self, reason: Ending, farewell: bytes = b"") -> None:
        """Close the WebSocket for that reason."""
        self.transport.reason = reason
        if self.transport.starved:
            self.state = State.LIVE  # there is room, only not the time to make frames
        super().end(reason, farewell)
