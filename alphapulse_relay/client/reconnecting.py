"""A client for programs on Twisted: a service that connects again by itself.

Knows Twisted's endpoints and services; what a connection says, :mod:`core` knows.
"""

import time
from collections import deque
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from alphapulse_relay.client.backoff import Backoff
from alphapulse_relay.client.bookmark import Bookmark
from alphapulse_relay.client.connection import check_user
from alphapulse_relay.client.core import Core, Event, Message, Missed
from alphapulse_relay.client.endpoint import explained
from alphapulse_relay.client.errors import (
    ClientError,
    LeavingError,
    UnacknowledgedError,
    WrongUserError,
)
from alphapulse_relay.client.silence import Silence, Verdict
from alphapulse_relay.protocol_v2.control import Ack, Start, Subscribe, Wish
from alphapulse_relay.protocol_v2.framing import MAX_MESSAGE
from alphapulse_relay.protocol_v2.header import Header

_log = Logger()

ALWAYS = Wish.POSITIONS | Wish.ACKNOWLEDGE | Wish.HEARTBEATS
"""What the service wishes whatever the subscription says."""


class Consumer(Protocol):
    """What a program does about what comes.

    A message counts as taken when the call is made; to be able to go on after the program's own
    end, keep ``message.bookmark`` with what became of the message. A call that raises is logged
    and ends the connection; the next one goes on behind that event.
    """

    def message_received(self, message: Message) -> None:
        """Take a message."""

    def gap_received(self, missed: Missed) -> None:
        """Take note of messages that will not come."""

    def connected(self) -> None:
        """Take note that the relay has answered the subscription."""

    def disconnected(self, reason: Failure) -> None:
        """Take note that such a connection is over.

        A :class:`LeavingError` is no fault: the relay was told to leave, and said so.
        """

    def failed(self, error: ClientError) -> None:
        """Take note that the client gave up, since it makes no sense to connect again.

        The service is stopping then. After a :class:`BookmarkError` it can be started once more
        when :meth:`ReconnectingClient.start_over` was told where to begin.
        """


