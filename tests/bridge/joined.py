"""A bridge's parts in the loop of a test: real relays and NATS servers around them, no reactor."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from nats.js.api import RawStreamMsg
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from alphapulse_relay.bridge.bridge import Bridge
from alphapulse_relay.bridge.server import Server
from alphapulse_relay.client.blocking import follow
from alphapulse_relay.client.bookmark import Bookmark
from alphapulse_relay.client.core import Message, Synced
from alphapulse_relay.protocol_v2.control import Start, Subscribe, Wish
from tests.bridge.bridges import settings
from tests.support import PATIENCE, Client

END = 3.0
"""Seconds within which whatever is cancelled must have ended."""
LOOK = Wish.POSITIONS | Wish.STOP_AT_HEAD


@implementer(IStreamClientEndpoint)
class LoopEndpoint:
    """A Unix socket that Twisted's protocols are connected to by asyncio alone."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[IProtocol]":  # noqa: N803
        return Deferred.fromFuture(asyncio.ensure_future(self._connect(protocolFactory)))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        protocol = factory.buildProtocol(UNIXAddress(self._path.encode()))
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: _Adapter(protocol), self._path)
        return protocol


class _Adapter(asyncio.Protocol):
    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def connection_made(self, transport: Any) -> None:
        self._protocol.makeConnection(_Transport(transport))

    def data_received(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connectionLost(Failure(error or ConnectionDone()))


class _Transport:
    def __init__(self, transport: asyncio.Transport) -> None:
        self._socket = transport.get_extra_info("socket")
        self.write = transport.write
        self.abortConnection = transport.abort
        self.pauseProducing = transport.pause_reading
        self.resumeProducing = transport.resume_reading

    def getHandle(self) -> Any:
        return self._socket

    def getPeer(self) -> UNIXAddress:
        return UNIXAddress(None)


@asynccontextmanager
async def running(work: Any) -> AsyncIterator["asyncio.Task[None]"]:
    """Run something until it is cancelled, at which it must end soon."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=END)
        assert task.done()
        if not task.cancelled():
            task.result()


@asynccontextmanager
async def a_bridge(
    directory: Path, relay: Path, nats: Any, name: str, **options: Any
) -> AsyncIterator[Bridge]:
    """Run a bridge, which leaves in order."""
    given = {"create_stream": "true", "relay": str(relay), "nats": nats, "name": name, **options}
    given["state"] = str(directory / f"{name}.state")
    bridge = make_bridge(directory, relay, given)
    async with running(bridge.run()):
        yield bridge
    bridge.save()


def make_bridge(directory: Path, relay: Path, given: dict[str, Any]) -> Bridge:
    ours = settings(directory, **given)
    return Bridge(ours, LoopEndpoint(relay), Server(ours))


def head(relay: Path) -> Bookmark:
    """Return where a relay's journal ends."""
    *_, last = (event for event in follow(relay, Subscribe(LOOK)) if isinstance(event, Synced))
    return last.bookmark


def journal(relay: Path, since: Bookmark) -> list[bytes]:
    """Return what came into a relay's journal since then."""
    asked = Subscribe(LOOK, Start.POSITION, since.position, since.epoch)
    return [event.data for event in follow(relay, asked) if isinstance(event, Message)]


def send(relay: Path, *messages: bytes) -> None:
    """Send messages, and return when the relay has them in its journal."""
    since = head(relay)
    client = Client(relay)
    client.send(b"".join(messages))
    while len(journal(relay, since)) < len(messages):
        time.sleep(0.01)  # each look is a line in a log that may not be read
    client.close()


async def arrived(relay: Path, since: Bookmark, expected: list[bytes]) -> None:
    """Wait until a relay has got messages, which must be the ones expected and no others."""
    async with asyncio.timeout(PATIENCE):
        while len(found := journal(relay, since)) < len(expected):
            await asyncio.sleep(0.02)
    assert found == expected, described(found, expected)


def described(found: list[bytes], expected: list[bytes]) -> str:
    """Return what is there of what was expected, as ranges of numbers: bytes would tell nobody."""
    places = {each: number for number, each in enumerate(expected)}
    came = [places.get(each, -1) for each in found]
    ends = [n for n, (one, other) in enumerate(pairwise(came), 1) if other != one + 1]
    ranges = [f"{came[a]}-{came[b - 1]}" for a, b in pairwise([0, *ends, len(came)])]
    return f"{len(expected)} were expected, but what came is {', '.join(ranges)}"


async def until(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


class Pair:
    """Two bridges, called a and b, each with a relay of its own."""

    def __init__(self, directory: Path, relays: tuple[Path, Path], nats: Any, **options: Any):
        self.relays = relays
        self._given = [
            (directory, relay, nats, name) for relay, name in zip(relays, "ab", strict=True)
        ]
        self._options = options
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Pair":
        self.since = [head(relay) for relay in self.relays]
        bridges = [a_bridge(*given, **self._options) for given in self._given]
        self.a, self.b = [await self._stack.enter_async_context(each) for each in bridges]
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def ready(self) -> None:
        await until(lambda: self.a.trouble is None and self.b.trouble is None)

    async def arrived(self, at_a: list[bytes], at_b: list[bytes]) -> None:
        """Wait until each relay has just these messages."""
        for relay, since, expected in zip(self.relays, self.since, (at_a, at_b), strict=True):
            await arrived(relay, since, expected)

    async def stored(self) -> list[RawStreamMsg]:
        """Return what is in their stream."""
        jetstream, stream = self.a.server.client.jetstream(), self.a.settings.stream
        last = (await jetstream.stream_info(stream)).state.last_seq
        return [await jetstream.get_msg(stream, number) for number in range(1, last + 1)]

    async def idle(self) -> None:
        """Wait until nothing more is to be expected."""
        for bridge in (self.a, self.b):
            await until(lambda bridge=bridge: not bridge.outward._waiting)
        await asyncio.sleep(0.2)
