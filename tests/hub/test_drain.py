"""How the relay leaves: what was sent is read and delivered, and nobody keeps it for long."""

from collections.abc import Callable
from typing import Any

import pytest

from alphapulse_relay.hub.delivery import SENDS_PER_TURN
from alphapulse_relay.hub.dialogue import NOTHING
from alphapulse_relay.hub.drain import DRAIN_INTERVAL
from alphapulse_relay.hub.peer import Ending, State
from alphapulse_relay.protocol_v2.control import Ack, ErrorMessage, Subscribe, Wish
from tests.hub.control import RULES, control, said
from tests.hub.fakes import BROKEN, Events, Hub, Ordinary, message, messages

MakeHub = Callable[..., Hub]


def test_of_an_idle_hub_ends_all_at_once(any_hub: Hub) -> None:
    clients = [any_hub.connect() for _ in range(3)]
    drain = any_hub.drain()
    assert all(client.closed for client in clients)
    assert any_hub.counters.ended[Ending.SHUTDOWN] == 3
    drain.look()
    assert drain.done


def test_of_an_empty_hub(hub: Hub, clock: Any) -> None:
    assert hub.drain().done
    assert not clock.getDelayedCalls()


def test_is_done_when_the_connections_are_closed(any_hub: Hub, clock: Any) -> None:
    """Ended is not closed: a transport may still have to send what it keeps."""
    first, second = any_hub.connect(), any_hub.connect()
    drain = any_hub.drain()
    first.lose()
    clock.pump([DRAIN_INTERVAL] * 10)
    assert not drain.done
    second.lose()
    clock.advance(DRAIN_INTERVAL)
    assert drain.done
    assert not clock.getDelayedCalls()


def test_those_that_left_before_are_waited_for_as_well(hub: Hub, clock: Any) -> None:
    client = hub.connect()
    client.send(BROKEN)
    assert not list(hub.factory.peers)
    drain = hub.drain()
    clock.advance(DRAIN_INTERVAL)
    assert not drain.done
    drain.look()
    assert drain.done


def test_of_a_refused_one_nothing_is_waited_for(make_hub: MakeHub) -> None:
    hub = make_hub(max_peers=0)
    hub.connect()
    assert hub.drain().done


def test_reads_what_was_sent_and_delivers_it(hub: Hub) -> None:
    sender, consumer = hub.connect(), hub.connect()
    sent = messages(3)
    sender.transport.unread = b"".join(sent)
    drain = hub.drain()
    assert consumer.received == b"".join(sent)
    drain.look()
    assert drain.done


def test_reads_of_all_before_it_ends_any(hub: Hub) -> None:
    """Also where one of the streams that are read turns out to be broken."""
    consumer, bad, sender = hub.connect(), hub.connect(), hub.connect()
    sent = messages(3)
    bad.transport.unread = BROKEN
    sender.transport.unread = b"".join(sent)
    drain = hub.drain()
    assert consumer.received == b"".join(sent)
    assert hub.counters.ended[Ending.MAGIC] == 1
    assert hub.counters.ended[Ending.SHUTDOWN] == 2
    drain.look()
    assert drain.done


def test_a_broken_stream_does_not_end_it_for_one_that_is_behind(hub: Hub) -> None:
    slow, bad, sender = hub.connect(room=10), hub.connect(), hub.connect()
    sent = messages(3)
    sender.transport.unread = b"".join(sent)
    bad.transport.unread = BROKEN
    drain = hub.drain()
    drain.look()
    assert not slow.closed
    slow.take()
    assert slow.received == b"".join(sent)
    drain.look()
    assert slow.closed
    drain.look()
    assert drain.done


def test_reads_no_more_after_that(any_hub: Hub) -> None:
    sender, slow = any_hub.connect(), any_hub.connect(room=10)
    sender.send(*messages(2))
    drain = any_hub.drain()
    drain.look()
    assert sender.held
    assert not sender.closed
    slow.take()
    drain.look()
    assert sender.closed


