"""What a peer says to the relay, and what it is answered."""

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from alphapulse_relay.hub.dialogue import HEARTBEAT_SECONDS
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.outgoing import OUTGOING_MAX
from alphapulse_relay.hub.peer import Ending, Miss, State
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.hub.subscribed import SubscribedCursor
from alphapulse_relay.hub.throttle import LINES_PER_SECOND
from alphapulse_relay.protocol_v2.control import (
    Ack,
    ControlMessage,
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    Heartbeat,
    RecoveryRequest,
    RecoveryResponse,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
)
from alphapulse_relay.protocol_v2.errors import Rejection
from alphapulse_relay.protocol_v2.header import Domain, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.hub.control import RULES, control, data, read, said
from tests.hub.fakes import WINDOW, Client, Events, Hub, message, messages

MakeHub = Callable[..., Hub]
UNKNOWN = build_message(
    build_tlv(229, b""), source=30, sequence=0, timestamp=1, domain=Domain.SYSTEM
)


@pytest.fixture
def hub(make_hub: MakeHub) -> Hub:
    return make_hub(rules=RULES)


def errors(client: Client) -> list[int]:
    return [each.code for each in said(client) if isinstance(each, ErrorMessage)]


def syncs(client: Client) -> list[tuple[int, SyncState]]:
    return [(s.position, s.state) for s in said(client) if isinstance(s, SequenceSync)]


def beats(client: Client) -> int:
    return sum(isinstance(each, Heartbeat) for each in said(client))


