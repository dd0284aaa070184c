"""Many named clients of the package in one process: ``python -m tests.soak.crowd SOCKET FROM TO``.

Each has a name, a bookmark and a filter, and sums up what it takes. For each line of the standard
input the process writes one with what all of them have seen, until the input ends.
"""

import json
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from alphapulse_relay.client.core import Message, Missed
from alphapulse_relay.client.endpoint import client_endpoint
from alphapulse_relay.client.errors import ClientError
from alphapulse_relay.client.reconnecting import ReconnectingClient
from alphapulse_relay.protocol_v2.control import Start, Subscribe
from alphapulse_relay.protocol_v2.header import Header
from tests.soak.load import TYPES

SOURCES = tuple(range(100, 120))
EVERYTHING_EACH = 50
"""One client in so many wants everything; half as many again, and more, have a filter by type."""
reactor: Any = _reactor


@dataclass
class Seen:
    """What one client has taken, and what became of its connections: seconds, monotonic."""

    messages: int = 0
    crc: int = 0
    """Of all bytes of all messages, one after the other."""
    connected: float = 0.0
    lost: float = 0.0
    fault: str = ""

    def take(self, data: bytes) -> None:
        self.messages += 1
        self.crc = zlib.crc32(data, self.crc)


def wanted(number: int) -> tuple[frozenset[int], frozenset[int]]:
    """Return sources and types for a client: none are all."""
    one = SOURCES[number % len(SOURCES)]
    other = SOURCES[(number + 7) % len(SOURCES)]
    odd = frozenset({TYPES[1]})
    match number % EVERYTHING_EACH:
        case 0:
            return frozenset(), frozenset()
        case 1 | 2:
            return frozenset(), odd
        case rest if rest % 3 == 0:
            return frozenset({one, other}), odd
        case rest if rest % 3 == 1:
            return frozenset({one, other}), frozenset()
    return frozenset({one}), frozenset()


def is_wanted(asked: tuple[frozenset[int], frozenset[int]], header: Header) -> bool:
    """Whether a message of SOURCES is one that such a client gets."""
    sources, types = asked
    type_ = TYPES[header.sequence & 1]
    return header.source in (sources or {header.source}) and type_ in (types or {type_})


@dataclass
class Named:
    """One client's consumer."""

    seen: Seen = field(default_factory=Seen)

    def message_received(self, message: Message) -> None:
        self.seen.take(message.data)

    def gap_received(self, missed: Missed) -> None:
        self.seen.fault = self.seen.fault or str(missed)

    def connected(self) -> None:
        self.seen.connected = time.monotonic()

    def disconnected(self, reason: Failure) -> None:
        self.seen.lost = time.monotonic()

    def failed(self, error: ClientError) -> None:
        self.seen.fault = self.seen.fault or repr(error)


class Reports(LineReceiver):
    """Answers each line by what all have seen."""

    delimiter = b"\n"

    def __init__(self, seen: Sequence[Seen]) -> None:
        self._seen = seen

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(json.dumps([asdict(each) for each in self._seen]).encode())

    def connectionLost(self, reason: Failure) -> None:
        reactor.stop()


def main(path: str, first: int, stop: int) -> None:
    """Run clients first to stop - 1 until the standard input ends."""
    crowd = []
    for number in range(first, stop):
        sources, types = wanted(number)
        # All begin where the log begins: nothing is published before all are there.
        asked = Subscribe(
            start=Start.POSITION, types=types, sources=sources, name=f"client-{number}"
        )
        consumer = Named()
        crowd.append(consumer.seen)
        endpoint = client_endpoint(reactor, path)
        ReconnectingClient(reactor, endpoint, consumer, asked).startService()
    StandardIO(Reports(crowd))
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