def test_waits_for_those_that_are_behind(hub: Hub) -> None:
    sender, slow = hub.connect(), hub.connect(room=10)
    sent = messages(3)
    sender.send(*sent)
    drain = hub.drain()
    slow.take(100)
    drain.look()
    assert not slow.closed
    slow.take()
    drain.look()
    assert slow.closed
    assert slow.received == b"".join(sent)
    assert hub.counters.ended[Ending.SHUTDOWN] == 2


def test_waits_until_an_ordinary_transport_has_room(make_hub: MakeHub) -> None:
    """It has taken all bytes, but what it keeps would be lost with it."""
    hub = make_hub(transport=Ordinary)
    sender, slow = hub.connect(), hub.connect(room=10)
    sender.send(message())
    assert slow.protocol.cursor.at_head
    drain = hub.drain()
    drain.look()
    assert not slow.closed
    slow.take()
    drain.look()
    assert slow.closed
    assert not slow.transport.disconnected, "closed, not aborted: it flushes before"


def test_waits_for_a_delivery_of_a_later_turn(hub: Hub, clock: Any) -> None:
    sender, slow = hub.connect(), hub.connect(room=10)
    slow.transport.limit = 64
    sent = messages(3 * SENDS_PER_TURN)
    sender.send(b"".join(sent))
    drain = hub.drain()
    slow.take()
    assert not slow.closed
    for _ in range(5):
        clock.advance(0)
    assert slow.received == b"".join(sent)
    drain.look()
    assert slow.closed


def test_does_not_wait_for_those_that_leave(hub: Hub) -> None:
    sender, slow = hub.connect(), hub.connect(room=10)
    sender.send(message())
    drain = hub.drain()
    slow.lose()
    drain.look()
    assert sender.closed


def test_does_not_wait_for_a_publisher_that_has_never_read(hub: Hub) -> None:
    publisher, other = hub.connect(room=10), hub.connect()
    publisher.send(message())
    other.send(*messages(3))
    assert publisher.protocol.state is State.BEHIND
    drain = hub.drain()
    drain.look()
    assert drain.done


def test_does_not_wait_for_the_muted(hub: Hub) -> None:
    sender, client = hub.connect(), hub.connect(room=10)
    sender.send(message())
    client.protocol.delivery.reader_gone()
    hub.drain()
    assert client.closed


def test_cuts_after_its_time(hub: Hub, clock: Any, logged: Events) -> None:
    sender, slow = hub.connect(), hub.connect(room=10)
    sender.send(message())
    drain = hub.drain(seconds=5)
    clock.advance(4.9)
    assert not drain.done
    assert not slow.closed
    clock.advance(0.2)
    assert drain.done
    assert slow.transport.disconnected
    assert len(slow.received) == 10, "no Error inside a message"
    assert hub.counters.ended[Ending.SHUTDOWN] == 1
    assert hub.counters.ended[Ending.CUT] == 1
    assert logged.lines("leaving without having delivered everything: 1 peers are cut")


def test_cuts_at_once_if_there_is_no_time(hub: Hub) -> None:
    sender, slow, reader = hub.connect(), hub.connect(room=10), hub.connect()
    sender.send(each := message())
    assert hub.drain(seconds=0).done
    assert slow.transport.disconnected
    assert reader.received == each
    assert hub.counters.ended[Ending.CUT] == 1


def test_does_not_wait_longer_for_a_close(make_hub: MakeHub, clock: Any) -> None:
    hub = make_hub(transport=Ordinary)
    client = hub.connect()
    drain = hub.drain(seconds=2)
    clock.pump([0.5] * 3)
    assert client.closed
    assert not drain.done
    clock.advance(0.5 + DRAIN_INTERVAL)
    assert drain.done


def test_can_be_cut(hub: Hub, clock: Any) -> None:
    sender, slow = hub.connect(), hub.connect(room=10)
    sender.send(message())
    drain = hub.drain()
    hub.factory.drain.cut()
    clock.advance(DRAIN_INTERVAL)
    assert drain.done
    assert slow.closed
    hub.finish_aborted()
    assert not clock.getDelayedCalls()


