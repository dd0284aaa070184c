"""Browsers of a hub on a clock, by a WebSocket client that is not ours."""

import json
import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from alphapulse_relay.hub.peer import Identity
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Domain
from alphapulse_relay.web.query import parse_query
from alphapulse_relay.web.signals import SERVE_SECONDS, Invitation, Signals, Visitor
from tests.hub.fakes import Hub, Ordinary

ADDRESS = IPv4Address("TCP", "127.0.0.1", 50_000)


class Browser:
    """One WebSocket, open; ``room`` is how many bytes its socket takes.

    ``offers`` are for compression in another way than ``deflate`` does.
    """

    def __init__(
        self,
        signals: Signals,
        query: str = "",
        *,
        publish: bool = False,
        deflate: bool = False,
        offers: Sequence[ClientPerMessageDeflateFactory] = (),
        room: float = math.inf,
    ) -> None:
        number = signals.hub.next_number()
        identity = Identity(number, "websocket", address="127.0.0.1:50000", program="Chrome/156")
        visitor = Visitor(identity, parse_query(parse_qs(query)), publish)
        self.protocol: Any = Invitation(signals, visitor).buildProtocol(ADDRESS)
        self.transport = Ordinary(peerAddress=ADDRESS)
        self.transport.protocol = self.protocol
        extensions = [*offers, *([ClientPerMessageDeflateFactory()] if deflate else [])]
        self.client: Any = ClientProtocol(
            parse_uri("ws://localhost/signals"),
            extensions=extensions or None,
            subprotocols=["signal-relay"],  # type: ignore[list-item]
            max_size=None,
        )
        self.frames: list[Frame] = []
        self.response: Response | None = None
        self._read = 0
        self._lost = False
        self.protocol.makeConnection(self.transport)
        self.client.send_request(self.client.connect())
        self.transport.room = room
        self.exchange()

    def exchange(self) -> None:
        """Have each side take what the other has sent."""
        for data in self.client.data_to_send():
            if data:
                self.protocol.dataReceived(data)
        data = bytes(self.transport.value())[self._read :]
        self._read += len(data)
        self.client.receive_data(data)
        for event in self.client.events_received():
            if isinstance(event, Frame):
                self.frames.append(event)
            else:
                self.response = event

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.client.send_binary(frame)
            self.exchange()

    @property
    def received(self) -> list[bytes]:
        """The messages of all binary frames, in order."""
        self.exchange()
        data = [frame.data for frame in self.frames if frame.opcode is Opcode.BINARY]
        return [message for part in data for message in split(bytes(part))]

    @property
    def signals(self) -> list[bytes]:
        """What others have published."""
        return [each for each in self.received if each[4] != Domain.SYSTEM]

    @property
    def words(self) -> list[bytes]:
        """What the relay has said."""
        return [each for each in self.received if each[4] == Domain.SYSTEM]

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The objects of all text frames, in order."""
        self.exchange()
        texts = [frame.data for frame in self.frames if frame.opcode is Opcode.TEXT]
        return [document for text in texts for document in json.loads(bytes(text))]

    @property
    def close(self) -> Close | None:
        """What the relay has closed with."""
        self.exchange()
        closes = [frame.data for frame in self.frames if frame.opcode is Opcode.CLOSE]
        return Close.parse(bytes(closes[0])) if closes else None

    @property
    def peer(self) -> Any:
        return self.protocol.hub_peer

    def lose(self, reason: type[Exception] = ConnectionDone) -> None:
        """Have the connection end, if it has not."""
        if not self._lost:
            self._lost = True
            self.protocol.connectionLost(Failure(reason()))

    def finish(self) -> None:
        self.lose(ConnectionAborted if self.transport.disconnected else ConnectionDone)


class Browsers:
    """A hub with WebSockets."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.signals = Signals(hub.factory, clock=lambda: 0.0)  # so that turns have no end
        self.all: list[Browser] = []

    def open(self, query: str = "", **how: Any) -> Browser:
        self.all.append(Browser(self.signals, query, **how))
        return self.all[-1]

    def serve(self, turns: int = 1) -> None:
        """Let that much time pass that each is served so often."""
        for _ in range(turns):
            self.hub.clock.advance(SERVE_SECONDS)

    def finish(self) -> None:
        for browser in self.all:
            browser.finish()
