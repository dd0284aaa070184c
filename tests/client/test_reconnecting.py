"""The Twisted client: over fake transports and a fake clock, and once over a real socket."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from alphapulse_relay.client.backoff import FIRST_DELAY, LONGEST_DELAY, Backoff
from alphapulse_relay.client.core import NAME_HELD, NOTHING
from alphapulse_relay.client.errors import (
    BookmarkError,
    LeavingError,
    NotARelayError,
    UnacknowledgedError,
    WrongUserError,
)
from alphapulse_relay.client.reconnecting import ReconnectingClient
from alphapulse_relay.client.silence import ANSWER_WITHIN, ASK_AFTER
from alphapulse_relay.protocol_v2.control import (
    Ack,
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    Heartbeat,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    parse_control,
)
from alphapulse_relay.protocol_v2.framing import split
from tests.client.journal import EPOCH, Journal, message, messages, said, sequences
from tests.client.scripted import ScriptedRelay, serves_on

ALL = Subscribe(start=Start.POSITION)
HELLO = said(SequenceSync(EPOCH, 0, SyncState.LIVE))


class Recorder:
    """A consumer that notes what it is told, and fails on messages that it is to fail on."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.told: list[str] = []
        self.gaps: list[Any] = []
        self.error: Any = None
        self.fails_on: bytes | None = None
        self.all_came: Deferred[None] = Deferred()
        self.wanted = 0

    def message_received(self, message: Any) -> None:
        self.data.append(message.data)
        if message.data == self.fails_on:
            raise ZeroDivisionError
        if len(self.data) == self.wanted:
            self.all_came.callback(None)

    def gap_received(self, missed: Any) -> None:
        self.gaps.append(missed.gap)

    def connected(self) -> None:
        self.told.append("connected")

    def disconnected(self, reason: Failure) -> None:
        self.told.append("disconnected")
        self.reason = reason.value

    def failed(self, error: Any) -> None:
        self.told.append("failed")
        self.error = error


class Transport(StringTransport):
    """One that is over as soon as it is aborted."""

    prompt = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.prompt = enabled

    def abortConnection(self) -> None:
        if not self.disconnected:
            super().abortConnection()
            self.protocol.connectionLost(Failure(ConnectionDone()))


class Endpoint:
    """Connects to what the test says next."""

    def __init__(self) -> None:
        self.listening = True
        self.transports: list[Any] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        if not self.listening:
            return fail(ConnectError())
        protocol, transport = factory.buildProtocol(None), Transport()
        transport.protocol = protocol
        self.transports.append(transport)
        protocol.makeConnection(transport)
        done: Deferred[Any] = Deferred()
        done.callback(protocol)
        return done


class Bench:
    """A client with all that it needs."""

    def __init__(self, subscription: Subscribe = ALL, **options: Any) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        self.consumer = Recorder()
        self.client = ReconnectingClient(
            self.clock,
            self.endpoint,
            self.consumer,
            subscription,
            backoff=Backoff(lambda: 1.0),
            **options,
        )

    @property
    def transport(self) -> Any:
        return self.endpoint.transports[-1]

    @property
    def sent(self) -> list[bytes]:
        return list(split(self.transport.value()))

    def receives(self, data: bytes) -> None:
        self.transport.protocol.dataReceived(data)

    def breaks(self) -> None:
        self.transport.disconnected = True
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.client.startService()
    yield bench
    bench.client.stopService()
    assert bench.clock.getDelayedCalls() == []


@pytest.fixture
def failures() -> Iterator[list[Any]]:
    """What was logged as a failure."""
    found: list[Any] = []

    def observe(event: Any) -> None:
        if "log_failure" in event:
            found.append(event["log_failure"].type)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def test_after_a_break_at_every_byte_each_message_comes_once():
    journal = Journal(messages(4), batch=2)
    whole = journal.answer(ALL)
    for cut in range(len(whole) + 1):
        bench = Bench()
        bench.client.startService()
        bench.receives(whole[:cut])
        bench.breaks()
        bench.clock.advance(FIRST_DELAY)
        bench.receives(journal.answer(parse_control(bench.sent[0])))
        assert sequences(bench.consumer.data) == [1, 2, 3, 4], cut