class TestStart:
    def test_live(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        publisher.send(message())
        consumer.send(control(Subscribe()))
        assert said(consumer) == [SequenceSync(hub.factory.log.epoch, 64, SyncState.LIVE)]

    def test_at_a_position_inside_a_message(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        publisher.send(*(sent := messages(3)))
        before = len(consumer.received)
        consumer.send(control(Subscribe(start=Start.POSITION, start_value=65)))
        assert syncs(consumer) == [(128, SyncState.REPLAYING)]
        assert consumer.received[before:].endswith(sent[2])

    def test_at_a_time(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        publisher.send(message())
        now = time.time_ns()
        publisher.send(late := message(64, 1))
        consumer.send(control(Subscribe(start=Start.TIME, start_value=now)))
        assert data(consumer)[2:] == [late]

    def test_with_the_last(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        publisher.send(*(sent := messages(5)))
        consumer.send(control(Subscribe(start=Start.LAST, start_value=2)))
        assert data(consumer)[5:] == sent[3:]

    def test_and_stop_at_the_head(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        publisher.send(*(sent := messages(5)))
        asked = Subscribe(Wish.STOP_AT_HEAD, Start.POSITION, 0)
        consumer.send(control(asked))
        assert data(consumer)[5:] == sent
        assert syncs(consumer)[-1] == (320, SyncState.LIVE)
        assert isinstance(said(consumer)[-1], SequenceSync)
        assert consumer.closed
        assert hub.counters.ended[Ending.FINISHED] == 1

    def test_to_stop_is_not_to_get_more(self, hub: Hub) -> None:
        """Own messages on both sides of where to stop, and another's behind them."""
        publisher, consumer = hub.connect(), hub.connect()
        publisher.send(first := message())
        consumer.send(*messages(3, first=10))
        consumer.take(0)
        consumer.send(control(Subscribe(Wish.STOP_AT_HEAD, Start.POSITION, 0)))
        consumer.send(*messages(3, first=20))
        publisher.send(message(64, 99))
        consumer.take()
        assert data(consumer) == [first, first]
        assert syncs(consumer)[-1] == (256, SyncState.LIVE)
        assert hub.counters.ended[Ending.FINISHED] == 1

    def test_a_filter_that_nothing_matches_comes_to_the_head(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        publisher.send(*messages(5))
        consumer.send(control(Subscribe(Wish.POSITIONS, Start.POSITION, sources=frozenset({99}))))
        assert syncs(consumer) == [(0, SyncState.REPLAYING), (320, SyncState.LIVE)]

    def test_own_messages_up_to_the_head(self, hub: Hub) -> None:
        publisher = hub.connect()
        publisher.send(*messages(5))
        publisher.send(control(Subscribe(Wish.POSITIONS, Start.POSITION)))
        assert syncs(publisher) == [(0, SyncState.REPLAYING), (320, SyncState.LIVE)]
        assert not publisher.protocol.cursor.replaying

    def test_each_is_answered_though_nothing_is_read(self, hub: Hub) -> None:
        consumer = hub.connect(room=0)
        for _ in range(3):
            consumer.send(control(Subscribe()))
        consumer.take()
        assert syncs(consumer) == [(0, SyncState.LIVE)] * 3

    def test_a_search_is_done_in_turns(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        for number in range(100):
            publisher.send(message(64, number))
        asked = Subscribe(start=Start.LAST, start_value=1, sources=frozenset({99}))
        consumer.send(control(asked))
        assert syncs(consumer) == []
        for _ in range(100):
            hub.clock.advance(0)
        assert syncs(consumer) == [(0, SyncState.REPLAYING)]

    def test_one_search_takes_the_place_of_another(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        for number in range(100):
            publisher.send(message(64, number))
        asked = Subscribe(start=Start.LAST, start_value=1, sources=frozenset({99}))
        consumer.send(control(asked), control(Subscribe()))
        assert [position for position, _ in syncs(consumer)] == [6400, 6400]


class TestRefused:
    @pytest.mark.parametrize(
        ("asked", "code"),
        [
            (Subscribe(Wish(0), Start.POSITION, 0, 12345, name="new"), ErrorCode.WRONG_EPOCH),
            (Subscribe(Wish(0), Start.POSITION, 1 << 40, name="new"), ErrorCode.NOT_KEPT),
            (Subscribe(name="taken", types=frozenset({99})), ErrorCode.NAME_TAKEN),
        ],
    )
    def test_keeps_what_it_had(self, hub: Hub, asked: Subscribe, code: ErrorCode) -> None:
        holder, publisher, consumer = hub.connect(), hub.connect(), hub.connect()
        holder.send(control(Subscribe(name="taken")))
        consumer.send(control(Subscribe(sources=frozenset({20}))))
        consumer.send(control(asked))
        assert errors(consumer) == [code]
        publisher.send(mine := message(), message(source=21))
        assert data(consumer) == [mine]
        assert set(hub.factory.names) == {"taken"}
        assert consumer.protocol.name == ""
        assert hub.counters.dropped[Rejection.CONTROL] == 1

    def test_a_rename(self, hub: Hub) -> None:
        consumer = hub.connect()
        consumer.send(control(Subscribe(name="one")), control(Subscribe(name="two")))
        assert errors(consumer) == [ErrorCode.MALFORMED]
        assert set(hub.factory.names) == {"one"}

    def test_a_subscription_without_a_name_keeps_the_one_there_is(self, hub: Hub) -> None:
        consumer = hub.connect()
        consumer.send(control(Subscribe(name="one")), control(Subscribe()))
        assert not [each for each in said(consumer) if isinstance(each, ErrorMessage)]
        assert set(hub.factory.names) == {"one"}

    def test_a_name_is_taken_over_from_one_that_has_hung_up(self, hub: Hub) -> None:
        """As when a client comes back before the relay has seen it go."""
        first, second, other = hub.connect(), hub.connect(), hub.connect()
        first.send(control(Subscribe(name="one")))
        first.transport.unread = last = message()
        first.transport.gone = True
        second.send(control(Subscribe(name="one")))
        assert not [each for each in said(second) if isinstance(each, ErrorMessage)]
        assert hub.factory.names == {"one": second.protocol}
        assert hub.factory.counters.ended[Ending.CLOSED] == 1
        assert data(other) == [last]
        before, answer = read(second.received)
        assert before == last, "it had no name yet"
        assert isinstance(answer, SequenceSync)

    def test_a_name_is_free_again_with_its_connection(self, hub: Hub) -> None:
        first, second = hub.connect(), hub.connect()
        first.send(control(Subscribe(name="one")))
        first.lose()
        second.send(control(Subscribe(name="one")))
        assert errors(second) == []


class TestFaults:
    @pytest.mark.parametrize(
        "bad",
        [UNKNOWN, control(SequenceSync(1, 2, SyncState.LIVE)), control(Ack(1, 2, 3))],
    )
    def test_are_answered_and_nobody_else_notices(self, hub: Hub, bad: bytes) -> None:
        other, consumer = hub.connect(), hub.connect()
        consumer.send(bad)
        assert errors(consumer) == [ErrorCode.MALFORMED]
        assert other.received == b""
        assert hub.factory.log.head == 0
        other.send(sent := message())
        assert data(consumer) == [sent]

    def test_are_counted_and_logged_at_a_bounded_rate(self, hub: Hub, logged: Events) -> None:
        consumer = hub.connect()
        consumer.send(UNKNOWN * 100)
        assert hub.counters.dropped[Rejection.CONTROL] == 100
        assert len(logged.lines("reason=control")) == LINES_PER_SECOND
        assert len(errors(consumer)) == 100

    @pytest.mark.parametrize("what", [UNKNOWN, control(Subscribe())])
    def test_who_never_reads_the_answers_is_closed(self, hub: Hub, what: bytes) -> None:
        consumer = hub.connect(room=0)
        consumer.send(what * (2 * OUTGOING_MAX))
        assert hub.counters.ended[Ending.UNREAD] == 1
        assert consumer.transport.disconnected

    def test_what_comes_at_once_is_answered_at_once(self, hub: Hub) -> None:
        """A flood of small words costs no send for each."""
        consumer = hub.connect()
        with mock.patch.object(consumer.transport, "send", wraps=consumer.transport.send) as send:
            consumer.send(control(Heartbeat(1, 0)) * 100 + UNKNOWN * 3)
        assert send.call_count == 1
        assert [type(each) for each in said(consumer)] == [Heartbeat, *[ErrorMessage] * 3]

    def test_in_the_middle_of_a_message(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect(room=30)
        publisher.send(*(sent := messages(2)))
        consumer.send(UNKNOWN)
        consumer.take()
        assert data(consumer) == sent
        assert errors(consumer) == [ErrorCode.MALFORMED]


class TestHeartbeat:
    def test_is_answered(self, hub: Hub) -> None:
        consumer = hub.connect()
        consumer.send(control(Heartbeat(1, 0)))
        assert beats(consumer) == 1

    def test_one_each_interval_of_silence(self, hub: Hub) -> None:
        consumer = hub.connect()
        consumer.send(control(Subscribe(Wish.HEARTBEATS)))
        for expected in (1, 2, 3):
            hub.clock.advance(HEARTBEAT_SECONDS)
            assert beats(consumer) == expected

    def test_none_while_messages_flow(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        consumer.send(control(Subscribe(Wish.HEARTBEATS)))
        for number in range(5):
            publisher.send(message(64, number))
            hub.clock.advance(HEARTBEAT_SECONDS)
        assert beats(consumer) == 0

    def test_no_more_after_a_subscribe_without(self, hub: Hub) -> None:
        consumer = hub.connect()
        consumer.send(control(Subscribe(Wish.HEARTBEATS)), control(Subscribe()))
        hub.clock.advance(3 * HEARTBEAT_SECONDS)
        assert beats(consumer) == 0


class Syncing(MemoryStorage):
    """Memory that says when it is synced."""

    synced = 0
    durable = True

    def acknowledged(self, head: int) -> int:
        return min(self.synced, head)


@pytest.fixture
def syncing(make_hub: MakeHub) -> tuple[Hub, Syncing]:
    with mock.patch("tests.hub.fakes.MemoryStorage", Syncing):
        hub = make_hub(rules=RULES)
    storage: Any = hub.factory.log.storage
    return hub, storage


class TestAcknowledged:
    def test_one_for_each_source_and_run(self, hub: Hub) -> None:
        publisher = hub.connect()
        publisher.send(control(Subscribe(Wish.ACKNOWLEDGE)))
        publisher.send(message(64, 1) + message(64, 2) + message(64, 7, source=21))
        publisher.send(message(64, 3))
        acks = [each for each in said(publisher) if isinstance(each, Ack)]
        assert acks == [Ack(20, 2, 128), Ack(21, 7, 192), Ack(20, 3, 256)]

    def test_are_one_for_who_does_not_read(self, hub: Hub) -> None:
        publisher = hub.connect()
        publisher.send(control(Subscribe(Wish.ACKNOWLEDGE)))
        publisher.take(0)
        publisher.send(*messages(2000))
        publisher.take()
        acks = [each for each in said(publisher) if isinstance(each, Ack)]
        assert len(acks) <= 2
        assert acks[-1] == Ack(20, 1999, 2000 * 64)

    def test_wait_for_the_sync(self, syncing: tuple[Hub, Syncing]) -> None:
        hub, storage = syncing
        publisher = hub.connect()
        publisher.send(control(Subscribe(Wish.ACKNOWLEDGE)))
        publisher.send(message(64, 1))
        publisher.send(message(64, 2))
        storage.synced = 127
        hub.factory.log.synced()
        assert said(publisher)[1:] == [Ack(20, 1, 64)]
        storage.synced = 128
        hub.factory.log.synced()
        assert said(publisher)[2:] == [Ack(20, 2, 128)]

    def test_a_sync_after_it_has_left(self, syncing: tuple[Hub, Syncing]) -> None:
        hub, storage = syncing
        publisher = hub.connect()
        publisher.send(control(Subscribe(Wish.ACKNOWLEDGE)), message())
        publisher.lose()
        storage.synced = 64
        hub.factory.log.synced()
        assert not hub.factory.awaiting_sync

    def test_ends_with_the_journal(self, syncing: tuple[Hub, Syncing]) -> None:
        hub, storage = syncing
        publisher, other = hub.connect(), hub.connect()
        publisher.send(control(Subscribe(Wish.ACKNOWLEDGE)), message())
        storage.durable = False
        hub.factory.log.journal_failed()
        assert hub.counters.ended[Ending.UNDURABLE] == 1
        other.send(control(Subscribe(Wish.ACKNOWLEDGE, name="a")))
        assert errors(other) == [ErrorCode.NOT_DURABLE]
        assert not hub.factory.names


class TestGaps:
    def test_the_windows_end_moves_it_on(self, hub: Hub, logged: Events) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        consumer.send(control(Subscribe()))
        consumer.take(0)
        sent = hub.fill(publisher, 2 * WINDOW)
        consumer.take()
        gaps = [each for each in said(consumer) if isinstance(each, Gap)]
        (gap,) = gaps
        got = data(consumer)
        assert gap.reason is GapReason.RETENTION
        assert got == sent[-len(got) :]
        assert hub.counters.missed[Miss.OVERTAKEN] == len(sent) - len(got)
        assert gap.stop - gap.start == sum(map(len, sent)) - sum(map(len, got))
        assert logged.lines("peer moved on")

    def test_a_search_that_is_overtaken_is_answered(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        for number in range(100):
            publisher.send(message(64, number))
        asked = Subscribe(start=Start.LAST, start_value=1, sources=frozenset({99}))
        consumer.send(control(asked))
        hub.fill(publisher, 2 * WINDOW)
        assert len(syncs(consumer)) == 1

    @pytest.mark.parametrize("sources", [frozenset(), frozenset({20})])
    def test_damage(self, hub: Hub, sources: frozenset[int]) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        sent = messages(6, 100)
        publisher.send(b"".join(sent))
        hub.factory.log.segments[0].holes = [(100, 200), (300, 400)]
        consumer.send(control(Subscribe(start=Start.POSITION, sources=sources)))
        assert data(consumer)[6:] == [sent[0], sent[2], sent[4], sent[5]]
        gaps = [each[1:] for each in said(consumer) if isinstance(each, Gap)]
        assert gaps == [(100, 200, GapReason.DAMAGE), (300, 400, GapReason.DAMAGE)]

    def test_to_skip_is_for_who_is_far_behind(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        consumer.send(control(Subscribe(Wish.SKIP_WHEN_BEHIND)))
        consumer.take(10)
        with mock.patch.object(SubscribedCursor, "skip_behind", 100_000):
            publisher.send(*(sent := messages(100, 1000)))
            consumer.take()
            assert data(consumer) == sent
            consumer.take(10)
            publisher.send(*(sent := messages(101, 1000)))
            consumer.take()
        assert data(consumer)[100:] == sent[:1]
        assert [each.reason for each in said(consumer) if isinstance(each, Gap)] == [
            GapReason.SKIPPED
        ]
        assert hub.counters.missed[Miss.SKIPPED] == 100


class Fetched:
    """What is not at hand until it was fetched."""

    def __init__(self, log: Log) -> None:
        self.stored: set[tuple[int, int]] = set()
        self.waiting: list[tuple[tuple[int, int], Callable[[], None]]] = []
        storage: Any = log.storage
        storage.readable = lambda _segment, start, stop: (start, stop) in self.stored
        storage.fetch = lambda _segment, start, stop, done: self.waiting.append(
            ((start, stop), done)
        )

    def finish(self) -> None:
        waiting, self.waiting = self.waiting, []
        for what, done in waiting:
            self.stored.add(what)
            done()


class TestNotAtHand:
    def ask(self, hub: Hub, content: ControlMessage) -> tuple[Client, list[bytes], Fetched]:
        publisher, consumer = hub.connect(), hub.connect()
        publisher.send(b"".join(sent := messages(5)))
        fetched = Fetched(hub.factory.log)
        consumer.send(control(content))
        return consumer, sent, fetched

    @pytest.mark.parametrize("sources", [frozenset(), frozenset({20})])
    def test_nothing_is_sent_meanwhile(self, hub: Hub, sources: frozenset[int]) -> None:
        asked = Subscribe(start=Start.POSITION, sources=sources)
        consumer, sent, fetched = self.ask(hub, asked)
        consumer.send(control(Heartbeat(1, 0)))
        assert len(data(consumer)) == 5
        assert len(fetched.waiting) == 1
        fetched.finish()
        assert data(consumer)[5:] == sent

    def test_a_search(self, hub: Hub) -> None:
        asked = Subscribe(start=Start.LAST, start_value=2, sources=frozenset({20}))
        consumer, sent, fetched = self.ask(hub, asked)
        assert syncs(consumer) == []
        while fetched.waiting:
            fetched.finish()
        assert data(consumer)[5:] == sent[3:]

    def test_a_retransmission(self, hub: Hub) -> None:
        consumer, sent, fetched = self.ask(hub, RecoveryRequest(20, 1, 0, 3))
        assert len(data(consumer)) == 5
        fetched.finish()
        assert data(consumer)[5:] == sent[1:3]
        assert said(consumer)[-1] == RecoveryResponse(1, 1, 2, 2)

    def test_who_leaves_meanwhile(self, hub: Hub) -> None:
        consumer, _, fetched = self.ask(hub, Subscribe(start=Start.POSITION))
        received = consumer.received
        consumer.lose()
        fetched.finish()
        assert consumer.received == received, "sent to who is gone"
        assert hub.counters.ended[Ending.CLOSED] == 1
        assert hub.counters.ended[Ending.FAULT] == 0

    def test_while_the_relay_leaves(self, hub: Hub) -> None:
        consumer, sent, fetched = self.ask(hub, Subscribe(start=Start.POSITION))
        drain = hub.drain()
        drain.look()
        assert not consumer.closed
        fetched.finish()
        drain.look()
        assert data(consumer)[5:] == sent
        assert hub.counters.ended[Ending.SHUTDOWN] == 2


class TestFarewell:
    def test_goes_to_those_that_have_used_control(self, hub: Hub) -> None:
        publisher, consumer, legacy = hub.connect(), hub.connect(), hub.connect()
        consumer.send(control(Subscribe()))
        publisher.send(*(sent := messages(3)))
        hub.drain().look()
        assert errors(consumer) == [ErrorCode.LEAVING]
        assert read(consumer.received)[1:4] == sent
        assert legacy.received == b"".join(sent)
        assert consumer.closed

    def test_comes_after_what_the_peer_was_behind(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        consumer.send(control(Subscribe()))
        consumer.take(10)
        publisher.send(*(sent := messages(3)))
        drain = hub.drain()
        drain.look()
        assert not consumer.closed
        consumer.take()
        drain.look()
        assert data(consumer) == sent
        assert errors(consumer) == [ErrorCode.LEAVING]

    def test_is_not_put_into_a_message(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect()
        consumer.send(control(Subscribe()))
        received = len(consumer.received)
        consumer.take(10)
        publisher.send(message())
        hub.drain(seconds=0)
        assert len(consumer.received) == received + 10
        assert hub.counters.ended[Ending.CUT] == 1

    def test_waits_for_what_is_still_to_be_acknowledged(self, syncing: tuple[Hub, Syncing]) -> None:
        hub, storage = syncing
        publisher = hub.connect()
        publisher.send(control(Subscribe(Wish.ACKNOWLEDGE)), message(64, 1))
        drain = hub.drain()
        drain.look()
        assert not publisher.closed
        storage.synced = 64
        hub.factory.log.synced()
        drain.look()
        assert said(publisher)[1] == Ack(20, 1, 64)
        assert errors(publisher) == [ErrorCode.LEAVING]


def test_a_sparse_filter_yields(hub: Hub) -> None:
    publisher, consumer = hub.connect(), hub.connect()
    publisher.send(*messages(100))
    with mock.patch("alphapulse_relay.hub.log.STRETCH", 64):
        consumer.send(control(Subscribe(start=Start.POSITION, sources=frozenset({99}))))
        assert consumer.protocol.cursor.position < hub.factory.log.head
        for _ in range(10):
            hub.clock.advance(0)
    assert consumer.protocol.cursor.at_head


def test_a_word_in_between_does_not_make_it_one_that_replays(hub: Hub) -> None:
    publisher, consumer = hub.connect(), hub.connect(room=10)
    publisher.send(*messages(5))
    consumer.send(control(Heartbeat(1, 0)))
    assert consumer.protocol.state is State.BEHIND
    assert not consumer.protocol.cursor.replaying
    assert hub.factory.messages_replayed == 0


def test_who_never_sent_control_is_sent_none(hub: Hub) -> None:
    publisher, consumer, legacy = hub.connect(), hub.connect(), hub.connect()
    consumer.send(control(Subscribe(Wish.POSITIONS | Wish.HEARTBEATS)), UNKNOWN)
    publisher.send(*(sent := messages(3)))
    hub.clock.advance(HEARTBEAT_SECONDS)
    assert legacy.received == b"".join(sent)


def test_a_filter_holds_publishers_only_where_nobody_else_is(hub: Hub) -> None:
    publisher, filtered = hub.connect(), hub.connect()
    filtered.send(control(Subscribe(sources=frozenset({20}))))
    filtered.take(1000)
    hub.fill(publisher, WINDOW * 3 // 4)
    held = [publisher.held]
    filtered.take()
    held.append(publisher.held)
    hub.connect()
    filtered.take(1000)
    hub.fill(publisher, WINDOW * 3 // 4)
    held.append(publisher.held)
    assert held == [True, False, False]


def test_who_replays_holds_nobody(hub: Hub) -> None:
    publisher, replaying = hub.connect(), hub.connect()
    hub.fill(publisher, WINDOW // 4)
    replaying.take(1000)
    replaying.send(control(Subscribe(start=Start.POSITION)))
    hub.fill(publisher, WINDOW // 2)
    assert replaying.protocol.cursor.replaying
    assert not publisher.held
