"""A WebSocket as a transport of the hub, and the protocol that speaks it.

Glue between autobahn, which knows RFC 6455, and :class:`~alphapulse_relay.web.peer.WebSocketPeer`,
which knows the hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from alphapulse_relay.hub.delivery import Delivery
from alphapulse_relay.hub.outlet import OrdinaryOutlet
from alphapulse_relay.hub.peer import Ending, Refusal, State
from alphapulse_relay.web.frames import Form
from alphapulse_relay.web.peer import WebSocketPeer

if TYPE_CHECKING:
    from alphapulse_relay.web.signals import Signals, Visitor

SUBPROTOCOL = "signal-relay"
"""What a browser offers beside a token, as it must be answered with one that it offered."""
FRAMES_PER_TURN = 64
"""Frames of one WebSocket that are dealt with before it is the others' turn: a millisecond's
work."""
PIECES_MAX = 10_000
"""Frames of one message: each is kept until the last has come."""
NORMAL, GOING_AWAY, UNSUPPORTED, POLICY, TOO_BIG, INTERNAL = 1000, 1001, 1003, 1008, 1009, 1011
"""Close codes (RFC 6455, section 7.4.1)."""
CLOSE_CODES = {
    Ending.FINISHED: NORMAL,
    Ending.CLOSED: NORMAL,
    Ending.SHUTDOWN: GOING_AWAY,
    Ending.CUT: GOING_AWAY,
    Ending.OVERSIZED: TOO_BIG,
    Ending.FAULT: INTERNAL,
    Ending.DAMAGED: INTERNAL,
    Ending.UNDURABLE: INTERNAL,
}
"""What a WebSocket is closed with, where it is not for what the peer did."""
CONTROL_MAX = 125
"""Bytes that a control frame may have (RFC 6455, section 5.5)."""


class WebSocketTransport(OrdinaryOutlet):
    """What a peer of the hub sends by: its messages go out as frames.

    ``form`` is which kind of frames.
    """

    def __init__(self, socket: SignalsProtocol, form: Form) -> None:
        self.reason = Ending.CLOSED
        """What the WebSocket is to be closed for."""
        self.starved = False
        """Whether it could not send as the turn was over; :meth:`go_on` then."""
        self.held = False
        """Whether what the peer sends is left unread."""
        super().__init__(socket.transport)
        self._socket = socket
        self._tcp = socket.transport
        self._form = form
        self._delivery: Any = None

    # A transport's

    def registerProducer(self, delivery: Delivery, streaming: bool) -> None:
        """Have the peer told when the socket is full, and when there is room again."""
        self._delivery = delivery
        # The channel of HTTP is still registered.
        self._tcp.unregisterProducer()
        self._tcp.registerProducer(delivery, streaming)

    def pauseProducing(self) -> None:
        """Leave what the peer sends unread."""
        self.held = True
        self._tcp.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on, unless what has come is not dealt with yet."""
        self.held = False
        if not self._socket.is_waiting:
            self._tcp.resumeProducing()

    def getPeer(self) -> object:
        """Return the address of the other end."""
        return self._tcp.getPeer()

    def abortConnection(self) -> None:
        """Cut the connection, unless it is closing: then that has its own time."""
        if not self._socket.is_closing:
            self._socket.dropConnection(abort=True)

    def answer_ping(self) -> None:
        """Answer the last ping, if it waits for that."""
        self._socket.answer_ping()

    # An outlet's

    def send(self, data: memoryview) -> int:
        """Send some of the whole messages as one frame; return how many bytes they have."""
        frames = self._socket.factory.frames
        if not self._socket.is_ready or (self._form.costly and frames.exhausted):
            self.starved = True
            self._delivery.pauseProducing()
            return 0
        frame, size = frames.frame(data, self._form, self._delivery.peer.cursor.offer)
        self._tcp.write(frame)
        return int(size)

    def go_on(self) -> None:
        """Send again, in a new turn."""
        self.starved = False
        self._delivery.resumeProducing()

    def close(self, farewell: bytes) -> None:
        """Close with some last messages, and the reason."""
        socket = self._socket
        if not socket.is_ready:
            return
        if farewell:
            frame, _ = socket.factory.frames.frame(memoryview(farewell), self._form, None)
            self._tcp.write(frame)
        # Nothing more is taken from the peer, but that it answers must be seen.
        self.resumeProducing()
        code = CLOSE_CODES.get(self.reason, POLICY)
        socket.sendCloseFrame(code=code, reasonUtf8=self.reason.value.encode())


