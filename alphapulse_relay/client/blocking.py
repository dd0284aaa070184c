"""A client for programs without an event loop: plain sockets, and calls that wait.

>>> with Client("/tmp/alphapulse/signals.sock", types={21}, bookmark="risk.bookmark") as client:
...     for message in client: ...

No thread works behind it: the connection is only served while a call runs. One client belongs to
one thread.
"""

import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from alphapulse_relay.client.address import Address, parse_address
from alphapulse_relay.client.backoff import Backoff
from alphapulse_relay.client.bookmark import Bookmark, load_bookmark, save_bookmark
from alphapulse_relay.client.connection import (
    RECEIVE_SIZE,
    Clock,
    Deadline,
    Link,
    open_connection,
)
from alphapulse_relay.client.core import Core, Event, Message, Missed, Synced
from alphapulse_relay.client.errors import (
    ClientError,
    GapError,
    IncompleteError,
    NoRelayError,
    UnacknowledgedError,
)
from alphapulse_relay.client.session import Session
from alphapulse_relay.protocol_v2.control import NO_WISH, Gap, Start, Subscribe, SyncState, Wish
from alphapulse_relay.protocol_v2.framing import MAX_MESSAGE

INBOX_MAX = 16 * 1024 * 1024
"""Bytes of messages that may wait to be taken while the client publishes; beyond, it does not read,
and the relay treats it as any slow consumer."""

_log = logging.getLogger(__name__)


def raise_missed(gap: Gap) -> None:
    """Tell of a gap by :class:`GapError`; whoever catches it may go on receiving."""
    raise GapError(gap)


