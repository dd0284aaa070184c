"""The way to the relay: a named client that passes runs on, and publishes what comes from afar.

Knows the connection, and how it comes again; what is done with the runs, it does not.
"""

import asyncio
import os
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from alphapulse_relay.client.backoff import Backoff
from alphapulse_relay.client.bookmark import Bookmark
from alphapulse_relay.client.core import NOTHING, Core, Missed, Run, Synced
from alphapulse_relay.client.endpoint import explained
from alphapulse_relay.client.errors import BookmarkError, ClientError, LeavingError, RelayError
from alphapulse_relay.client.silence import Silence, Verdict
from alphapulse_relay.protocol_v2.control import BRIDGE_NAME, Ack, ErrorCode, Subscribe, Wish
from alphapulse_relay.protocol_v2.header import Header
from alphapulse_relay.protocol_v2.selection import Selector, count

_log = Logger()

WISHES = Wish.POSITIONS | Wish.ACKNOWLEDGE | Wish.HEARTBEATS
RECEIVE_SIZE = 256 << 10
"""Bytes to take at once: all that a Unix socket has, instead of Twisted's quarter of it."""
SEND_SIZE = 1 << 20
"""Bytes to send at once to a Unix socket, as far as the kernel lets it have them (wmem_max): each
piece is a turn for both ends, and an acknowledgement."""


class LinkError(Exception):
    """The connection was lost before the relay had acknowledged: it may have some of it."""


class RefusedError(Exception):
    """The relay does not take a message; some before it may be in its journal."""


def listening_to(types: frozenset[int], sources: frozenset[int]) -> Subscribe:
    """Return what a bridge asks of its relay."""
    return Subscribe(WISHES, types=types, sources=sources, name=BRIDGE_NAME)


class Listener(Protocol):
    """Who is told what comes from the relay."""

    def run_received(self, run: Run) -> None:
        """Take a run."""

    def position_received(self, bookmark: Bookmark) -> None:
        """Take note that all before the bookmark has come."""

    def gap_received(self, missed: Missed) -> None:
        """Take note of messages that will not come."""

    def bookmark_refused(self, error: BookmarkError) -> Subscribe:
        """Return what to listen to instead of a place that the relay's journal has not."""


@dataclass
class _Publishing:
    """What is being published: done when its last message is acknowledged behind a position."""

    source: int
    sequence: int
    floor: int
    done: asyncio.Future[int]


