"""A client without its socket: bytes to send on a connection, and events from what comes.

Knows what is asked for, how far it has come, and what is not acknowledged. It outlives its
connections: :meth:`Core.connect` begins the next one where the last one ended. It knows neither
sockets nor clocks; the drivers are :mod:`blocking`, :mod:`reconnecting` and any of your own.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from alphapulse_relay.client.bookmark import Bookmark, fingerprint
from alphapulse_relay.client.errors import (
    BookmarkError,
    ClientError,
    NotARelayError,
    RelayError,
    UnacknowledgedError,
    from_relay,
)
from alphapulse_relay.client.outbox import Outbox, check
from alphapulse_relay.protocol_v2.compression import expand, is_compressed
from alphapulse_relay.protocol_v2.control import (
    Ack,
    ControlError,
    ControlMessage,
    ControlType,
    ErrorCode,
    ErrorMessage,
    Gap,
    Heartbeat,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
    build_control,
    parse_control,
)
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import MAX_MESSAGE, RunReader, split
from alphapulse_relay.protocol_v2.header import Header

NOTHING: frozenset[int] = frozenset({ControlType.ACK})
"""Types for a client that only publishes: no signal has a TLV of this type."""
CLIENT_SOURCE = 0
"""The source in a client's control messages, which nobody looks at."""
NAME_HELD = 10.0
"""Seconds for which a client that no relay has answered yet comes again where its name is taken:
its predecessor's connection may still be held, but another client may have the name for good."""
_PASSING = frozenset({ErrorCode.TOO_MANY_PEERS, ErrorCode.NAME_TAKEN, ErrorCode.LEAVING})


class Message(NamedTuple):
    """A whole message as its publisher made it, and where to go on once it has been taken.

    One that cannot be expanded is as it came: a publisher made it so.
    """

    data: bytes
    bookmark: Bookmark


class Run(NamedTuple):
    """Whole messages end to end as they came over the wire, and where to go on behind them."""

    data: bytes
    messages: int
    bookmark: Bookmark


class Synced(NamedTuple):
    """All before the bookmark has come; ``state`` tells whether the client is at the head."""

    bookmark: Bookmark
    state: SyncState


class Missed(NamedTuple):
    """Messages that will not come, and where to go on after them."""

    gap: Gap
    bookmark: Bookmark


class _Raw(NamedTuple):
    """Messages that have come, some of which may have come before a break."""

    data: bytes
    messages: int


Told = Synced | Missed | Ack | Heartbeat
Event = Message | Told


