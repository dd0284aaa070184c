"""The hub's centre: everybody gets what the others send, in one order, and nobody harms another."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from alphapulse_relay.hub.factory import DEPARTED_KEPT
from alphapulse_relay.hub.farewell import FAREWELL_SECONDS
from alphapulse_relay.hub.peer import Ending, Miss, Refusal, State
from alphapulse_relay.hub.protocol import SignalRelayProtocol
from alphapulse_relay.protocol_v2.control import ErrorCode, parse_error
from alphapulse_relay.protocol_v2.framing import Level, Rules, split
from tests.hub.fakes import BROKEN, Client, Events, Hub, Ordinary, Pipe, message, messages
from tests.support import MANIFEST, SAMPLES

MakeHub = Callable[..., Hub]


class TestBroadcast:
    def test_to_all_but_the_sender(self, any_hub: Hub) -> None:
        sender, *others = (any_hub.connect() for _ in range(4))
        sent = messages(3)
        sender.send(*sent)
        assert [other.received for other in others] == [b"".join(sent)] * 3
        assert sender.received == b""

    def test_in_one_order(self, any_hub: Hub) -> None:
        one, two, consumer = (any_hub.connect() for _ in range(3))
        sent = [(chosen, message(64, n)) for n, chosen in enumerate([one, two, two, one, two])]
        for publisher, each in sent:
            publisher.send(each)
        assert consumer.received == b"".join(each for _, each in sent)
        assert one.received == b"".join(each for publisher, each in sent if publisher is two)
        assert two.received == b"".join(each for publisher, each in sent if publisher is one)

    def test_torn_messages_come_when_they_are_whole(self, any_hub: Hub) -> None:
        one, two, consumer = (any_hub.connect() for _ in range(3))
        first, second = messages(2)
        one.send(first[:40])
        two.send(second)
        assert consumer.received == second
        one.send(first[40:])
        assert consumer.received == second + first

    def test_without_anybody_else(self, any_hub: Hub) -> None:
        sender = any_hub.connect()
        sender.send(*messages(3))
        assert any_hub.counters.messages_received == 3
        assert sender.received == b""

    @pytest.mark.parametrize("name", sorted(MANIFEST))
    @pytest.mark.parametrize("level", [Level.CHECKSUM, Level.STRICT])
    def test_samples(self, make_hub: MakeHub, name: str, level: Level) -> None:
        hub = make_hub(rules=Rules(level), window=8 << 21)
        sender, consumer = hub.connect(), hub.connect()
        sender.send((SAMPLES / name).read_bytes())
        entry = MANIFEST[name]
        forwarded = entry.get("forwarded", entry["messages"])
        rejected = entry.get("rejected", {})
        if level is Level.STRICT:
            forwarded = entry.get("forwarded_strict", forwarded)
            rejected = entry.get("rejected_strict", rejected)
        if (name, level) == ("legacy.v2", Level.STRICT):
            forwarded, rejected = 0, {"tlv": entry["messages"]}
        if (name, level) == ("mixed.v2", Level.STRICT):
            forwarded, rejected = 809, {"checksum": 191}
        assert len(list(split(consumer.received))) == forwarded
        counted = {reason: n for reason, n in hub.counters.dropped.items() if n}
        assert counted == rejected
        assert sender.closed == bool({"magic", "size"} & set(rejected))


@pytest.mark.parametrize("seed", range(6))
def test_random_traffic(any_hub: Hub, seed: int) -> None:
    """Each gets all the others' messages in order; every figure is that of the bytes it got."""
    chance = random.Random(seed)
    clients: list[Client] = []
    expected: dict[Client, bytearray] = {}
    gone: list[Client] = []
    sent_by: dict[Client, int] = {}
    for number in range(400):
        what = chance.choice(["connect", "send", "send", "send", "take", "take", "leave"])
        if what == "connect" or len(clients) < 2:
            client = any_hub.connect(chance.choice([0, 100, 1000, 1e9]))
            clients.append(client)
            expected[client], sent_by[client] = bytearray(), 0
        elif what == "send":
            sender, run = chance.choice(clients), messages(chance.randint(1, 3), 60, number)
            sent_by[sender] += len(run)
            for client in clients:
                if client is not sender:
                    expected[client] += b"".join(run)
            sender.send(b"".join(run))
        elif what == "take":
            chance.choice(clients).take(chance.choice([1, 60, 100, 500]))
        else:
            gone.append(clients.pop(chance.randrange(len(clients))))
            gone[-1].lose()
        for client in clients:
            assert expected[client].startswith(client.received)
            cursor = client.protocol.cursor
            assert cursor.bytes_out == len(client.received)
            assert cursor.messages_out == len(client.received) // 60
            assert cursor.missing == len(expected[client]) // 60 - cursor.messages_out
            assert client.protocol.messages_in == sent_by[client]
        everybody = clients + gone
        factory = any_hub.factory
        assert factory.bytes_delivered == sum(len(each.received) for each in everybody)
        assert factory.messages_delivered == sum(len(e.received) // 60 for e in everybody)
        assert any_hub.counters.messages_received == sum(sent_by.values())
    for client in clients:
        client.take()
        assert client.received == expected[client]
    assert len(gone) > 10
    assert list(any_hub.factory.peers) == [client.protocol for client in clients]


class TestForwarded:
    LINE = "forwarded message: sender 1 ("

    def test_is_a_line_if_verbose(self, make_hub: MakeHub, logged: Events) -> None:
        hub = make_hub(verbose=True)
        sender, *_ = hub.connect(), hub.connect(), hub.connect(room=0)
        sender.send(b"".join(messages(3)))
        (line,) = logged.lines(self.LINE)
        assert "192 bytes, 3 messages, 1 peers" in line
        assert logged.level_of(self.LINE) == "debug"

    def test_else_is_none(self, hub: Hub, logged: Events) -> None:
        sender, _ = hub.connect(), hub.connect()
        sender.send(*messages(3))
        assert logged.lines("forwarded") == []

    def test_is_measured_once_a_chunk(self, hub: Hub) -> None:
        sender, _ = hub.connect(), hub.connect()
        sender.send(b"".join(messages(3)), message())
        assert sum(hub.counters.forward.counts) == 2
        assert 0 < hub.counters.forward.total < 5


class TestFailure:
    """What goes wrong with one peer is that one's."""

    def break_(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: object) -> None:
            raise RuntimeError("out of order")

        monkeypatch.setattr(client.protocol.outlet, "send", fail)

    def test_harms_nobody_else(
        self, any_hub: Hub, logged: Events, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sender, before, bad, after = (any_hub.connect() for _ in range(4))
        self.break_(bad, monkeypatch)
        sent = messages(2)
        sender.send(*sent)
        assert [str(error) for error in logged.flush_failures()] == ["out of order"]
        assert before.received == after.received == b"".join(sent)
        assert not sender.closed
        assert any_hub.counters.ended[Ending.FAULT] == 1
        assert bad.closed
        assert len(any_hub.factory.departed) == 1

    def test_when_it_takes_bytes_again_either(
        self, hub: Hub, logged: Events, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sender, bad = hub.connect(), hub.connect(room=0)
        sender.send(message())
        self.break_(bad, monkeypatch)
        bad.take()
        assert [str(error) for error in logged.flush_failures()] == ["out of order"]
        assert hub.counters.ended[Ending.FAULT] == 1

    def test_of_all_at_once(
        self, hub: Hub, logged: Events, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sender, *bad = (hub.connect() for _ in range(4))
        for client in bad:
            self.break_(client, monkeypatch)
        sender.send(message())
        assert len(logged.flush_failures()) == 3
        assert [peer.identity.number for peer in hub.factory.peers] == [1]


class TestRefusal:
    def test_tells_why_and_closes(self, make_hub: MakeHub, logged: Events) -> None:
        hub = make_hub(max_peers=2)
        hub.connect(), hub.connect()
        third = hub.connect()
        told = parse_error(third.received)
        assert told is not None
        assert (told.code, told.text) == (ErrorCode.TOO_MANY_PEERS, "refused: too_many_peers")
        assert third.closed
        assert hub.counters.refused[Refusal.TOO_MANY_PEERS] == 1
        assert (hub.counters.accepted, len(list(hub.factory.peers))) == (2, 2)
        assert len(logged.lines("connection refused: ")) == 1
        assert "reason=too_many_peers" in logged.lines("connection refused: ")[0]

    @pytest.mark.parametrize("transport", [Pipe, Ordinary])
    def test_there_is_room_when_one_left(self, make_hub: MakeHub, transport: Any) -> None:
        hub = make_hub(max_peers=1, transport=transport)
        hub.connect().lose()
        second, third = hub.connect(), hub.connect()
        assert (second.closed, third.closed) == (False, True)

    @pytest.mark.parametrize("transport", [Pipe, Ordinary])
    def test_who_does_not_take_the_error_is_cut(
        self, make_hub: MakeHub, clock: Any, transport: Any
    ) -> None:
        hub = make_hub(max_peers=0, transport=transport)
        client = hub.connect()
        if transport is Ordinary:
            clock.advance(FAREWELL_SECONDS - 0.1)
            assert client.closed
            assert not client.transport.disconnected
            clock.advance(0.1)
        assert client.transport.disconnected

    def test_who_is_gone_is_not_cut(self, make_hub: MakeHub, clock: Any) -> None:
        hub = make_hub(max_peers=0, transport=Ordinary)
        hub.connect().lose()
        assert not clock.getDelayedCalls()

    def test_the_limit_can_be_changed(self, make_hub: MakeHub) -> None:
        hub = make_hub(max_peers=1)
        hub.factory.max_peers = 2
        assert isinstance(hub.connect().protocol, SignalRelayProtocol)
        assert isinstance(hub.connect().protocol, SignalRelayProtocol)


class TestDeparted:
    def test_the_last_ones_are_kept(self, hub: Hub) -> None:
        for _ in range(DEPARTED_KEPT + 10):
            hub.connect().lose()
        assert DEPARTED_KEPT == 50
        numbers = [each.identity.number for each in hub.factory.departed]
        assert numbers == list(range(11, 61))

    def test_numbers_are_given_once(self, hub: Hub) -> None:
        first = hub.connect()
        first.lose()
        assert hub.connect().protocol.identity.number == 2


class TestWindow:
    def test_memory_is_the_window_s_whatever_comes(self, hub: Hub) -> None:
        sender, _ = hub.connect(), hub.connect()
        hub.fill(sender, 5 * hub.factory.log.window)
        assert hub.factory.log.head - hub.factory.log.tail <= hub.factory.log.window

    def test_those_that_keep_up_are_not_overtaken(self, any_hub: Hub) -> None:
        sender, consumer = any_hub.connect(), any_hub.connect()
        sent = any_hub.fill(sender, 3 * any_hub.factory.log.window)
        assert consumer.received == b"".join(sent)
        assert sum(any_hub.counters.missed.values()) == 0

    def test_a_held_publisher_loses_no_burst(self, hub: Hub) -> None:
        """A publisher that stops when it is held, a consumer that takes as it can."""
        sender, consumer = hub.connect(), hub.connect(room=0)
        sent = []
        consumer.take(1)
        for number in range(400):
            while sender.held:
                consumer.take(20_000)
            sent.append(message(16 * 1024, number))
            sender.send(sent[-1])
        consumer.take()
        assert consumer.received == b"".join(sent)
        assert not consumer.closed


class TestOvertaking:
    def test_only_those_whose_bytes_go(self, hub: Hub) -> None:
        factory = hub.factory
        sender, slow = hub.connect(), hub.connect(room=10)
        hub.fill(sender, factory.log.window // 3)
        half = hub.connect(room=0)
        while not slow.closed:
            sender.send(message(16 * 1024))
        assert not half.closed
        assert half.protocol.state is State.BEHIND
        assert hub.counters.missed[Miss.OVERTAKEN] > 0

    def test_not_one_whose_next_byte_stays(self, hub: Hub) -> None:
        """It has taken exactly what the log gives up first."""
        log = hub.factory.log
        sender, slow = hub.connect(), hub.connect(room=0)
        hub.fill(sender, log.window // 2)
        given_up = len(log.read(0))
        slow.take(given_up)
        while log.tail == 0:
            sender.send(message(16 * 1024))
        assert log.tail == given_up
        assert not slow.closed
        slow.take()
        assert slow.protocol.cursor.at_head

    def test_while_it_publishes_itself(self, hub: Hub) -> None:
        """The window's end reaches the very peer whose bytes are being received."""
        sender, both = hub.connect(), hub.connect(room=10)
        sender.send(*messages(2))
        both.take(10)
        last = b""
        while not both.closed:
            both.send(last := message(16 * 1024))
        assert hub.counters.ended[Ending.OVERTAKEN] == 1
        assert sender.received.endswith(last[100:])
        sender.send(message())
        assert hub.factory.log.messages == hub.counters.messages_received


def test_one_that_is_overtaken_while_it_is_received_from_is_not_held(hub: Hub, clock: Any) -> None:
    """What it sent is delivered; but nothing would ever take note that it is gone."""
    log = hub.factory.log
    sender, slow, both = hub.connect(), hub.connect(room=0), hub.connect(room=10)
    sender.send(*messages(2))
    sender.lose()
    both.take(10)
    while not both.closed:
        if log.lag(slow.protocol.cursor.position) > 5 * log.window // 8:
            slow.take(16 * 1024)
        both.send(message(16 * 1024))
    assert hub.counters.ended[Ending.OVERTAKEN] == 1
    assert not slow.closed
    assert hub.factory.pace.held == 0
    hub.finish_aborted()
    assert not clock.getDelayedCalls()


def test_a_peer_that_leaves_while_others_are_sent_to(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, first, second, third = (hub.connect() for _ in range(4))
    send = first.transport.send

    def send_and_close_another(data: memoryview) -> int:
        if not second.lost:
            second.lost = True
            second.transport.producer.stopProducing()
            second.protocol.connectionLost(Failure(ConnectionDone()))
        return int(send(data))

    monkeypatch.setattr(first.transport, "send", send_and_close_another)
    sender.send(each := message())
    assert first.received == third.received == each
    assert second.received == b""


def test_broken_streams_of_many_harm_nobody(any_hub: Hub) -> None:
    sender, consumer, *bad = (any_hub.connect() for _ in range(6))
    sent = messages(8)
    for client, each in zip(bad * 2, sent, strict=True):
        client.send(BROKEN)
        sender.send(each)
    assert consumer.received == b"".join(sent)
    assert any_hub.counters.ended[Ending.MAGIC] == 4