def test_tells_of_connections_and_gaps(bench):
    gap = Gap(EPOCH, 0, 9, GapReason.SKIPPED)
    bench.receives(HELLO[:-1])
    assert bench.consumer.told == []
    bench.receives(HELLO[-1:] + said(gap, Heartbeat(1, 0)))
    bench.breaks()
    assert bench.consumer.told == ["connected", "disconnected"]
    assert bench.consumer.gaps == [gap]


def test_waits_longer_each_time_until_it_is_answered(bench):
    bench.endpoint.listening = False
    bench.breaks()
    for delay in (FIRST_DELAY, 2 * FIRST_DELAY):
        bench.clock.advance(delay)
    bench.endpoint.listening = True
    bench.clock.advance(4 * FIRST_DELAY - 0.001)
    assert len(bench.endpoint.transports) == 1
    bench.clock.advance(0.001)
    bench.receives(HELLO)
    bench.breaks()
    bench.clock.advance(FIRST_DELAY)
    assert len(bench.endpoint.transports) == 3


def test_a_silent_relay_is_asked_and_given_up(bench):
    bench.receives(HELLO)
    bench.clock.advance(ASK_AFTER)
    assert isinstance(parse_control(bench.sent[-1]), Heartbeat)
    bench.receives(said(Heartbeat(1, 0)))
    bench.clock.advance(ASK_AFTER)
    assert not bench.transport.disconnected
    bench.clock.advance(ANSWER_WITHIN)
    assert bench.endpoint.transports[0].disconnected
    assert bench.consumer.told == ["connected", "disconnected"]


class TestFailures:
    def test_garbage_stops_it(self, bench):
        bench.receives(HELLO + message(1) + b"garbage")
        assert sequences(bench.consumer.data) == [1]
        assert bench.consumer.told == ["connected", "disconnected", "failed"]
        assert isinstance(bench.consumer.error, NotARelayError)
        assert not bench.client.running

    def test_a_refused_bookmark_stops_it_until_it_is_told_where_to_begin(self, bench):
        bench.receives(HELLO)
        bench.breaks()
        bench.clock.advance(FIRST_DELAY)
        bench.receives(said(ErrorMessage(ErrorCode.WRONG_EPOCH, "another")))
        assert isinstance(bench.consumer.error, BookmarkError)
        bench.client.start_over(Start.LAST, 3)
        bench.client.startService()
        wanted = parse_control(bench.sent[0])
        assert (wanted.start, wanted.start_value) == (Start.LAST, 3)

    def test_an_error_that_passes_does_not(self, bench):
        bench.receives(said(ErrorMessage(ErrorCode.TOO_MANY_PEERS, "full")))
        bench.clock.advance(FIRST_DELAY)
        assert len(bench.endpoint.transports) == 2

    def test_a_relay_that_leaves_is_come_back_to_soon(self, bench):
        """However often the client has tried in vain before."""
        for _ in range(5):
            bench.breaks()
            bench.clock.advance(LONGEST_DELAY)
        tries = len(bench.endpoint.transports)
        bench.receives(said(ErrorMessage(ErrorCode.LEAVING, "connect again")))
        bench.clock.advance(FIRST_DELAY)
        assert len(bench.endpoint.transports) == tries + 1
        assert bench.consumer.told == []
        bench.receives(HELLO + said(ErrorMessage(ErrorCode.LEAVING, "connect again")))
        assert bench.consumer.told == ["connected", "disconnected"]
        assert isinstance(bench.consumer.reason, LeavingError)

    def test_a_name_that_another_has_stops_it(self, bench):
        began = bench.clock.seconds()
        while bench.client.running:
            bench.receives(said(ErrorMessage(ErrorCode.NAME_TAKEN, "pid 1 has it")))
            bench.clock.advance(LONGEST_DELAY)
        assert bench.consumer.error.code == ErrorCode.NAME_TAKEN
        assert bench.clock.seconds() - began >= NAME_HELD

    def test_a_consumer_that_fails_loses_that_message_alone(self, bench, failures):
        journal = Journal(messages(3))
        bench.consumer.fails_on = message(2)
        bench.receives(journal.answer(ALL))
        bench.clock.advance(FIRST_DELAY)
        bench.receives(journal.answer(parse_control(bench.sent[0])))
        assert sequences(bench.consumer.data) == [1, 2, 3]
        assert failures == [ZeroDivisionError]

    def test_another_user(self, path):
        with ScriptedRelay(path, lambda connection: None) as relay:
            bench = Bench(uid=12345)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(relay.path))
                bench.endpoint.connect = lambda factory: self.over(connection, factory, bench)
                bench.client.startService()
        assert isinstance(bench.consumer.error, WrongUserError)
        assert bench.transport.value() == b""

    @staticmethod
    def over(connection: Any, factory: Any, bench: Bench) -> Deferred[Any]:
        transport = Transport()
        transport.getHandle = lambda: connection
        bench.endpoint.transports.append(transport)
        transport.protocol = factory.buildProtocol(None)
        transport.protocol.makeConnection(transport)
        return Deferred()