class Core:
    """What a client asks for and how far it has come, over any number of connections.

    >>> core = Core(Subscribe(Wish.POSITIONS, types=frozenset({21})), load_bookmark(path))
    >>> connection.sendall(core.connect(timestamp=time.time_ns()))
    >>> while data := connection.recv(65536):
    ...     for event in core.receive(data): ...
    ...     connection.sendall(core.due())

    ``max_message`` is the relay's own limit in bytes; a larger message is an error.
    """

    def __init__(
        self,
        subscription: Subscribe,
        bookmark: Bookmark | None = None,
        *,
        max_message: int = MAX_MESSAGE,
    ) -> None:
        self.subscription = subscription
        self.answered = False
        """Whether the relay has answered on this connection."""
        self.outbox = Outbox()
        self._asked = fingerprint(subscription)
        if bookmark is not None and bookmark.asked != self._asked:
            bookmark = Bookmark(bookmark.epoch, bookmark.position, 0, self._asked)
        self._bookmark = bookmark
        self._max_message = max_message
        self._reader = RunReader(max_message)
        self._came = 0  # messages on this connection since the bookmark's position
        self._ever_answered = False
        self._holding = True  # the outbox, until the relay has answered on this connection
        self._taken_since: float | None = None  # when the name was first found taken

    @property
    def bookmark(self) -> Bookmark | None:
        """Where the next connection goes on: after the last event that was yielded."""
        return self._bookmark

    def start_over(self, start: Start = Start.LIVE, value: int = 0) -> None:
        """Forget how far it has come: the next connection starts as told.

        The oldest message that is kept is ``Start.POSITION`` 0.
        """
        self.subscription = replace(self.subscription, start=start, start_value=value, epoch=0)
        self._bookmark = None

    def connect(self, *, timestamp: int) -> bytes:
        """Return what to send on a new connection; the last one is over.

        ``timestamp`` is in ns since the epoch. This is a Subscribe that starts at the bookmark, if
        there is one. Messages are for :meth:`due`: a relay that refuses the Subscribe would take
        them for another client's.
        """
        self._reader = RunReader(self._max_message)
        self._came = 0
        self.answered = False
        self._holding = True
        return build_control(self._request(), timestamp=timestamp, source=CLIENT_SOURCE)

    def due(self) -> bytes:
        """Return what the relay's answer allows to be sent: to be asked for after each receive.

        These are, once on each connection, all messages that have not been acknowledged.
        """
        if not self.answered or not self._holding:
            return b""
        self._holding = False
        return b"".join(self.outbox)

    def _request(self) -> Subscribe:
        if self._bookmark is None or self.subscription.types == NOTHING:
            return self.subscription
        epoch, position, _, _ = self._bookmark
        return replace(self.subscription, start=Start.POSITION, start_value=position, epoch=epoch)

    def check(self, message: bytes) -> Header:
        """Return the header of a message that this client can publish.

        Raises ``ValueError`` for what is not a sound message, and if this client also listens but
        has no name: without one its own messages would come back to it after a break.
        """
        if not self.subscription.name and self.subscription.types != NOTHING:
            raise ValueError("a client that listens too needs a name to publish")
        return check(message)

    def publish(self, message: bytes) -> bytes:
        """Return what to send now to publish a whole message: nothing before the relay's answer.

        With ``Wish.ACKNOWLEDGE`` the message is kept until the relay has it, and is part of what
        :meth:`due` returns on each connection until then. Raises ``ValueError`` as :meth:`check`
        does, and for a message that cannot be acknowledged; :class:`UnacknowledgedError` if too
        much is kept, or if nothing is and the relay has not answered.
        """
        header = self.check(message)
        if Wish.ACKNOWLEDGE in self.subscription.wishes:
            self.outbox.keep(header, message)
            return self.due() if self._holding else message
        if not self.answered:
            raise UnacknowledgedError("the relay has not answered, and the message is not kept")
        return message

    def ask_for_life(self, *, timestamp: int) -> bytes:
        """Return a Heartbeat, which the relay answers."""
        return build_control(Heartbeat(timestamp, 0), timestamp=timestamp, source=CLIENT_SOURCE)

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes of the connection and yield what they complete, in order.

        Each iterator must be run to its end before the next call. Raises :class:`RelayError`
        (:class:`BookmarkError`) where the relay sent an Error, and :class:`NotARelayError` for
        bytes that no relay sends, both after the events before it. The connection is over then.
        """
        for event in self._receive(data):
            if isinstance(event, _Raw):
                yield from filter(None, map(self._message, split(event.data)))
            else:
                yield event

    def receive_runs(self, data: bytes) -> Iterator[Run | Told]:
        """Do as :meth:`receive`, but yield all messages that follow each other as one run.

        For who passes them on: nothing is done for each message. What is compressed stays so.
        """
        for event in self._receive(data):
            if not isinstance(event, _Raw):
                yield event
            elif (run := self._run(*event)) is not None:
                yield run

    def _receive(self, data: bytes) -> Iterator[_Raw | Told]:
        """Yield what the relay says, and between that what it sends: bytes of so many messages."""
        try:
            for run, messages in self._reader.feed(data):
                yield _Raw(run, messages) if messages else self._control(parse_control(run))
        except (WireError, ControlError) as error:
            raise NotARelayError(f"what comes is not from a relay: {error}") from error

    def may_pass(self, error: ClientError, *, now: float) -> bool:
        """Whether it makes sense to connect again after an error of :meth:`receive`.

        A name is taken for a moment where the relay has not seen the last connection end. Where
        there was none it may be a predecessor's, for :data:`NAME_HELD`. ``now`` is in seconds on
        any clock that does not go back.
        """
        if not isinstance(error, RelayError) or error.code not in _PASSING:
            return False
        if error.code != ErrorCode.NAME_TAKEN or self._ever_answered:
            return True
        if self._taken_since is None:
            self._taken_since = now
        return now - self._taken_since < NAME_HELD

    def _message(self, data: bytes) -> Message | None:
        """Count a message; those that had come before the break are passed over."""
        if not self.answered or self._bookmark is None:
            return None  # sent before the relay had read the Subscribe
        epoch, position, taken, asked = self._bookmark
        self._came += 1
        if self._came <= taken:
            return None
        self._bookmark = Bookmark(epoch, position, self._came, asked)
        return Message(self._plain(data), self._bookmark)

    def _run(self, data: bytes, messages: int) -> Run | None:
        """Do as :meth:`_message` with many."""
        if not self.answered or self._bookmark is None:
            return None
        epoch, position, taken, asked = self._bookmark
        passed_over = min(max(taken - self._came, 0), messages)
        self._came += messages
        if passed_over == messages:
            return None
        begin = sum(map(len, islice(split(data), passed_over)))
        self._bookmark = Bookmark(epoch, position, self._came, asked)
        return Run(data[begin:], messages - passed_over, self._bookmark)

    def _plain(self, data: bytes) -> bytes:
        """Expand a message; one whose publisher only says that it is compressed is left alone."""
        if Wish.ZSTD not in self.subscription.wishes or not is_compressed(data):
            return data
        try:
            return expand(data, self._max_message)
        except WireError:
            return data

    def _control(self, content: ControlMessage) -> Told:
        match content:
            case SequenceSync():
                return self._synced(content)
            case Gap():
                return self._missed(content)
            case Ack():
                self.outbox.acknowledge(content)
                return content
            case Heartbeat():
                return content
            case ErrorMessage():
                raise from_relay(content)
        raise NotARelayError(f"a relay does not send {type(content).__name__}")

    def _synced(self, sync: SequenceSync) -> Synced:
        """Move the bookmark; of those taken before a break some may still be to come again."""
        taken = 0
        if self.answered and self._bookmark is not None:
            taken = max(self._bookmark.taken - self._came, 0)
        elif self._bookmark is not None and self.subscription.types != NOTHING:
            taken = self._resumed(self._bookmark, sync)
        return Synced(self._moved(sync.epoch, sync.position, taken), sync.state)

    def _resumed(self, bookmark: Bookmark, sync: SequenceSync) -> int:
        """Return how many messages are passed over. Where that is unknown, better none."""
        if sync.epoch != bookmark.epoch:
            text = f"it answers from journal {sync.epoch:x} instead of {bookmark.epoch:x}"
            raise BookmarkError(ErrorMessage(ErrorCode.WRONG_EPOCH, text))
        return bookmark.taken if sync.position == bookmark.position else 0

    def _missed(self, gap: Gap) -> Missed:
        """Go on behind a gap, which may have had messages in it that came before a break."""
        return Missed(gap, self._moved(gap.epoch, gap.stop, 0))

    def _moved(self, epoch: int, position: int, taken: int) -> Bookmark:
        self._bookmark = Bookmark(epoch, position, taken, self._asked)
        self._came = 0
        self.answered = self._ever_answered = True
        return self._bookmark