class RelayLink:
    """The relay, over one connection after the other.

    ``subscription`` has the name and filter of the bridge. Nothing is listened to before
    :meth:`listen`.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, subscription: Subscribe, listener: Listener
    ) -> None:
        self.connections = 0
        """How many there were."""
        self.trouble: str | None = "not connected yet"
        """Why there is no connection, if there is none."""
        self.epoch = 0
        """Of the journal of the relay that was last connected to..."""
        self.position = 0
        """...and a place in it before which nothing of what is published now will be."""
        self._name, self._wanted = subscription.name, subscription
        self._endpoint = endpoint
        self._listener = listener
        self._core = self._silent_core()
        self._listens = self._paused = False
        self._connection: _Connection | None = None
        self._up = asyncio.Event()
        self._backoff = Backoff()
        self._publishing: _Publishing | None = None
        self._floor = 0  # position of the last acknowledgement on this connection

    # What it listens to

    @property
    def listens(self) -> bool:
        """Whether it listens, or only publishes."""
        return self._listens

    def listen(self, bookmark: Bookmark | None, subscription: Subscribe | None = None) -> None:
        """Have what follows the bookmark come, on a new connection."""
        self._listens = True
        self._go_on_with(Core(subscription or self._wanted, bookmark))

    def stop_listening(self) -> None:
        """Have nothing more come, so that what is published is acknowledged all the same."""
        self._paused = False
        if self._listens:
            self._listens = False
            self._go_on_with(self._silent_core())

    def pause(self) -> None:
        """Let what comes wait, and acknowledgements with it: for a moment only."""
        self._paused = True
        if self._connection is not None:
            self._connection.transport.pauseProducing()

    def resume(self) -> None:
        """Let it come again."""
        self._paused = False
        if self._connection is not None:
            self._connection.transport.resumeProducing()

    def _silent_core(self) -> Core:
        return Core(Subscribe(WISHES, types=NOTHING, name=self._name))

    def _go_on_with(self, core: Core) -> None:
        self._core = core
        if self._connection is not None:
            self._connection.transport.abortConnection()

    # Connections

    async def connected(self) -> None:
        """Wait until the relay has answered on a connection."""
        await self._up.wait()

    async def run(self) -> None:
        """Connect, and again whenever that fails or ends; until cancelled."""
        while True:
            ended: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
            try:
                factory = Factory.forProtocol(partial(self._connection_for, ended))
                factory.noisy = False
                await self._endpoint.connect(factory).asFuture(asyncio.get_running_loop())
                reason = await ended
            except asyncio.CancelledError:
                if self._connection is not None:
                    self._connection.transport.abortConnection()
                raise
            except Exception as error:
                reason = Failure(error)
            self._lost(reason)
            await asyncio.sleep(self._backoff.delay())

    def _connection_for(self, ended: asyncio.Future[Failure]) -> "_Connection":
        return _Connection(self, self._core, ended)

    def began(self, connection: "_Connection") -> None:
        """Take note of a connection, of which it is not known yet what is at its other end."""
        self._connection = connection
        self._floor = 0
        if self._paused:
            connection.transport.pauseProducing()

    def answered(self, bookmark: Bookmark) -> None:
        """Take note that it is one to a relay."""
        self._backoff.reset()
        self.connections += 1
        self.trouble = None
        if bookmark.epoch != self.epoch or not self._listens:
            self.epoch, self.position = bookmark.epoch, 0  # that is the head, if nothing is asked
        self.position = max(self.position, bookmark.position)
        _log.info("connected to the relay, whose journal is {epoch:x}", epoch=bookmark.epoch)
        self._up.set()

    def _lost(self, reason: Failure) -> None:
        over, self._connection = self._connection, None
        self._up.clear()
        error = reason.value
        if over is None or over.core is self._core:  # else it was ended here, for another one
            self._tell(_described(reason))
        if isinstance(error, BookmarkError) and over is not None and over.core is self._core:
            self.position = 0  # the journal has lost its end, or is another one
            self.listen(None, self._listener.bookmark_refused(error))
        if isinstance(error, LeavingError):
            self._backoff.reset()
        if self._publishing is not None and not self._publishing.done.done():
            self._publishing.done.set_exception(_refusal(error))
        self._publishing = None

    def _tell(self, trouble: str) -> None:
        """Tell why there is no relay, once while that lasts."""
        if trouble != self.trouble:
            _log.warn("no relay: {reason}; it is tried again until there is one", reason=trouble)
        self.trouble = trouble

    # What it publishes

    async def publish(self, data: bytes, last: Header) -> int:
        """Publish a run that ends with the header's message; return the position behind it.

        No other message in it may have that source and sequence. Returns when the relay has
        acknowledged the last one. Raises :class:`LinkError` or :class:`RefusedError`.
        """
        if self._connection is None or not self._up.is_set():
            raise LinkError("there is no connection")
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._publishing = _Publishing(last.publisher, last.sequence, self._floor, done)
        self._connection.transport.write(data)
        try:
            self._floor = await done
        except asyncio.CancelledError:
            # The relay may go on to take it: what it has is known when that connection is over.
            self._up.clear()
            if self._connection is not None:
                self._connection.transport.abortConnection()
            raise
        self.position = max(self.position, self._floor)
        return self._floor

    def event_received(self, event: object, core: Core) -> None:
        """Pass on what came."""
        if isinstance(event, Ack):
            self._acknowledged(event)
        elif core is not self._core or not self._listens:
            return  # it is not listened to any more
        elif isinstance(event, Run):
            self._listener.run_received(event)
        elif isinstance(event, Synced):
            self._listener.position_received(event.bookmark)
        elif isinstance(event, Missed):
            self._listener.gap_received(event)

    def _acknowledged(self, ack: Ack) -> None:
        waiting = self._publishing
        if waiting is None or waiting.done.done() or ack.position <= waiting.floor:
            return
        if (ack.source, ack.sequence) == (waiting.source, waiting.sequence):
            waiting.done.set_result(ack.position)


def ends_uniquely(data: bytes, last: Header) -> bool:
    """Tell whether no other message of a run has the source and sequence of its last."""
    sequences = range(last.sequence, last.sequence + 1)
    return count(data, Selector(sources=frozenset({last.publisher}), sequences=sequences)) == 1


def _described(reason: Failure) -> str:
    """Return in words why there is no connection."""
    error = reason.value
    # Those of getaddrinfo(3) are negative, and not the system's.
    if isinstance(error, ConnectError) and (error.osError or 0) > 0:
        return os.strerror(error.osError)
    return getattr(error, "strerror", None) or str(error) or reason.getErrorMessage()


def _refusal(error: BaseException | None) -> Exception:
    refused = {ErrorCode.MALFORMED, ErrorCode.FORBIDDEN, ErrorCode.BROKEN_STREAM}
    if isinstance(error, RelayError) and error.code in refused:
        return RefusedError(str(error))
    return LinkError(str(error))


class _Connection(TwistedProtocol):
    """One connection."""

    transport: Any

    def __init__(self, link: RelayLink, core: Core, ended: asyncio.Future[Failure]) -> None:
        self._link = link
        self.core = core
        """What is asked for on it."""
        self._ended = ended
        self._over: Failure | None = None
        self._silence = Silence(time.monotonic())
        self._watch: asyncio.TimerHandle | None = None

    def connectionMade(self) -> None:
        """Subscribe."""
        if isinstance(self.transport.getPeer(), IPv4Address | IPv6Address):
            self.transport.setTcpNoDelay(True)
        else:
            self.transport.SEND_LIMIT = SEND_SIZE
            self.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_SIZE)
        self.transport.bufferSize = RECEIVE_SIZE
        self._link.began(self)
        self.transport.write(self.core.connect(timestamp=time.time_ns()))
        self._listen()

    def dataReceived(self, data: bytes) -> None:
        """Pass on what is complete."""
        self._silence.heard(time.monotonic())
        answered = self.core.answered
        try:
            for event in self.core.receive_runs(data):
                if not answered and self.core.answered and self.core.bookmark is not None:
                    answered = True
                    self._link.answered(self.core.bookmark)
                self._link.event_received(event, self.core)
        except ClientError as error:
            self._abort(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell why it is over."""
        if self._watch is not None:
            self._watch.cancel()
        if not self._ended.done():
            self._ended.set_result(self._over or explained(reason))

    def _abort(self, error: Exception) -> None:
        self._over = Failure(error)
        self.transport.abortConnection()

    def _listen(self) -> None:
        """Look whether something has come, and ask or give up where it has not."""
        verdict = self._silence.judge(time.monotonic())
        if verdict is Verdict.GIVE_UP:
            self._abort(TimeoutError("the relay is silent, and did not answer"))
            return
        if verdict is Verdict.ASK:
            self.transport.write(self.core.ask_for_life(timestamp=time.time_ns()))
        left = self._silence.left(time.monotonic())
        self._watch = asyncio.get_running_loop().call_later(left, self._listen)
