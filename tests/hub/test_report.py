"""What goes wrong: all of it is counted, and each kind has a bound of its own in the log."""

from collections.abc import Callable
from typing import Any

from alphapulse_relay.hub.peer import Ending, Refusal
from alphapulse_relay.hub.throttle import LINES_PER_SECOND
from alphapulse_relay.protocol_v2.control import parse_error
from alphapulse_relay.protocol_v2.errors import Rejection
from tests.hub.fakes import BROKEN, Events, Hub, message, messages

MakeHub = Callable[..., Hub]


class TestDropped:
    def bad(self) -> bytes:
        bad = bytearray(message())
        bad[50] ^= 1
        return bytes(bad)

    def test_lines_are_bounded_and_figures_are_not(
        self, hub: Hub, logged: Events, clock: Any
    ) -> None:
        client = hub.connect()
        client.send(*[self.bad()] * 100)
        assert hub.counters.dropped[Rejection.CHECKSUM] == 100
        assert len(logged.lines("dropped messages: 1, ")) == LINES_PER_SECOND
        clock.advance(1)
        client.send(self.bad())
        assert "(90 such lines left out before)" in logged.lines("dropped")[-1]

    def test_the_first_is_told_by_its_place_in_the_stream(self, hub: Hub, logged: Events) -> None:
        client = hub.connect()
        client.send(*messages(10), self.bad()[:40], self.bad()[40:] + message() + self.bad())
        (line,) = logged.lines("dropped")
        assert "dropped messages: 2, " in line
        assert "reason=checksum, the first at byte 640 of its stream: " in line

    def test_a_chunk_is_one_line(self, hub: Hub, logged: Events) -> None:
        wrong_domain = bytearray(message())
        wrong_domain[4] = 1
        hub.connect().send(self.bad() + bytes(wrong_domain) + self.bad())
        (line,) = logged.lines("dropped messages: 3, peer 1 (")
        assert "reason=checksum, the first at byte 0 " in line
        assert hub.counters.dropped[Rejection.CHECKSUM] == 2
        assert hub.counters.dropped[Rejection.DOMAIN] == 1


class TestLines:
    """The kinds that peers can provoke, each with a bound of its own."""

    def test_of_broken_streams_are_bounded_and_figures_are_not(
        self, hub: Hub, logged: Events, clock: Any
    ) -> None:
        for _ in range(50):
            hub.connect().send(BROKEN)
        assert hub.counters.dropped[Rejection.MAGIC] == hub.counters.ended[Ending.MAGIC] == 50
        assert len(logged.lines("reason=magic, the first")) == LINES_PER_SECOND
        clock.advance(1)
        hub.finish_aborted()
        hub.connect().send(BROKEN)
        assert "(40 such lines left out before)" in logged.lines("reason=magic, the first")[-1]

    def test_of_one_kind_take_nothing_from_another(self, hub: Hub, logged: Events) -> None:
        bad = bytearray(message())
        bad[50] ^= 1
        client = hub.connect()
        client.send(*[bytes(bad)] * 50)
        for _ in range(50):
            hub.connect().send(BROKEN)
        hub.factory.max_peers = 1
        for _ in range(50):
            hub.connect()
        for kind in ("=checksum, the first", "=magic, the first", "connection refused"):
            lines = logged.lines(kind)
            assert len(lines) == LINES_PER_SECOND
            assert not any("left out" in line for line in lines)

    def test_a_broken_stream_is_told_by_its_place_in_it(self, hub: Hub, logged: Events) -> None:
        client = hub.connect()
        client.send(*messages(10), message()[:50], message()[50:] + BROKEN)
        (line,) = logged.lines("dropped messages: 1, peer 1 (")
        assert "reason=magic, the first at byte 704 of its stream: " in line
        told = parse_error(client.received)
        assert told is not None
        assert told.text.startswith("magic at byte 704: ")

    def test_of_refused_connections_are_bounded(self, make_hub: MakeHub, logged: Events) -> None:
        hub = make_hub(max_peers=0)
        for _ in range(50):
            hub.connect()
        assert hub.counters.refused[Refusal.TOO_MANY_PEERS] == 50
        assert len(logged.lines("connection refused")) == LINES_PER_SECOND
