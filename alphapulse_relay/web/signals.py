"""``/signals``: WebSockets as peers of the hub.

Knows requests and how often browsers are served; what they are sent the hub knows.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, cast
from urllib.parse import parse_qs

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.web.http import BAD_REQUEST, FORBIDDEN, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import Request

from alphapulse_relay.hub.account import RefusedError as NotAdmittedError
from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.peer import Identity, Refusal, identify
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.web.access import Access, given_tokens
from alphapulse_relay.web.frames import Frames
from alphapulse_relay.web.pages import Notice
from alphapulse_relay.web.peer import WebSocketPeer
from alphapulse_relay.web.query import Query, parse_query
from alphapulse_relay.web.websocket import SignalsProtocol, accept_deflate

SERVE_SECONDS = 0.01
"""Between two looks at what there is for WebSockets: faster than screens are drawn."""
LOOK_SECONDS = 0.003
"""How long WebSockets are served in one such look; the rest are first in the next."""
HEAR_SECONDS = 0.002
"""How long those are heard in one that have sent many frames at once."""
WEBSOCKETS_MAX = 200
"""WebSockets at a time: each takes some microseconds in every such look."""
PING_SECONDS = 20
"""Between pings, and as long for the answer: a machine that is gone is noticed within 40 s."""
HANDSHAKE_SECONDS = 10
"""For the upgrade; what comes before it is the side port's business."""
CLOSE_SECONDS = 2
"""For the other side's answer when a WebSocket is closed."""
WORDS_MAX = 64 * 1024
"""Bytes in a frame, and in a message of several, of who may only speak to the relay."""
PROGRAM_MAX = 40
"""Characters that are kept of what a program calls itself."""
_BROWSER = re.compile(r"(?:Edg|OPR|Firefox|Chrome|Version)/[0-9]+")
"""The first of these that fits: each browser also names those that it wants to be taken for."""


@dataclass(frozen=True)
class Visitor:
    """Who asks for a WebSocket, and for what."""

    identity: Identity
    query: Query
    may_publish: bool
    tokens: tuple[str, ...] = field(default=(), repr=False)  # secrets


class Signals(WebSocketServerFactory):
    """All WebSockets of a hub."""

    protocol: Any = SignalsProtocol

    def __init__(self, hub: SignalRelayFactory, clock: Callable[[], float] = perf_counter) -> None:
        super().__init__(reactor=hub.clock, server=None)
        self.hub = hub
        self.frames = Frames(SignalTable.builtin())
        self._clock = clock
        self._peers: deque[WebSocketPeer] = deque()
        self._unheard: deque[SignalsProtocol] = deque()
        self._next_look: IDelayedCall | None = None
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            maxFramePayloadSize=WORDS_MAX,
            maxMessagePayloadSize=WORDS_MAX,
            failByDrop=False,
            openHandshakeTimeout=HANDSHAKE_SECONDS,
            closeHandshakeTimeout=CLOSE_SECONDS,
            perMessageCompressionAccept=accept_deflate,
            autoPingInterval=PING_SECONDS,
            autoPingTimeout=PING_SECONDS,
            autoPingRestartOnAnyTraffic=False,  # or who sends pings itself need not answer
            allowedOrigins=["*"],  # looked at before, in a way that tells and counts
            allowNullOrigin=True,
        )

    @property
    def full(self) -> bool:
        """Whether there are as many WebSockets as may be."""
        return len(self._peers) >= WEBSOCKETS_MAX

    def opened(self, peer: WebSocketPeer) -> None:
        """Serve a peer from now on."""
        self._peers.append(peer)
        if self._next_look is None:
            self._look_later()

    def closed(self, peer: WebSocketPeer) -> None:
        """Serve a peer no longer."""
        if peer in self._peers:  # not where it failed as it came
            self._peers.remove(peer)
        if not self._peers and self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _look_later(self) -> None:
        self._next_look = self.hub.clock.callLater(SERVE_SECONDS, self._look)

    def wait_for_turn(self, protocol: SignalsProtocol) -> None:
        """Have a WebSocket that has sent much at once go on in a later turn."""
        self._unheard.append(protocol)

    def _look(self) -> None:
        """Hear those that wait, then serve all, each as far as there is time."""
        self._look_later()
        self.frames.next_turn()
        self._take_turns(self._unheard, self._hear, HEAR_SECONDS)
        self._take_turns(self._peers, self._serve, LOOK_SECONDS)

    def _take_turns(self, waiting: deque[Any], serve: Callable[[], None], seconds: float) -> None:
        """Serve those that wait, the first ones first, until all were or the time is over."""
        until = self._clock() + seconds
        for _ in range(len(waiting)):
            if waiting:  # serving one may end another
                serve()
            if self._clock() >= until:
                break

    def _hear(self) -> None:
        self._unheard.popleft().go_on()

    def _serve(self) -> None:
        self._peers.rotate(-1)
        peer = self._peers[-1]
        if peer not in self.hub.turns:  # that has its turn
            peer.look()