class SignalsProtocol(WebSocketServerProtocol):
    """One WebSocket of ``/signals``: the ``visitor`` as a peer of the hub."""

    factory: Signals
    visitor: Visitor
    transport: Any
    hub_peer: WebSocketPeer | None = None
    current_frame: Any
    autoPingTimeout: int
    closeHandshakeTimeout: float
    maxFramePayloadSize: int
    maxMessagePayloadSize: int
    _isMessageCompressed: bool
    _perMessageCompress: Any
    is_waiting = False
    """Whether it goes on with what has come when it is its turn."""
    _frames = 0
    _pieces = 0
    _unresponsive = False
    _ping: bytes | None = None
    _last_call: IDelayedCall | None = None

    @property
    def is_ready(self) -> bool:
        """Whether messages may be sent."""
        return bool(self.state == self.STATE_OPEN)

    @property
    def is_closing(self) -> bool:
        """Whether one side has said that it closes."""
        return bool(self.state == self.STATE_CLOSING)

    def onConnect(self, request: ConnectionRequest) -> str | None:
        """Take the subprotocol if it is offered."""
        return SUBPROTOCOL if SUBPROTOCOL in request.protocols else None

    def _parseExtensionsHeader(self, header: str, removeQuotes: bool = True) -> list[Any]:
        """Return the offers that can be taken; others are declined (RFC 7692, section 7)."""
        offers = super()._parseExtensionsHeader(header, removeQuotes)
        return [offer for offer in offers if is_understood(*offer)]

    def failHandshake(self, _reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Count a request that is none for a WebSocket, and say why."""
        self.factory.hub.report.refused(self.visitor.identity, Refusal.REQUEST)
        # Its own words repeat what was sent.
        super().failHandshake("not a request for a WebSocket", code, responseHeaders)

    def onOpen(self) -> None:
        """Join the hub."""
        deflated = self._perMessageCompress is not None
        transport = WebSocketTransport(self, Form(self.visitor.query.format, deflated))
        self.hub_peer = WebSocketPeer(self.factory.hub, self.visitor)
        self.hub_peer.makeConnection(transport)
        self.factory.opened(self.hub_peer)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Take whole messages, or the beginning of one."""
        self._renew_inflater()
        if not isBinary:
            self._fail_connection(UNSUPPORTED, "text is not understood")
        elif self.hub_peer is not None:
            self.hub_peer.dataReceived(payload)

    def _renew_inflater(self) -> None:
        """Begin anew after a last block (RFC 7692, 7.2.3.4): zlib would drop what follows."""
        compression = self._perMessageCompress
        inflater = compression and compression._decompressor
        if inflater is not None and inflater.eof:
            compression._decompressor = None

    def onPing(self, payload: bytes) -> None:
        """Answer, or note to do so: who does not read has only its last ping answered.

        RFC 6455, section 5.5.3, lets one do so.
        """
        self._ping = payload
        if self.hub_peer is not None and self.hub_peer.state is State.LIVE:
            self.answer_ping()

    def answer_ping(self) -> None:
        """Answer the last ping, if that has not been done."""
        if self._ping is not None:
            payload, self._ping = self._ping, None
            self.sendPong(payload)

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        """Answer, and leave the hub: nothing more can be sent."""
        over = super().onCloseFrame(code, reasonRaw)
        self._leave()
        return bool(over)

    def _fail_connection(self, code: int = INTERNAL, reason: str = "") -> None:
        """Close for what the peer did wrong, and leave the hub."""
        name = Ending.OVERSIZED if code == TOO_BIG else Ending.VIOLATION
        super()._fail_connection(code, f"{name.value}: {reason}")
        self._leave()

    def onAutoPingTimeout(self) -> None:
        """Give the peer up, unless it is the relay that does not read the answer."""
        held = self.hub_peer is not None and self.hub_peer.transport.held
        if held or self.is_waiting:
            timer = self.factory._batched_timer
            self.autoPingTimeoutCall = timer.call_later(
                self.autoPingTimeout, self.onAutoPingTimeout
            )
            return
        self._unresponsive = True
        super().onAutoPingTimeout()

    def dataReceived(self, data: bytes) -> None:
        """Deal with what has come, as much as one may in a turn."""
        if self.is_waiting:
            self.data += data
        else:
            self._frames = 0
            super().dataReceived(data)

    def processData(self) -> bool:
        """Deal with the next frame, or a part of it, if it is still this one's turn."""
        if self.current_frame is not None or self._frames < FRAMES_PER_TURN:
            return bool(super().processData())
        if not self.is_waiting:
            self.is_waiting = True
            self.transport.pauseProducing()
            self.factory.wait_for_turn(self)
        return False

    def go_on(self) -> None:
        """Deal with more of what has come."""
        self.is_waiting, self._frames = False, 0
        self.consumeData()
        held = self.hub_peer is not None and self.hub_peer.transport.held
        if not (self.is_waiting or held or self.state == self.STATE_CLOSED):
            self.transport.resumeProducing()

    def onFrameBegin(self) -> None:
        """Count frames, and the pieces of a message: each costs the same however small."""
        self._frames += 1
        self._pieces = self._pieces + 1 if self.inside_message else 0
        super().onFrameBegin()
        if self._pieces > PIECES_MAX and not self.failedByMe:
            self.wasMaxMessagePayloadSizeExceeded = True
            self._fail_connection(TOO_BIG, f"a message in more than {PIECES_MAX} pieces")

    def onFrameData(self, payload: bytes) -> bool | None:
        """Take some of a frame; once the connection has failed, only of what may be a Close."""
        if self.failedByMe:
            self._isMessageCompressed = self.utf8validateIncomingCurrentMessage = False
            if self.current_frame.length > CONTROL_MAX:
                return None  # it would be kept, however long it is
        return super().onFrameData(payload)

    def dropConnection(self, abort: bool = False) -> None:
        """Drop the connection, if need be with what is still to be sent.

        Not so where the peer has closed: the answer goes out, if the peer takes it soon.
        """
        if self.state == self.STATE_CLOSED:
            return
        cut = abort and not self.wasClean
        super().dropConnection(cut)
        if not cut:
            self._last_call = self.factory.hub.clock.callLater(
                self.closeHandshakeTimeout, self.transport.abortConnection
            )

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the hub, for the reason that is known best here."""
        super().connectionLost(reason)
        if self._last_call is not None and self._last_call.active():
            self._last_call.cancel()
        if self.hub_peer is not None:
            self._leave()
            self.hub_peer.connectionLost(reason)
            self.factory.closed(self.hub_peer)

    def _leave(self) -> None:
        """Leave the hub, if it is known here why."""
        ending = self._ending()
        if self.hub_peer is not None and ending is not None:
            self.hub_peer.end(ending)

    def _ending(self) -> Ending | None:
        """Return why the WebSocket has ended; None if the connection tells that best."""
        if self._unresponsive:
            return Ending.UNRESPONSIVE
        if self.wasMaxFramePayloadSizeExceeded or self.wasMaxMessagePayloadSizeExceeded:
            return Ending.OVERSIZED
        if self.failedByMe:
            return Ending.VIOLATION
        return Ending.CLOSED if self.wasClean else None


def is_understood(extension: str, parameters: dict[str, Any]) -> bool:
    """Tell whether that is an offer of compression whose parameters are known and valid."""
    if extension != PerMessageDeflateOffer.EXTENSION_NAME:
        return False
    try:
        PerMessageDeflateOffer.parse(parameters)
    except Exception:  # autobahn raises just that
        return False
    return True


def accept_deflate(offers: list[Any]) -> PerMessageDeflateOfferAccept | None:
    """Accept compression where a peer offers it without asking for a smaller window.

    Frames are compressed once for all, with the largest window (RFC 7692, section 7.1.2).
    """
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer) and not offer.request_max_window_bits:
            return PerMessageDeflateOfferAccept(offer)
    return None
