"""What the tests of the hub share: messages, transports with as much room as a test says, a hub."""

import math
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from alphapulse_relay.hub.drain import DRAIN_INTERVAL
from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.outlet import IOutlet
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.protocol_v2.framing import Rules
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, build_message
from alphapulse_relay.protocol_v2.tlv import (
    EXTENDED_HEADER_SIZE,
    EXTENDED_MAX,
    STANDARD_HEADER_SIZE,
    build_tlv,
)

WINDOW = 8 * 128 * 1024
"""A small log: its segments just hold what is asked of a socket at once and a torn message."""
LARGEST_TLV = EXTENDED_HEADER_SIZE + EXTENDED_MAX
BROKEN = b"this is not a message, and long enough for a header"


def message(size: int = 64, number: int = 0, source: int = 20) -> bytes:
    """Return a valid message of ``size`` bytes that differs from those of other numbers."""
    payload = b""
    while (room := min(size - HEADER_SIZE - len(payload), LARGEST_TLV)) >= STANDARD_HEADER_SIZE:
        header = STANDARD_HEADER_SIZE if room <= 257 else EXTENDED_HEADER_SIZE
        value = number.to_bytes(4, "little") * (room // 4 + 1)
        payload += build_tlv(21, value[: room - header])
    payload += bytes(size - HEADER_SIZE - len(payload))
    return build_message(payload, source=source, sequence=number, timestamp=time.time_ns())


def messages(count: int, size: int = 64, first: int = 0, source: int = 20) -> list[bytes]:
    return [message(size, number, source) for number in range(first, first + count)]


def memory_log(
    window: int = WINDOW, forget: Callable[[int, int], None] = lambda start, stop: None
) -> Log:
    """Return an open log in memory."""
    log = Log(MemoryStorage(window), forget)
    log.open()
    return log


class Ordinary(StringTransport):
    """As any transport of Twisted: takes everything, and asks for a pause beyond its room."""

    room: float = math.inf
    unread = b""
    protocol: Any = None

    def write(self, data: bytes) -> None:
        assert not self.disconnected, "written to after abortConnection"
        super().write(data)
        self.room -= len(data)
        if self.room < 0 and self.producer is not None:
            self.producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def take(self, room: float = math.inf) -> None:
        """Make room, as when the other side reads."""
        self.room = room
        self.producer.resumeProducing()


@implementer(IOutlet)
class Pipe(Ordinary):
    """As a socket: takes what it has room for, and has unread bytes in it."""

    limit = 1 << 30
    """Bytes offered at once."""
    queue = 0
    """Bytes that the other side has not read yet."""
    gone = False
    """Whether the other side has closed, which was not told yet."""

    def send(self, data: memoryview) -> int:
        offered = data[: self.limit]
        sent = int(min(len(offered), self.room))
        self.write(bytes(offered[:sent]))
        self.queue += sent
        if sent < len(offered):
            self.producer.pauseProducing()
        return sent

    def queued(self) -> int:
        # With room for everything the other side reads at once.
        return 0 if math.isinf(self.room) else self.queue

    def room_means_read(self, given: int) -> bool:
        return True

    def descriptor(self) -> None:
        return None

    def took_less(self, *, gone: bool) -> None:
        raise AssertionError("nothing was sent past it")

    def pending(self) -> int:
        return len(self.unread)

    def hung_up(self) -> bool:
        return self.gone

    def take(self, room: float = math.inf) -> None:
        self.queue = 0
        super().take(room)

    def sip(self, length: int) -> None:
        """Have the other side read a little: not enough for the socket to say so."""
        self.queue -= length

    def read_rest(self) -> None:
        unread, self.unread = self.unread, b""
        self.protocol.dataReceived(unread)
        if not self.disconnecting:
            self.pauseProducing()

    def close(self, farewell: bytes) -> None:
        self.write(farewell)
        self.abortConnection()


class Client:
    """The other end of a connection to a hub."""

    def __init__(self, protocol: Any, transport: Ordinary) -> None:
        self.protocol = protocol
        self.transport = transport
        transport.protocol = protocol
        self.lost = False
        protocol.makeConnection(transport)

    @property
    def received(self) -> bytes:
        return bytes(self.transport.value())

    @property
    def closed(self) -> bool:
        return self.transport.disconnecting

    @property
    def held(self) -> bool:
        return bool(self.transport.producerState == "paused")

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.protocol.dataReceived(part)

    def take(self, room: float = math.inf) -> None:
        self.transport.take(room)

    def lose(self, reason: type[Exception] = ConnectionDone) -> None:
        """Have the transport tell that the connection is gone, in the order that Twisted does."""
        assert not self.lost
        self.lost = True
        if self.transport.producer is not None:
            self.transport.producer.stopProducing()
        self.protocol.connectionLost(Failure(reason()))


class Drain:
    """A hub that leaves, and what became of it."""

    def __init__(self, hub: "Hub", seconds: float) -> None:
        self.hub = hub
        self.results: list[object] = []
        hub.factory.drain.begin(seconds).addBoth(self.results.append)

    @property
    def done(self) -> bool:
        assert self.results in ([], [None])
        return bool(self.results)

    def look(self) -> None:
        """Let the hub look again, after the connections that it has closed are gone."""
        self.hub.finish_closed()
        self.hub.clock.advance(DRAIN_INTERVAL)


class Hub:
    """A factory on a clock of its own, and the clients of it."""

    def __init__(
        self,
        clock: IReactorTime,
        *,
        transport: Callable[[], Ordinary] = Pipe,
        rules: Rules | None = None,
        window: int = WINDOW,
        hold: float = 1.0,
        max_peers: int = 100,
        verbose: bool = False,
    ) -> None:
        self.clock: Any = clock
        self.factory = SignalRelayFactory(
            clock,
            rules or Rules(),
            MemoryStorage(window),
            hold=hold,
            max_peers=max_peers,
            verbose=verbose,
        )
        self.factory.open()
        self.counters = self.factory.counters
        self._transport = transport
        self._drain: Drain | None = None
        self.clients: list[Client] = []

    def connect(self, room: float = math.inf) -> Client:
        transport = self._transport()
        transport.room = room
        client = Client(self.factory.buildProtocol(None), transport)
        self.clients.append(client)
        return client

    def drain(self, seconds: float = 5) -> Drain:
        """Have the hub leave."""
        self._drain = Drain(self, seconds)
        return self._drain

    def finish_aborted(self) -> None:
        """Do what a transport does soon after abortConnection."""
        for client in self.clients:
            if client.transport.disconnected and not client.lost:
                client.lose(ConnectionAborted)

    def finish_closed(self) -> None:
        """Do also what an ordinary transport does once it has sent what it keeps."""
        self.finish_aborted()
        for client in self.clients:
            if client.closed and not client.lost:
                client.lose()

    def finish(self) -> None:
        """Have all connections end, and see that nothing is left of them."""
        self.finish_aborted()
        for client in self.clients:
            if not client.lost:
                client.lose()
        if self._drain is not None and not self._drain.done:
            self._drain.look()
            assert self._drain.done
        assert not list(self.factory.peers)
        assert not self.factory.pace.held
        assert not self.clock.getDelayedCalls()
        assert sum(self.counters.ended.values()) == self.counters.accepted

    def fill(self, publisher: Client, length: int, size: int = 16 * 1024) -> list[bytes]:
        """Publish so many bytes in messages of ``size``; return these."""
        sent = messages(length // size, size)
        publisher.send(*sent)
        return sent


class Events:
    """What was logged."""

    def __init__(self) -> None:
        self._all: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self._all.append(event)

    def lines(self, part: str = "") -> list[str]:
        """Return the lines that have ``part`` in them."""
        return [line for line in map(formatEvent, self._all) if part in line]

    def level_of(self, part: str) -> str:
        (event,) = (event for event in self._all if part in formatEvent(event))
        return str(event["log_level"].name)

    def flush_failures(self) -> list[Exception]:
        """Return the logged failures and forget them: the test has expected them."""
        # The reactor logs in the old way, where the failure has another name.
        found = [event.get("log_failure") or event.get("failure") for event in self._all]
        self._all = [event for event, failure in zip(self._all, found, strict=True) if not failure]
        return [failure.value for failure in found if failure]


def make_clock() -> Any:
    clock = Clock()
    clock.advance(1000)
    return clock