class Invitation:
    """Makes the protocol for one visitor."""

    def __init__(self, signals: Signals, visitor: Visitor) -> None:
        self._signals = signals
        self._visitor = visitor
        self._protocol: Any = None

    def buildProtocol(self, address: IAddress) -> SignalsProtocol:
        """Return the protocol."""
        protocol: Any = self._signals.buildProtocol(address)
        self._protocol = protocol
        protocol.visitor = self._visitor
        if self._visitor.may_publish:
            largest = max(self._signals.hub.rules.max_message, WORDS_MAX)
            protocol.maxFramePayloadSize = protocol.maxMessagePayloadSize = largest
        return cast(SignalsProtocol, protocol)

    def go_on(self, data: bytes) -> None:
        """Deal with what has come behind the request, without waiting for the answer."""
        if data and self._protocol is not None:
            self._protocol.dataReceived(data)


def build_signals(hub: SignalRelayFactory, access: Access) -> Resource:
    """Return what answers at ``/signals``."""
    return SignalsResource(Signals(hub), access)


class RefusedError(Exception):
    """A request that is not answered with a WebSocket; ``str()`` says why, in one line."""

    def __init__(self, status: int, reason: Refusal, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


class SignalsResource(Resource):
    """Takes a request for a WebSocket over, if it may be and is understood."""

    isLeaf = True

    def __init__(self, signals: Signals, access: Access) -> None:
        super().__init__()
        self._signals = signals
        self._access = access

    def render(self, request: Request) -> Any:
        """Answer with a WebSocket, or a line that says why not."""
        hub = self._signals.hub
        identity = identity_of(hub, request)
        try:
            query = self._admitted(request)
            self._let_in(identity, tokens := tuple(given_tokens(request)))
        except RefusedError as error:
            hub.report.refused(identity, error.reason)
            return Notice(error.status, str(error)).render(request)
        invitation = Invitation(
            self._signals,
            Visitor(identity, query, self._access.may_publish(request), tokens),
        )
        channel: Any = request.channel
        answer = WebSocketResource(invitation).render(request)
        invitation.go_on(channel.clearLineBuffer())
        return answer

    def _let_in(self, identity: Identity, tokens: tuple[str, ...]) -> None:
        """Ask the access rules. Raises :class:`RefusedError`."""
        try:
            self._signals.hub.accounts.admit(identity, tokens)
        except NotAdmittedError as error:
            raise RefusedError(FORBIDDEN, error.reason, str(error)) from error

    def _admitted(self, request: Request) -> Query:
        """Return what is asked for. Raises :class:`RefusedError`."""
        if _values(request, "upgrade").lower() != "websocket":
            raise RefusedError(BAD_REQUEST, Refusal.REQUEST, "only a WebSocket is to be had")
        if request.clientproto != b"HTTP/1.1":
            raise RefusedError(BAD_REQUEST, Refusal.REQUEST, "a WebSocket takes HTTP/1.1")
        if self._signals.hub.drain.begun:
            raise RefusedError(SERVICE_UNAVAILABLE, Refusal.LEAVING, "the relay is leaving")
        if self._signals.hub.full:
            raise RefusedError(SERVICE_UNAVAILABLE, Refusal.TOO_MANY_PEERS, "too many peers")
        if self._signals.full:
            raise RefusedError(
                SERVICE_UNAVAILABLE, Refusal.TOO_MANY_WEB_CONNECTIONS, "too many WebSockets"
            )
        _, _, query = request.uri.partition(b"?")
        try:
            return parse_query(parse_qs(query.decode("latin-1"), keep_blank_values=True))
        except ValueError as error:
            raise RefusedError(BAD_REQUEST, Refusal.REQUEST, str(error)) from error


def identity_of(hub: SignalRelayFactory, request: Request) -> Identity:
    """Return who asks: its address, and what it calls itself."""
    channel: Any = request.channel
    handle = getattr(channel.transport, "getHandle", lambda: None)()
    who = identify(hub.next_number(), handle, channel.getPeer())
    program = program_of(_values(request, "user-agent")) or who.program
    return replace(who, transport="websocket", program=program)


def program_of(agent: str) -> str | None:
    """Return which browser a User-Agent header tells of, or what another program says there."""
    browser = _BROWSER.search(agent)
    text = browser[0] if browser else agent
    return "".join(char for char in text if char.isprintable())[:PROGRAM_MAX] or None


def _values(request: Request, name: str) -> str:
    values = request.requestHeaders.getRawHeaders(name.encode(), [])
    return b", ".join(values).decode("latin-1")