class TestPublish:
    @pytest.fixture
    def bench(self) -> Bench:
        bench = Bench(Subscribe(types=NOTHING))
        bench.client.startService()
        bench.receives(HELLO)
        return bench

    def test_fires_with_the_ack(self, bench):
        acks: list[Any] = []
        for number in (1, 2, 3):
            bench.client.publish(message(number)).addCallback(acks.append)
        bench.receives(said(Ack(20, 2, 99)))
        assert acks == [Ack(20, 2, 99)] * 2
        assert bench.sent[1:] == messages(3)

    def test_what_is_not_acknowledged_is_sent_again(self, bench):
        acks: list[Any] = []
        bench.client.publish(message(1)).addCallback(acks.append)
        bench.breaks()
        bench.client.publish(message(2)).addCallback(acks.append)
        bench.clock.advance(FIRST_DELAY)
        bench.receives(HELLO)
        assert bench.sent[1:] == messages(2)
        bench.receives(said(Ack(20, 2, 99)))
        assert len(acks) == 2

    def test_nothing_is_sent_before_the_answer(self):
        bench = Bench(Subscribe(types=NOTHING, name="risk"))
        bench.client.publish(message(1))
        bench.client.startService()
        bench.client.publish(message(2))
        for delay in (FIRST_DELAY, 2 * FIRST_DELAY):
            bench.receives(said(ErrorMessage(ErrorCode.NAME_TAKEN, "held")))
            bench.clock.advance(delay)
        assert len(bench.endpoint.transports) == 3
        for transport in bench.endpoint.transports:
            assert len(list(split(transport.value()))) == 1
        bench.consumer.connected = lambda: bench.client.publish(message(3))
        bench.receives(HELLO)
        assert bench.sent[1:] == messages(3)

    def test_what_cannot_be_published(self, bench):
        found: list[Any] = []
        bench.client.publish(b"x").addErrback(found.append)
        assert found[0].check(ValueError)

    def test_stopping_fails_what_is_waited_for_but_keeps_the_message(self, bench):
        found: list[Any] = []
        bench.client.publish(message(1)).addErrback(found.append)
        bench.client.stopService()
        assert found[0].check(UnacknowledgedError)
        bench.client.startService()
        bench.receives(HELLO)
        assert bench.sent[1:] == [message(1)]


class TestStop:
    def test_while_connected(self, bench):
        done: list[Any] = []
        bench.client.stopService().addCallback(done.append)
        assert bench.transport.disconnected
        assert done == [None]

    def test_while_waiting(self, bench):
        bench.breaks()
        bench.client.stopService()
        assert bench.clock.getDelayedCalls() == []

    def test_by_the_consumer_itself(self, bench):
        journal = Journal(messages(3))
        bench.consumer.message_received = lambda m: bench.client.stopService()
        bench.receives(journal.answer(ALL))
        assert bench.client.core.bookmark.taken == 1

    def test_while_connecting(self):
        bench = Bench()
        cancelled: list[Any] = []
        bench.endpoint.connect = lambda factory: Deferred(cancelled.append)
        bench.client.startService()
        bench.client.stopService()
        assert len(cancelled) == 1
        assert bench.clock.getDelayedCalls() == []


@pytest_twisted.inlineCallbacks
def test_over_a_real_socket(path):
    consumer = Recorder()
    consumer.wanted = 5
    with ScriptedRelay(path, serves_on(Journal(messages(5)))):
        endpoint = UNIXClientEndpoint(reactor, str(path))
        client = ReconnectingClient(reactor, endpoint, consumer, ALL, uid=os.geteuid())
        client.startService()
        yield consumer.all_came
        yield client.stopService()
    assert sequences(consumer.data) == [1, 2, 3, 4, 5]
