"""What the relay's journal holds from a position on, for who has to know what arrived there."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from alphapulse_relay.client.core import Core, Message, Synced
from alphapulse_relay.client.endpoint import explained
from alphapulse_relay.client.errors import BookmarkError, ClientError, IncompleteError
from alphapulse_relay.protocol_v2.control import Start, Subscribe, SyncState, Wish

SILENT_SECONDS = 15.0
"""How long a relay may send nothing before it is given up: it only reads what it has."""


async def messages_since(
    endpoint: IStreamClientEndpoint, epoch: int, position: int, sources: frozenset[int]
) -> Sequence[bytes]:
    """Return the messages of some sources in the journal of that epoch, from a position to its end.

    None where that journal has no such position: it is another one, or has lost its end. What is in
    a gap is passed over. Raises :class:`ClientError`, or what connecting does.
    """
    wishes = Wish.POSITIONS | Wish.STOP_AT_HEAD
    asked = Subscribe(wishes, Start.POSITION, position, epoch, sources=sources)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Sequence[bytes]] = loop.create_future()
    reader = _Reader(Core(asked), ended)
    factory = Factory.forProtocol(lambda: reader)
    factory.noisy = False
    try:
        await endpoint.connect(factory).asFuture(loop)
        return await ended
    except BookmarkError:
        return []
    finally:
        ended.cancel()  # nobody asks for it any more
        if reader.transport is not None:
            reader.transport.abortConnection()


class _Reader(TwistedProtocol):
    """A connection for that."""

    transport: Any = None

    def __init__(self, core: Core, ended: asyncio.Future[Sequence[bytes]]) -> None:
        self._core = core
        self._ended = ended
        self._found: list[bytes] = []
        self._state = SyncState.REPLAYING
        self._patience: asyncio.TimerHandle | None = None

    def connectionMade(self) -> None:
        """Ask."""
        self.transport.write(self._core.connect(timestamp=time.time_ns()))
        self._wait()

    def dataReceived(self, data: bytes) -> None:
        """Keep what comes."""
        self._wait()
        try:
            for event in self._core.receive(data):
                if isinstance(event, Message):
                    self._found.append(event.data)
                elif isinstance(event, Synced):
                    self._state = event.state
        except ClientError as error:
            self._fail(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell what has come, if that is all."""
        if self._patience is not None:
            self._patience.cancel()
        if self._ended.done():
            return
        if self._state is SyncState.LIVE:
            self._ended.set_result(self._found)
        else:
            error = explained(reason).value
            self._ended.set_exception(IncompleteError(f"the relay's journal was not read: {error}"))

    def _wait(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        silent = IncompleteError("the relay does not tell what is in its journal")
        self._patience = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._fail, silent)

    def _fail(self, error: ClientError) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)
        self.transport.abortConnection()
