"""A connection as a peer: how it joins, what is wrong with what it sends, and how it ends."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from zope.interface.verify import verifyObject

from alphapulse_relay.hub.farewell import FAREWELL_SECONDS
from alphapulse_relay.hub.gathering import Room
from alphapulse_relay.hub.peer import Ending
from alphapulse_relay.protocol_v2.control import ErrorCode, parse_error
from alphapulse_relay.protocol_v2.errors import Rejection
from alphapulse_relay.protocol_v2.framing import Rules, split
from tests.hub.fakes import BROKEN, WINDOW, Client, Events, Hub, Ordinary, Pipe, message, messages

MakeHub = Callable[..., Hub]


def too_large(rules: Rules) -> bytes:
    return message(64)[:24] + rules.max_message.to_bytes(4, "little") + bytes(4)


class TestJoining:
    def test_gets_what_comes_from_now_on(self, any_hub: Hub) -> None:
        publisher = any_hub.connect()
        early, late = messages(2)
        publisher.send(early)
        consumer = any_hub.connect()
        publisher.send(late)
        assert consumer.received == late

    def test_is_known_by_its_address(self, any_hub: Hub) -> None:
        identity = any_hub.connect().protocol.identity
        assert (identity.number, identity.transport) == (1, "tcp")
        assert identity.address == "192.168.1.1:54321"

    def test_is_a_push_producer(self, any_hub: Hub) -> None:
        client = any_hub.connect()
        assert verifyObject(IPushProducer, client.protocol.delivery)
        assert client.transport.producer is client.protocol.delivery
        assert client.transport.streaming


class TestErrors:
    @pytest.mark.parametrize(
        ("bad", "ending", "rejection"),
        [
            (BROKEN, Ending.MAGIC, Rejection.MAGIC),
            (too_large(Rules()), Ending.SIZE, Rejection.SIZE),
        ],
    )
    def test_comes_before_the_close(
        self, any_hub: Hub, logged: Events, bad: bytes, ending: Ending, rejection: Rejection
    ) -> None:
        consumer, client = any_hub.connect(), any_hub.connect()
        good = message()
        client.send(good + bad)
        assert consumer.received == good
        told = parse_error(client.received)
        assert told is not None
        assert told.code == ErrorCode.BROKEN_STREAM
        assert str(rejection) in told.text
        assert client.closed
        assert any_hub.counters.dropped[rejection] == 1
        assert any_hub.counters.ended[ending] == 1
        assert len(logged.lines(f"reason={rejection}, the first at byte 64 ")) == 1
        assert (
            len(logged.lines(f"peer disconnected: {client.protocol.identity}, reason={ending}"))
            == 1
        )

    def test_follows_whole_messages(self, any_hub: Hub) -> None:
        publisher, client = any_hub.connect(), any_hub.connect()
        sent = messages(3)
        publisher.send(*sent)
        client.send(BROKEN)
        *before, last = split(client.received)
        assert before == sent
        assert parse_error(last) is not None

    def test_never_inside_a_message(self, hub: Hub) -> None:
        publisher, client = hub.connect(), hub.connect(room=100)
        sent = messages(3)
        publisher.send(*sent)
        client.send(BROKEN)
        assert client.received == b"".join(sent)[:100]
        assert client.transport.disconnected
        assert hub.counters.ended[Ending.MAGIC] == 1

    def test_not_to_a_full_socket_at_a_boundary(self, hub: Hub) -> None:
        publisher, client = hub.connect(), hub.connect(room=64)
        publisher.send(*messages(3))
        client.send(BROKEN)
        assert len(client.received) == 64

    def test_what_follows_is_not_read(self, any_hub: Hub) -> None:
        consumer, client = any_hub.connect(), any_hub.connect()
        client.send(BROKEN, message(), BROKEN)
        assert consumer.received == b""
        assert sum(any_hub.counters.dropped.values()) == 1

    def test_of_others_reach_nobody(self, any_hub: Hub) -> None:
        """An Error goes to the one that it is for; it is not in the log."""
        consumer, client = any_hub.connect(), any_hub.connect()
        client.send(BROKEN)
        assert consumer.received == b""
        assert any_hub.factory.log.head == 0


class TestFarewell:
    """An ordinary transport flushes before it closes, and may never manage to."""

    @pytest.fixture
    def client(self, make_hub: MakeHub) -> Client:
        client = make_hub(transport=Ordinary).connect()
        client.send(BROKEN)
        return client

    def test_is_given_time(self, client: Client, clock: Any) -> None:
        clock.advance(FAREWELL_SECONDS - 0.1)
        assert client.closed
        assert not client.transport.disconnected

    def test_but_not_for_ever(self, client: Client, clock: Any) -> None:
        clock.advance(FAREWELL_SECONDS)
        assert client.transport.disconnected

    def test_in_time_there_is_nothing_left_to_do(self, client: Client, clock: Any) -> None:
        client.lose()
        assert not clock.getDelayedCalls()

    def test_the_producer_is_gone_so_that_it_closes(self, client: Client) -> None:
        assert client.transport.producer is None


class TestEndings:
    @pytest.mark.parametrize(
        ("how", "ending"),
        [
            (ConnectionDone, Ending.CLOSED),
            (ConnectionLost, Ending.RESET),
            (ZeroDivisionError, Ending.FAULT),
        ],
    )
    def test_of_the_transport(
        self, any_hub: Hub, logged: Events, how: type[Exception], ending: Ending
    ) -> None:
        publisher, client = any_hub.connect(), any_hub.connect()
        publisher.send(*messages(3))
        client.send(*messages(2))
        client.lose(how)
        assert any_hub.counters.ended == dict.fromkeys(Ending, 0) | {ending: 1}
        departure = any_hub.factory.departed[-1]
        assert (departure.reason, departure.identity.number) == (ending, 2)
        assert (departure.messages_in, departure.messages_out) == (2, 3)
        (line,) = logged.lines("peer disconnected")
        assert f"reason={ending}, 2 messages in, 3 out" in line

    @pytest.mark.parametrize("ending", list(Ending))
    def test_by_the_hub_are_named_once(self, any_hub: Hub, logged: Events, ending: Ending) -> None:
        client = any_hub.connect()
        client.protocol.end(ending)
        client.protocol.end(Ending.FAULT)
        any_hub.finish()
        assert any_hub.counters.ended == dict.fromkeys(Ending, 0) | {ending: 1}
        assert (
            len(logged.lines(f"peer disconnected: {client.protocol.identity}, reason={ending}"))
            == 1
        )

    def test_a_torn_message_is_counted(self, any_hub: Hub) -> None:
        consumer, client = any_hub.connect(), any_hub.connect()
        client.send(message() + message()[:40])
        client.lose()
        assert any_hub.counters.dropped[Rejection.TORN] == 1
        assert len(consumer.received) == 64

    def test_a_torn_large_message_is_counted(self, any_hub: Hub) -> None:
        client = any_hub.connect()
        client.send(message(50_000)[:40_000])
        client.lose()
        assert any_hub.counters.dropped[Rejection.TORN] == 1

    def test_for_a_large_one_there_may_be_no_room(self, any_hub: Hub, logged: Events) -> None:
        any_hub.factory.room = Room(100_000)
        consumer, first, second = any_hub.connect(), any_hub.connect(), any_hub.connect()
        small, large = message(), message(90_000)
        first.send(large[:50_000])
        second.send(small + message(90_000)[:50_000])
        assert consumer.received == small
        assert second.closed
        assert any_hub.counters.ended[Ending.CROWDED] == 1
        assert any_hub.counters.dropped[Rejection.TORN] == 1
        first.send(large[50_000:])
        assert consumer.received == small + large
        assert any_hub.factory.room.free == 100_000

    def test_without_a_torn_one_none_is(self, any_hub: Hub) -> None:
        client = any_hub.connect()
        client.send(message())
        client.lose()
        assert sum(any_hub.counters.dropped.values()) == 0

    def test_what_it_got_in_part_is_not_a_message(self, hub: Hub) -> None:
        publisher, client = hub.connect(), hub.connect(room=100)
        publisher.send(*messages(3))
        client.lose()
        assert hub.factory.departed[-1].messages_out == 1
        assert (hub.factory.messages_delivered, hub.factory.bytes_delivered) == (1, 100)


class TestBadMessages:
    def test_are_dropped_and_the_connection_lives(self, any_hub: Hub, logged: Events) -> None:
        consumer, client = any_hub.connect(), any_hub.connect()
        bad = bytearray(message())
        bad[50] ^= 1
        good = messages(2)
        client.send(good[0] + bad + good[1])
        assert consumer.received == b"".join(good)
        assert not client.closed
        assert any_hub.counters.dropped[Rejection.CHECKSUM] == 1
        assert logged.level_of("dropped messages: 1, peer 2 (") == "warn"


class TestHold:
    def test_reaches_the_transport(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect(room=100)
        hub.fill(publisher, WINDOW // 4)
        assert not publisher.held
        hub.fill(publisher, WINDOW // 4)
        assert publisher.held
        assert hub.factory.pace.held == 1
        consumer.take()
        assert not publisher.held
        assert hub.factory.pace.held == 0

    def test_ends_when_consumers_stop(self, hub: Hub, clock: Any) -> None:
        publisher, _ = hub.connect(), hub.connect(room=100)
        hub.fill(publisher, WINDOW // 2)
        clock.pump([0.1] * 9)
        assert publisher.held
        clock.pump([0.1] * 3)
        assert not publisher.held

    def test_stays_while_one_reads_from_a_full_socket(self, hub: Hub, clock: Any) -> None:
        publisher, consumer = hub.connect(), hub.connect(room=1000)
        hub.fill(publisher, WINDOW // 2)
        for _ in range(50):
            clock.advance(0.1)
            consumer.transport.sip(1)
        assert publisher.held
        clock.pump([0.1] * 12)
        assert not publisher.held

    def test_of_forty_at_once(self, hub: Hub) -> None:
        """As many as there are publishers may append a chunk more before all are held."""
        hub.connect(room=100)
        publishers = [hub.connect(room=100) for _ in range(40)]
        for publisher in publishers:
            publisher.send(message())
        size = 4096
        while not any(publisher.held for publisher in publishers):
            publishers[0].send(message(size))
        before = hub.factory.log.head
        for publisher in publishers[1:]:
            publisher.send(message(size))
        assert all(publisher.held for publisher in publishers)
        assert hub.factory.log.head == before + 39 * size
        assert hub.factory.pace.held == 40

    def test_ends_when_the_consumer_leaves(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect(room=100)
        hub.fill(publisher, WINDOW // 2)
        consumer.lose()
        assert not publisher.held

    def test_not_where_a_publisher_reads_all_at_once(self, hub: Hub) -> None:
        """Its socket was never full, so only that it is at the head tells that it reads."""
        publisher, both, _ = hub.connect(), hub.connect(), hub.connect(room=100)
        both.send(message())
        hub.fill(publisher, WINDOW // 2)
        assert both.protocol.cursor.at_head
        assert not publisher.held

    def test_ends_when_the_held_one_leaves(self, hub: Hub) -> None:
        publisher, _ = hub.connect(), hub.connect(room=100)
        hub.fill(publisher, WINDOW // 2)
        publisher.lose()
        assert hub.factory.pace.held == 0
        assert publisher.held, "it is not read again"

    def test_ends_with_a_delivery_of_a_later_turn(self, hub: Hub, clock: Any) -> None:
        publisher, consumer = hub.connect(), hub.connect(room=100)
        consumer.transport.limit = 8192
        hub.fill(publisher, WINDOW // 2)
        assert publisher.held
        consumer.take()
        assert publisher.held
        for _ in range(5):
            clock.advance(0)
        assert consumer.protocol.cursor.at_head
        assert not publisher.held

    def test_not_after_reading_was_stopped_for_good(self, hub: Hub) -> None:
        client = hub.connect()
        client.protocol.stop_reading()
        client.protocol.release()
        assert client.held


def test_pipes_are_outlets_of_their_own(hub: Hub) -> None:
    client = hub.connect()
    assert isinstance(client.transport, Pipe)
    assert client.protocol.outlet is client.transport
