"""What a peer is sent: when it is full, muted or overtaken, and whether it reads."""

from collections.abc import Callable
from typing import Any

import pytest

from alphapulse_relay.hub.delivery import SENDS_PER_TURN
from alphapulse_relay.hub.peer import Ending, Miss, State
from alphapulse_relay.protocol_v2.framing import split
from tests.hub.fakes import WINDOW, Client, Events, Hub, Ordinary, message, messages

MakeHub = Callable[..., Hub]


def state(client: Client) -> State:
    return State(client.protocol.state)


class TestFull:
    def test_is_behind_and_not_written_to(self, any_hub: Hub) -> None:
        publisher, consumer = any_hub.connect(), any_hub.connect(room=100)
        sent = messages(5)
        publisher.send(*sent)
        assert state(consumer) is State.BEHIND
        before = consumer.received
        assert b"".join(sent).startswith(before)
        assert len(before) in (100, 128)
        publisher.send(*messages(5, first=5))
        assert consumer.received == before

    def test_goes_on_exactly_where_it_was(self, any_hub: Hub) -> None:
        publisher, consumer = any_hub.connect(), any_hub.connect(room=100)
        sent = messages(50)
        publisher.send(*sent)
        for _ in range(40):
            consumer.take(70)
        consumer.take()
        assert consumer.received == b"".join(sent)
        assert state(consumer) is State.LIVE
        publisher.send(last := message(64, 99))
        assert consumer.received[-64:] == last

    def test_harms_no_other(self, any_hub: Hub) -> None:
        publisher, slow, fast = any_hub.connect(), any_hub.connect(room=0), any_hub.connect()
        sent = messages(20)
        publisher.send(*sent)
        assert fast.received == b"".join(sent)
        assert len(slow.received) < 100

    def test_figures_are_those_of_what_it_took(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect(room=150)
        publisher.send(*messages(5))
        cursor = consumer.protocol.cursor
        assert (cursor.bytes_out, cursor.messages_out, cursor.missing) == (150, 2, 3)
        assert cursor.behind == 5 * 64 - 150
        consumer.take(100)
        assert (cursor.bytes_out, cursor.messages_out, cursor.missing) == (250, 3, 2)


class TestHasTaken:
    """Whether it has taken bytes since a time: by what it was sent, or by what its socket holds."""

    def test_not_before_it_was_sent_any(self, hub: Hub) -> None:
        consumer = hub.connect()
        assert not consumer.protocol.delivery.has_taken(0)

    def test_from_when_it_was_sent_bytes(self, any_hub: Hub, clock: Any) -> None:
        publisher, consumer = any_hub.connect(), any_hub.connect()
        publisher.send(message())
        sent_at = clock.seconds()
        clock.advance(5)
        assert consumer.protocol.delivery.has_taken(sent_at - 0.1)
        assert not consumer.protocol.delivery.has_taken(sent_at)

    def test_a_full_socket_takes_none(self, hub: Hub, clock: Any) -> None:
        publisher, consumer = hub.connect(), hub.connect(room=0)
        publisher.send(message())
        assert not consumer.protocol.delivery.has_taken(0)
        clock.advance(5)
        consumer.take()
        assert consumer.protocol.delivery.has_taken(clock.seconds() - 1)

    def test_one_that_reads_from_a_full_socket_has(self, hub: Hub, clock: Any) -> None:
        """Although its socket does not say yet that there is room."""
        publisher, consumer = hub.connect(), hub.connect(room=100)
        publisher.send(*messages(3))
        clock.advance(5)
        start = clock.seconds()
        assert not consumer.protocol.delivery.has_taken(start - 1)
        consumer.transport.sip(1)
        assert consumer.protocol.delivery.has_taken(start - 1)
        clock.advance(0.5)
        assert consumer.protocol.delivery.has_taken(start - 1), "it was seen at its time"
        assert not consumer.protocol.delivery.has_taken(start), "it has taken no more since"
        consumer.transport.sip(1)
        assert consumer.protocol.delivery.has_taken(start)
        assert state(consumer) is State.BEHIND

    def test_one_whose_socket_fills_again_has_not_by_that(self, hub: Hub, clock: Any) -> None:
        """What its socket held at another time says nothing."""
        publisher, consumer = hub.connect(), hub.connect(room=1000)
        publisher.send(*messages(20))
        consumer.take(200)
        clock.advance(5)
        assert consumer.transport.queued() == 200
        assert not consumer.protocol.delivery.has_taken(clock.seconds() - 1)

    def test_an_ordinary_transport_only_when_it_has_room(
        self, make_hub: MakeHub, clock: Any
    ) -> None:
        hub = make_hub(transport=Ordinary)
        publisher, consumer = hub.connect(), hub.connect(room=100)
        publisher.send(*messages(3))
        clock.advance(5)
        for _ in range(3):
            assert not consumer.protocol.delivery.has_taken(clock.seconds() - 1)
        consumer.take()
        assert consumer.protocol.delivery.has_taken(clock.seconds() - 1)


class TestReads:
    """Whether a peer counts where it is asked how fast the fastest takes."""

    def test_of_one_that_was_given_nothing_nobody_can_tell(self, any_hub: Hub) -> None:
        assert any_hub.connect().protocol.delivery.reads is None

    def test_of_one_that_only_its_socket_took_for_nobody_can_tell(self, any_hub: Hub) -> None:
        other, phantom = any_hub.connect(), any_hub.connect(room=1000)
        other.send(*messages(3))
        assert phantom.protocol.delivery.reads is None

    def test_a_consumer_that_has_read_is_known_from_then_on(self, hub: Hub) -> None:
        other, consumer = hub.connect(), hub.connect(room=100)
        other.send(*messages(3))
        consumer.transport.sip(1)
        assert consumer.protocol.delivery.reads is True
        consumer.transport.sip(-1)
        assert consumer.protocol.delivery.reads is True

    @pytest.mark.parametrize("room", [100, 1000])
    def test_a_publisher_that_does_not_read_does_not(self, any_hub: Hub, room: int) -> None:
        other, publisher = any_hub.connect(), any_hub.connect(room)
        publisher.send(message())
        assert publisher.protocol.delivery.reads is False
        other.send(*messages(5))
        assert publisher.protocol.delivery.reads is False

    def test_what_is_in_its_socket_tells_a_publisher(self, hub: Hub) -> None:
        publisher = hub.connect(room=100)
        publisher.transport.unread = message()
        assert publisher.protocol.delivery.reads is False

    def test_a_publisher_that_reads_all_at_once_does(self, hub: Hub) -> None:
        other, publisher = hub.connect(), hub.connect()
        publisher.send(message())
        other.send(message())
        assert publisher.protocol.delivery.reads is True

    def test_a_publisher_whose_socket_had_room_again_does(self, hub: Hub) -> None:
        other, publisher = hub.connect(), hub.connect(room=100)
        publisher.send(message())
        other.send(*messages(3))
        publisher.take()
        assert publisher.protocol.delivery.reads is True

    def test_room_in_an_ordinary_transport_tells_nothing_at_first(
        self, make_hub: Callable[..., Hub]
    ) -> None:
        hub = make_hub(transport=Ordinary)
        other, publisher = hub.connect(), hub.connect(room=100)
        publisher.send(message())
        other.send(*messages(3))
        publisher.take()
        assert publisher.protocol.delivery.reads is False

    def test_a_muted_one_does_not(self, any_hub: Hub) -> None:
        client = any_hub.connect()
        client.protocol.delivery.reader_gone()
        assert client.protocol.delivery.reads is False


class TestTurns:
    """One peer that takes much does not keep the others waiting."""

    def behind(self, hub: Hub, sends: int) -> tuple[Client, bytes]:
        publisher, consumer = hub.connect(), hub.connect(room=0)
        consumer.transport.limit = 64
        sent = messages(sends)
        publisher.send(b"".join(sent))
        return consumer, b"".join(sent)

    def test_sends_so_many_times_in_one(self, hub: Hub) -> None:
        consumer, _ = self.behind(hub, 3 * SENDS_PER_TURN)
        consumer.take()
        assert len(consumer.received) == 64 * SENDS_PER_TURN
        assert state(consumer) is State.LIVE

    def test_goes_on_in_the_next(self, hub: Hub, clock: Any) -> None:
        consumer, sent = self.behind(hub, 3 * SENDS_PER_TURN)
        consumer.take()
        clock.advance(0)
        assert consumer.received == sent
        assert not clock.getDelayedCalls()

    def test_has_one_next_turn_only(self, hub: Hub, clock: Any) -> None:
        consumer, _ = self.behind(hub, 8 * SENDS_PER_TURN)
        consumer.take()
        hub.connect().send(message())
        assert len(clock.getDelayedCalls()) == 1

    def test_not_if_it_is_full_by_then(self, hub: Hub, clock: Any) -> None:
        consumer, sent = self.behind(hub, 3 * SENDS_PER_TURN)
        consumer.take(64 * SENDS_PER_TURN + 10)
        clock.advance(0)
        clock.advance(0)
        assert len(consumer.received) == 64 * SENDS_PER_TURN + 10
        consumer.take()
        clock.advance(0)
        clock.advance(0)
        assert consumer.received == sent

    def test_not_if_it_is_gone_by_then(self, hub: Hub, clock: Any) -> None:
        consumer, _ = self.behind(hub, 3 * SENDS_PER_TURN)
        consumer.take()
        before = consumer.received
        consumer.lose()
        clock.advance(0)
        assert consumer.received == before

    def test_a_failure_there_ends_that_connection(
        self, hub: Hub, clock: Any, logged: Events, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        consumer, _ = self.behind(hub, 3 * SENDS_PER_TURN)
        consumer.take()
        monkeypatch.setattr(consumer.transport, "send", fail)
        clock.advance(0)
        assert [str(error) for error in logged.flush_failures()] == ["no"]
        assert hub.counters.ended[Ending.FAULT] == 1


def fail(*_: object) -> int:
    raise RuntimeError("no")


class TestOvertaken:
    def overtake(self, hub: Hub, room: int = 100) -> tuple[Client, int]:
        """Return a consumer that was overtaken, and how many messages it should have got."""
        publisher, consumer = hub.connect(), hub.connect(room)
        sent = messages(3)
        publisher.send(*sent)
        return consumer, len(sent) + len(hub.fill(publisher, 2 * WINDOW))

    def test_is_closed_by_that_name(self, any_hub: Hub, logged: Events) -> None:
        consumer, _ = self.overtake(any_hub)
        assert consumer.transport.disconnected
        assert any_hub.counters.ended[Ending.OVERTAKEN] == 1
        assert any_hub.factory.departed[-1].reason is Ending.OVERTAKEN
        assert len(logged.lines("reason=overtaken")) == 1

    def test_so_is_one_that_comes_to_what_cannot_be_read(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect(room=100)
        sent = messages(6)
        publisher.send(*sent)
        hub.factory.log.segments[0].holes = [(192, 256)]
        consumer.take()
        assert consumer.received == b"".join(sent)[:192]
        assert consumer.closed
        assert hub.counters.ended[Ending.DAMAGED] == 1

    def test_is_told_nothing_inside_a_message(self, hub: Hub) -> None:
        consumer, _ = self.overtake(hub)
        assert len(consumer.received) == 100

    def test_what_it_missed_is_counted(self, hub: Hub) -> None:
        publisher, consumer = hub.connect(), hub.connect(room=150)
        publisher.send(*messages(5))
        number = 5
        while not consumer.closed:
            before = hub.factory.log.messages
            publisher.send(message(16 * 1024, number))
            number += 1
        # The message for which there was no room any more came after it was gone.
        assert before == number - 1
        assert {k: v for k, v in hub.counters.missed.items() if v} == {Miss.OVERTAKEN: before - 2}

    def test_nobody_else_is_harmed(self, any_hub: Hub) -> None:
        fast = any_hub.connect()
        self.overtake(any_hub)
        assert not fast.closed
        assert fast.protocol.cursor.at_head
        assert fast.protocol.cursor.messages_out == any_hub.factory.log.messages

    def test_a_publisher_that_reads_is_closed_as_well(self, hub: Hub) -> None:
        publisher, both = hub.connect(), hub.connect(room=100)
        both.send(message())
        publisher.send(*messages(3))
        both.take(10)
        hub.fill(publisher, 2 * WINDOW)
        assert both.transport.disconnected
        assert hub.counters.ended[Ending.OVERTAKEN] == 1

    def test_one_that_its_own_messages_overtake_publishes_no_more(self, hub: Hub) -> None:
        publisher, both, consumer = hub.connect(), hub.connect(room=100), hub.connect()
        both.send(message())
        publisher.send(*messages(3))
        both.take(10)
        for each in messages(2 * WINDOW // 16384, 16384):
            both.send(each)
        assert both.transport.disconnected
        (departed,) = hub.factory.departed
        assert hub.counters.messages_received == departed.messages_in + 3
        assert len(list(split(consumer.received))) == departed.messages_in + 3


class TestMuted:
    def mute(self, hub: Hub, torn: int = 64, room: int = 20) -> tuple[Client, Client, bytes]:
        """Return another publisher, the muted one, and the message that it has a part of."""
        other, muted = hub.connect(), hub.connect(room)
        muted.send(message())
        first = message(torn, 7)
        other.send(first)
        hub.fill(other, 2 * WINDOW)
        return other, muted, first

    def test_a_publisher_that_never_read_lives_on(self, any_hub: Hub, logged: Events) -> None:
        other, muted, _ = self.mute(any_hub)
        assert state(muted) is State.MUTED
        assert not muted.closed
        assert len(logged.lines("peer muted: 2 ")) == 1
        muted.send(last := message(64, 9))
        assert other.received[-64:] == last

    def test_is_sent_nothing(self, hub: Hub) -> None:
        other, muted, first = self.mute(hub)
        other.send(*messages(5))
        assert muted.received == first[:20]

    def test_gets_the_rest_then_whole_ones_from_the_head(self, hub: Hub) -> None:
        other, muted, first = self.mute(hub)
        muted.take()
        assert muted.received == first
        assert state(muted) is State.LIVE
        sent = messages(3)
        other.send(*sent)
        assert muted.received == first + b"".join(sent)

    def test_at_a_boundary_there_is_no_rest(self, hub: Hub) -> None:
        other, muted, _ = self.mute(hub, room=0)
        muted.take()
        assert muted.received == b""
        other.send(last := message(64, 3))
        assert muted.received == last

    def test_what_it_missed_is_counted_when_it_comes_back(self, hub: Hub, logged: Events) -> None:
        other, muted, _ = self.mute(hub)
        sent_while_muted = 5
        other.send(*messages(sent_while_muted))
        of_others = hub.factory.log.messages - 1
        muted.take()
        # All but the one whose rest it got.
        assert hub.counters.missed[Miss.MUTED] == of_others - 1
        assert len(logged.lines(f"{of_others - 1} messages were not sent to it")) == 1
        assert muted.protocol.cursor.messages_out == 1

    def test_what_it_missed_is_counted_when_it_leaves(self, hub: Hub) -> None:
        _, muted, _ = self.mute(hub)
        of_others = hub.factory.log.messages - 1
        muted.lose()
        assert hub.counters.missed[Miss.MUTED] == of_others

    def test_its_own_are_not_missed(self, hub: Hub) -> None:
        _, muted, _ = self.mute(hub)
        before = muted.protocol.cursor.missing
        muted.send(*messages(10))
        assert muted.protocol.cursor.missing == before

    def test_a_large_rest_comes_in_pieces_while_others_publish(self, hub: Hub) -> None:
        """It takes bytes then, but it is not a consumer that stands anywhere in the log."""
        other, muted, first = self.mute(hub, torn=60_000)
        muted.take(100)
        assert (state(muted), muted.received) == (State.BEHIND, first[:120])
        hub.fill(other, 2 * WINDOW)
        assert not other.held
        muted.take(1000)
        hub.fill(other, WINDOW)
        muted.take()
        assert muted.received == first
        other.send(last := message(64, 3))
        assert muted.received == first + last

    def test_is_not_muted_twice(self, hub: Hub) -> None:
        other, muted, _ = self.mute(hub)
        muted.take(0)
        muted.take(100)
        hub.fill(other, 2 * WINDOW)
        assert hub.counters.ended[Ending.OVERTAKEN] == 1

    def test_does_not_hold_others_back(self, hub: Hub, clock: Any) -> None:
        other, _, _ = self.mute(hub)
        hub.fill(other, 4 * WINDOW)
        assert not other.held


class TestNeverReadsAgain:
    """As when the peer has shut its reading side: it may still publish."""

    def test_is_sent_nothing_more(self, hub: Hub) -> None:
        other, client = hub.connect(), hub.connect(room=20)
        other.send(*messages(3))
        client.protocol.delivery.reader_gone()
        assert state(client) is State.MUTED
        other.send(*messages(3))
        assert len(client.received) == 20
        assert not client.closed

    def test_is_logged(self, hub: Hub, logged: Events) -> None:
        other, client = hub.connect(), hub.connect()
        client.protocol.delivery.reader_gone()
        other.send(*messages(3))
        assert len(logged.lines("peer muted: 2 (")) == 1
        assert len(logged.lines("has shut its reading side")) == 1

    def test_what_it_missed_is_counted_when_it_leaves(self, hub: Hub) -> None:
        other, client = hub.connect(), hub.connect(room=100)
        other.send(*messages(3))
        client.protocol.delivery.reader_gone()
        client.send(*messages(4))
        other.send(*messages(2))
        assert hub.counters.missed[Miss.MUTED] == 0
        client.lose()
        # It had one whole and a part of the next.
        assert {k: v for k, v in hub.counters.missed.items() if v} == {Miss.MUTED: 4}

    def test_one_that_closed_has_missed_nothing(self, hub: Hub) -> None:
        other, client = hub.connect(), hub.connect(room=100)
        other.send(*messages(3))
        client.protocol.delivery.stopProducing()
        other.send(*messages(2))
        client.lose()
        assert hub.counters.missed[Miss.MUTED] == 0

    def test_keeps_nothing_for_it(self, hub: Hub) -> None:
        other, client = hub.connect(), hub.connect(room=20)
        other.send(message(10_000))
        client.protocol.delivery.reader_gone()
        assert client.protocol.cursor.rest == b""
        assert client.protocol.cursor.missing == 1

    def test_still_publishes(self, hub: Hub) -> None:
        other, client = hub.connect(), hub.connect()
        client.protocol.delivery.reader_gone()
        client.send(message(64, 5))
        assert len(other.received) == 64

    def test_a_full_socket_changes_nothing(self, hub: Hub) -> None:
        client = hub.connect()
        client.protocol.delivery.reader_gone()
        client.protocol.delivery.pauseProducing()
        assert state(client) is State.MUTED