class ReconnectingClient(Service):
    """A consumer and publisher that is connected to a relay for as long as the service runs.

    ``endpoint`` is where the relay is, such as of :func:`endpoint.client_endpoint`.
    ``subscription`` is what to listen to; the wishes in :data:`ALWAYS` are added. ``bookmark`` is
    where to begin, if there is one. If ``uid`` is given, a Unix socket's listener must be of that
    user. ``max_message`` is the relay's limit in bytes. ``backoff`` is for tests.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        consumer: Consumer,
        subscription: Subscribe,
        *,
        bookmark: Bookmark | None = None,
        uid: int | None = None,
        max_message: int = MAX_MESSAGE,
        backoff: Backoff | None = None,
    ) -> None:
        subscription = replace(subscription, wishes=subscription.wishes | ALWAYS)
        self.core = Core(subscription, bookmark, max_message=max_message)
        self.consumer = consumer
        self.clock = clock
        self.uid = uid
        self._factory = Factory.forProtocol(partial(_Connection, self))
        self._endpoint = endpoint
        self._backoff = backoff or Backoff()
        self._attempt: Deferred[Any] | None = None
        self._retry: IDelayedCall | None = None
        self._connection: _Connection | None = None
        self._stopped: list[Deferred[None]] = []
        self._unacknowledged: dict[int, deque[tuple[int, Deferred[Ack]]]] = {}

    def startService(self) -> None:
        """Connect, and again whenever that fails or ends."""
        super().startService()
        if self._connection is None:
            self._connect()

    def stopService(self) -> Deferred[None]:
        """Disconnect; fires when that is done.

        What :meth:`publish` returned fails with :class:`UnacknowledgedError`, but the messages are
        kept, and sent when the service is started again.
        """
        super().stopService()
        self._fail_waiting()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._attempt is not None:
            self._attempt.cancel()
        if self._connection is None:
            return succeed(None)
        stopped = Deferred[None]()
        self._stopped.append(stopped)
        self._connection.abort(ConnectionAborted())
        return stopped

    def publish(self, message: bytes) -> Deferred[Ack]:
        """Publish a whole message, now or as soon as a relay has answered.

        Fires with the Ack that covers it. Fails with ``ValueError`` for what cannot be published
        (see :meth:`Core.publish`), :class:`UnacknowledgedError` if too much is not acknowledged, or
        when the service stops.
        """
        try:
            data = self.core.publish(message)
        except (ValueError, UnacknowledgedError):
            return fail(Failure())
        if self._connection is not None:
            self._connection.write(data)
        header, acknowledged = Header.unpack(message), Deferred[Ack]()
        waiting = self._unacknowledged.setdefault(header.publisher, deque())
        waiting.append((header.sequence, acknowledged))
        return acknowledged

    def start_over(self, start: Start = Start.LIVE, start_value: int = 0) -> None:
        """Forget the bookmark: the next connection begins where told.

        The oldest message that is kept is ``Start.POSITION`` 0.
        """
        self.core.start_over(start, start_value)

    def event_received(self, event: Event) -> None:
        """Pass on what came."""
        match event:
            case Message():
                self.consumer.message_received(event)
            case Missed():
                self.consumer.gap_received(event)
            case Ack():
                self._acknowledged(event)

    def answered(self) -> None:
        """Take note that a connection is one to a relay."""
        self._backoff.reset()
        self.consumer.connected()

    def began(self, connection: "_Connection") -> None:
        """Take note of a connection, of which it is not known yet what is at its other end."""
        self._connection = connection
        if not self.running:
            connection.abort(ConnectionAborted())

    def ended(self, reason: Failure) -> None:
        """Take note that a connection is over, and see to the next one."""
        self._connection = None
        stopped, self._stopped = self._stopped, []
        for waiting in stopped:
            waiting.callback(None)
        if self.core.answered:
            self.core.answered = False
            self.consumer.disconnected(reason)
        else:
            _log.info("no relay: {reason}", reason=reason.getErrorMessage())
        error = reason.value
        now = self.clock.seconds()
        if isinstance(error, LeavingError):
            self._backoff.reset()
        if isinstance(error, ClientError) and not self.core.may_pass(error, now=now):
            self.stopService()
            self.consumer.failed(error)
        elif self.running:
            self._connect_later()

    def _connect(self) -> None:
        self._retry = None
        self._attempt = self._endpoint.connect(self._factory)
        self._attempt.addCallbacks(self._attempted, self._not_connected)

    def _attempted(self, _: object) -> None:
        self._attempt = None

    def _not_connected(self, reason: Failure) -> None:
        self._attempt = None
        if self.running:
            _log.info("no relay: {reason}", reason=reason.getErrorMessage())
            self._connect_later()

    def _connect_later(self) -> None:
        self._retry = self.clock.callLater(self._backoff.delay(), self._connect)

    def _acknowledged(self, ack: Ack) -> None:
        waiting = self._unacknowledged.get(ack.source, ())
        while waiting and waiting[0][0] <= ack.sequence:
            waiting.popleft()[1].callback(ack)

    def _fail_waiting(self) -> None:
        every, self._unacknowledged = self._unacknowledged, {}
        for waiting in every.values():
            for _, acknowledged in waiting:
                acknowledged.errback(UnacknowledgedError("the client was stopped"))


class _Connection(TwistedProtocol):
    """One connection of the service."""

    transport: Any

    def __init__(self, client: ReconnectingClient) -> None:
        self._client = client
        self._core = client.core
        self._over: Failure | None = None  # why this end ends it
        self._silence = Silence(client.clock.seconds())
        self._watch: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Subscribe, if it is the relay that was expected."""
        if isinstance(self.transport.getPeer(), IPv4Address | IPv6Address):
            self.transport.setTcpNoDelay(True)
        subscribe = self._core.connect(timestamp=time.time_ns())
        self._client.began(self)
        if self._client.uid is not None:
            try:
                check_user(self.transport.getHandle(), self._client.uid)
            except WrongUserError as error:
                self.abort(error)
        if self._over is None:
            self.write(subscribe)
            self._listen()

    def write(self, data: bytes) -> None:
        """Send the bytes."""
        self.transport.write(data)

    def abort(self, reason: Exception) -> None:
        """End the connection at once."""
        self._over = Failure(reason)
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Pass on what is complete, until a call of the consumer ends the connection."""
        self._silence.heard(self._client.clock.seconds())
        answered = self._core.answered
        try:
            for event in self._core.receive(data):
                if not answered:
                    answered = True
                    self._client.answered()
                self._client.event_received(event)
                if self._over is not None:
                    return
            self.write(self._core.due())
        except ClientError as error:
            self.abort(error)
        except Exception as error:
            _log.failure("the consumer failed on what came")
            self.abort(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell why it is over."""
        if self._watch is not None:
            self._watch.cancel()
        self._client.ended(self._over or explained(reason))

    def _listen(self) -> None:
        """Look whether something has come, and ask or give up where it has not."""
        clock = self._client.clock
        verdict = self._silence.judge(clock.seconds())
        self._watch = None
        if verdict is Verdict.GIVE_UP:
            self.abort(TimeoutError("the relay is silent, and did not answer"))
            return
        if verdict is Verdict.ASK:
            self.write(self._core.ask_for_life(timestamp=time.time_ns()))
        self._watch = clock.callLater(self._silence.left(clock.seconds()), self._listen)