class Client:
    """A consumer and publisher that connects again by itself.

    ``address`` is a Unix socket's path, (host, port), or a text such as ``tls:HOST:PORT:ca=FILE``
    (see :mod:`address`). ``types`` and ``sources`` are what to
    listen to, none for all; with ``types=NOTHING`` the client only publishes. ``name`` tells the
    relay whose messages not to send back; who both listens and publishes needs one.

    ``start`` and ``start_value`` are where to begin (see :class:`Start`), unless the file
    ``bookmark`` says where it stopped. With ``acknowledge``, what is published is kept until the
    relay has it. With ``zstd``, messages come compressed and are expanded. With ``heartbeats``, a
    relay that is silent for half a minute and does not answer is given up. If ``uid`` is given,
    a Unix socket's listener must be of that user. ``timeout`` is for how many seconds without a
    relay to go on trying: ``None`` for ever, 0 to try once. ``max_message`` is the relay's limit
    in bytes. ``on_gap`` is told of messages that will not come.

    ``clock`` and ``backoff`` are for tests. Raises ``ValueError`` if the bookmark's file is none,
    the address is not understood, or a name, type or source has no place in a Subscribe; and
    ``OSError`` if a file that the address names cannot be used.
    """

    def __init__(
        self,
        address: Address,
        *,
        name: str = "",
        types: Iterable[int] = (),
        sources: Iterable[int] = (),
        start: Start = Start.LIVE,
        start_value: int = 0,
        bookmark: str | os.PathLike[str] | None = None,
        acknowledge: bool = False,
        zstd: bool = False,
        heartbeats: bool = True,
        uid: int | None = None,
        timeout: float | None = None,
        max_message: int = MAX_MESSAGE,
        on_gap: Callable[[Gap], None] = raise_missed,
        clock: Clock = time,
        backoff: Backoff | None = None,
    ) -> None:
        wishes = Wish.POSITIONS
        for wish, wanted in (
            (Wish.ACKNOWLEDGE, acknowledge),
            (Wish.ZSTD, zstd),
            (Wish.HEARTBEATS, heartbeats),
        ):
            wishes |= wish if wanted else NO_WISH
        subscription = Subscribe(
            wishes, start, start_value, 0, frozenset(types), frozenset(sources), name
        )
        self.bookmark = load_bookmark(bookmark) if bookmark is not None else None
        """Behind the last message that has been taken: see :meth:`receive`."""
        self._core = Core(subscription, self.bookmark, max_message=max_message)
        self._core.connect(timestamp=0)  # what has no place in a Subscribe is an error now
        self._session = Session(
            self._core,
            address,
            uid=uid,
            timeout=timeout,
            clock=clock,
            backoff=backoff or Backoff(),
        )
        self._acknowledge = acknowledge
        self._on_gap = on_gap
        self._clock = clock
        self._file = bookmark
        self._saved = self.bookmark
        self._in_hand: Bookmark | None = None  # of the message that the application has now
        self._inbox: deque[Event] = deque()
        self._inbox_size = 0
        self._failure: ClientError | None = None  # of the connection, behind what is in the inbox

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._take()
                self.save()
                self.flush()
        finally:
            self.close()

    def __iter__(self) -> Iterator[Message]:
        """Yield messages for ever: see :meth:`receive`."""
        while True:
            yield self.receive()

    def receive(self, timeout: float | None = None) -> Message:
        """Return the next message; waits at most ``timeout`` seconds, ``None`` for ever.

        A message counts as taken when the next one is asked for, or the ``with`` block is left
        without an exception. What has been taken is saved in the bookmark's file before each
        wait. Raises ``TimeoutError``, :class:`ClientError` where it cannot go on, and what
        ``on_gap`` raises.
        """
        self._take()
        deadline = Deadline(self._clock, timeout)
        while True:
            while self._inbox:
                message = self._unpacked(self._inbox.popleft())
                if message is not None:
                    return message
            self.save()
            self._turn_for_messages(deadline)

    def publish(self, message: bytes, *, wait: bool = False, timeout: float | None = None) -> None:
        """Send a whole message; with ``wait``, return only when the relay has acknowledged it.

        Otherwise returns when a relay has answered and the kernel has it all; with
        ``acknowledge``, the client has it too, and sends it again on its next connection. What
        comes meanwhile waits to be received. Raises ``ValueError`` for what cannot be published
        (see :meth:`Core.publish`), and ``TimeoutError`` after ``timeout`` seconds; it may be sent
        all the same then.
        """
        self._core.check(message)
        deadline = Deadline(self._clock, timeout)
        while not self._core.outbox.fits(message):
            self._turn_for_acks(deadline)
        link = self._linked(deadline)
        link.out += self._core.publish(message)
        while link.out:
            self._turn(deadline, reading=self._inbox_size < INBOX_MAX)
            if link is not self._session.link:
                if self._acknowledge:
                    break  # it is due on the next connection
                link = self._linked(deadline)
                link.out += message
        if wait:
            self._flush(deadline)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was published has been acknowledged.

        Without ``acknowledge`` there is nothing to wait for. Raises ``TimeoutError`` after
        ``timeout`` seconds; :class:`UnacknowledgedError` if it would have to receive more messages
        meanwhile than it may keep: take some first.
        """
        self._flush(Deadline(self._clock, timeout))

    def save(self) -> None:
        """Save what has been taken in the bookmark's file, if there is one. Raises ``OSError``."""
        if self._file is None or self.bookmark is None:
            return
        if self.bookmark != self._saved:
            save_bookmark(self._file, self.bookmark)
            self._saved = self.bookmark

    def start_over(self, start: Start = Start.LIVE, start_value: int = 0) -> None:
        """Forget the bookmark and begin where told, after :class:`BookmarkError`.

        The oldest message that is kept is ``Start.POSITION`` 0.
        """
        self._core.start_over(start, start_value)
        self._session.close()

    def close(self) -> None:
        """Close the connection; what is not acknowledged is not waited for."""
        self._session.close()

    def _take(self) -> None:
        if self._in_hand is not None:
            self.bookmark, self._in_hand = self._in_hand, None

    def _unpacked(self, event: Event) -> Message | None:
        """Return a message for the application; note what else has come."""
        match event:
            case Message(data, bookmark):
                self._inbox_size -= len(data)
                self._in_hand = bookmark
                return event
            case Synced(bookmark):
                self.bookmark = bookmark
            case Missed(gap, bookmark):
                self.bookmark = bookmark
                self.save()  # or a program that ends now would come upon it again
                _log.warning("missed positions %d to %d: %s", *gap[1:])
                self._on_gap(gap)
        return None

    def _flush(self, deadline: Deadline) -> None:
        while len(self._core.outbox):
            self._turn_for_acks(deadline)

    def _turn_for_messages(self, deadline: Deadline) -> None:
        """Take a turn; an error is for later where messages came before it."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        try:
            self._turn(deadline)
        except ClientError as error:
            if not self._inbox:
                raise
            self._failure = error

    def _turn_for_acks(self, deadline: Deadline) -> None:
        if self._inbox_size >= INBOX_MAX:
            raise UnacknowledgedError("there are too many messages to be taken before the next Ack")
        self._turn(deadline)

    def _linked(self, deadline: Deadline) -> Link:
        """Return a connection whose relay has answered."""
        while (link := self._session.link) is None or not self._core.answered:
            self._turn(deadline)
        return link

    def _turn(self, deadline: Deadline, *, reading: bool = True) -> None:
        for event in self._session.turn(deadline, reading=reading):
            self._inbox.append(event)
            if isinstance(event, Message):
                self._inbox_size += len(event.data)


def follow(
    address: Address,
    subscription: Subscribe,
    *,
    uid: int | None = None,
    max_message: int = MAX_MESSAGE,
) -> Iterator[Event]:
    """Yield what one connection brings until the relay closes it: for a replay, or a look back.

    With ``Wish.STOP_AT_HEAD`` that is at the head, and :class:`IncompleteError` is raised if it was
    before. Otherwise as :class:`Client`, which this does not need to be: it is not connected
    again, and without ``Wish.POSITIONS`` gets no positions but the first.
    """
    core, state = Core(subscription, max_message=max_message), SyncState.REPLAYING
    try:
        connection = open_connection(parse_address(address), uid, math.inf)
    except OSError as error:
        raise NoRelayError(f"no relay at {address}: {error}") from error
    with connection:
        connection.settimeout(None)
        connection.sendall(core.connect(timestamp=time.time_ns()))
        while data := _receive(connection):
            for event in core.receive(data):
                if isinstance(event, Synced):
                    state = event.state
                yield event
    if Wish.STOP_AT_HEAD in subscription.wishes and state is not SyncState.LIVE:
        raise IncompleteError("the relay closed the connection before the head")


def _receive(connection: socket.socket) -> bytes:
    """Return the next bytes; none at the end."""
    try:
        return connection.recv(RECEIVE_SIZE)
    except ConnectionResetError:
        return b""