def test_can_be_cut_before_it_begins(hub: Hub) -> None:
    """A relay that is told twice to leave may still be closing its ports."""
    sender, slow = hub.connect(), hub.connect(room=10)
    sender.send(message())
    hub.factory.drain.cut()
    assert hub.drain().done
    assert slow.closed


def test_cut_means_nothing_if_there_is_none(hub: Hub) -> None:
    client = hub.connect()
    hub.factory.drain.cut()
    assert not client.closed


def test_an_end_in_it_does_not_resume_a_held_publisher(hub: Hub) -> None:
    sender, slow = hub.connect(), hub.connect(room=100)
    hub.fill(sender, hub.factory.log.window // 2)
    assert sender.held
    drain = hub.drain()
    slow.take()
    drain.look()
    assert slow.closed
    assert sender.transport.producerState == "paused"


def test_no_farewell_is_sent(any_hub: Hub) -> None:
    sender, consumer = any_hub.connect(), any_hub.connect()
    sender.send(each := message())
    any_hub.drain().look()
    assert consumer.received == each


def test_a_peer_that_fails_at_the_end_does_not_keep_the_drain_from_ending(
    hub: Hub, clock: Any, logged: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    gone, failing = hub.connect(), hub.connect()
    drained = []
    monkeypatch.setattr(gone.protocol, "read_rest", fail)
    monkeypatch.setattr(failing.protocol, "read_rest", fail)
    monkeypatch.setattr(hub.factory.pace, "admits", lambda _: False)
    hub.factory.drain.begin(5).addCallback(drained.append)
    gone.lose()
    monkeypatch.undo()
    monkeypatch.setattr(failing.protocol, "read_rest", fail)
    clock.advance(DRAIN_INTERVAL)
    hub.finish_aborted()
    clock.advance(DRAIN_INTERVAL)
    assert drained == [None]
    assert [type(failure) for failure in logged.flush_failures()] == [ZeroDivisionError]


def test_what_is_left_unread_is_told(hub: Hub, clock: Any, logged: Events) -> None:
    hub.connect()
    hub.factory.pace.admits = lambda _: False  # type: ignore[method-assign]
    hub.factory.drain.begin(5)
    clock.advance(5)
    assert logged.lines("leaving without what 1 peers have sent last")


ACKNOWLEDGED = control(Subscribe(Wish.ACKNOWLEDGE, types=NOTHING))


def test_waits_for_a_publisher_that_waits_for_an_acknowledgement(make_hub: MakeHub) -> None:
    hub = make_hub(rules=RULES)
    publisher = hub.connect()
    publisher.send(ACKNOWLEDGED)
    publisher.transport.room = 0
    publisher.send(message(number=7))
    drain = hub.drain()
    drain.look()
    assert not publisher.closed
    publisher.take()
    drain.look()
    _, ack, error = said(publisher)
    assert ack == Ack(20, 7, 64)
    assert isinstance(error, ErrorMessage)
    assert hub.counters.ended[Ending.SHUTDOWN] == 1


def test_cuts_one_that_does_not_read_its_acknowledgement(make_hub: MakeHub) -> None:
    hub = make_hub(rules=RULES)
    publisher = hub.connect()
    publisher.send(ACKNOWLEDGED)
    publisher.transport.room = 0
    publisher.send(message())
    drain = hub.drain(seconds=DRAIN_INTERVAL)
    drain.look()
    assert hub.counters.ended[Ending.CUT] == 1


def test_does_not_wait_for_one_that_will_never_read_again(make_hub: MakeHub) -> None:
    hub = make_hub(rules=RULES)
    publisher = hub.connect()
    publisher.send(ACKNOWLEDGED)
    publisher.transport.room = 0
    publisher.send(message())
    publisher.protocol.delivery.reader_gone()
    drain = hub.drain()
    drain.look()
    assert drain.done
