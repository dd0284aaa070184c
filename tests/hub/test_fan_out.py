"""The compiled inner loop, on real sockets: what it forwards, and what it leaves to Python."""

import errno
import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphapulse_relay.hub.counters import Counters
from alphapulse_relay.protocol_v2.framing import Rules, split
from alphapulse_relay.protocol_v2.native import load
from tests.hub.fakes import BROKEN, memory_log, message, messages
from tests.hub.test_counters import RUNS
from tests.protocol_v2 import streams
from tests.support import MANIFEST, SAMPLES

_fanout: Any = load("alphapulse_relay.hub._fanout")
pytestmark = pytest.mark.skipif(_fanout is None, reason="pure Python is asked for, or built")

RECEIVE, GATHER, WORK = 64 * 1024, 4 * 1024, 1 << 20
WINDOW = 8 << 20
NOW = 1_800_000_000_000_000_000


class Seated:
    """A peer as the fan-out sees it, on one end of a socket pair."""

    def __init__(self, hub: "Scene", number: int) -> None:
        self.hub = hub
        self.origin = number
        self.ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(10)
        self.seat: int | None = None
        self.torn_bytes = b""
        self.stream_offset = 0
        self.ended = False
        self.rules = hub.rules
        self.limited = False
        self.events: list[tuple[Any, ...]] = []

    def published(self, length: int, count: int) -> None:
        self.events.append(("published", length, count))

    def dataReceived(self, data: bytes) -> None:
        self.events.append(("left", data))

    def send(self, *parts: bytes) -> None:
        """Have the other end send, until this one has it all."""
        self.theirs.sendall(b"".join(parts))

    def receive(self, work: int = WORK) -> int:
        return int(self.hub.fan_out.receive(self, self.ours.fileno(), work))

    def read(self, length: int) -> bytes:
        """Have the other end read so much, in whatever thread."""
        got = bytearray()
        while len(got) < length and (piece := self.theirs.recv(length - len(got))):
            got += piece
        return bytes(got)

    def got(self) -> bytes:
        """Return what the other end was sent so far."""
        got = bytearray()
        while select.select([self.theirs], [], [], 0)[0] and (piece := self.theirs.recv(1 << 20)):
            got += piece
        return bytes(got)


class Pacer:
    """Says up to where nobody needs to be looked at."""

    next_look = 1 << 60


class Scene:
    """A fan-out, and the peers at it."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.log = memory_log(WINDOW)
        self.counters = Counters()
        self.pace = Pacer()
        self.told: list[tuple[Any, ...]] = []
        self.rules = rules or Rules()
        self.fan_out = _fanout.FanOut(
            self.log,
            self.rules,
            self.pace,
            self.counters,
            lambda *what: self.told.append(("forwarded", *what[:4])),
            lambda *what: self.told.append(("fell behind", *what)),
            receive_size=RECEIVE,
            gather_size=GATHER,
        )
        self.peers: list[Seated] = []

    def peer(self, *, rides: bool = True) -> Seated:
        peer = Seated(self, len(self.peers) + 1)
        self.peers.append(peer)
        if rides:
            self.fan_out.add(peer, peer.ours.fileno())
        return peer

    def close(self) -> None:
        for peer in self.peers:
            peer.ours.close()
            peer.theirs.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


class TestForwarding:
    def test_to_all_but_the_sender(self, scene: Scene) -> None:
        sender, one, two = scene.peer(), scene.peer(), scene.peer()
        sent = b"".join(messages(100))
        sender.send(sent)
        assert sender.receive() == 0
        assert (sender.got(), one.got(), two.got()) == (b"", sent, sent)
        assert sender.events == [("published", 6400, 100)]
        assert scene.told == [("forwarded", sender, 6400, 100, 2)]

    def test_from_one_that_does_not_ride(self, scene: Scene) -> None:
        sender, one = scene.peer(rides=False), scene.peer()
        sender.send(sent := message())
        sender.receive()
        assert (sender.got(), one.got()) == (b"", sent)

    def test_moves_the_head(self, scene: Scene) -> None:
        sender = scene.peer()
        sent = b"".join(messages(100))
        sender.send(sent)
        sender.receive()
        assert bytes(scene.log.read(0)) == sent
        assert (scene.log.head, scene.log.messages) == (6400, 100)
        assert scene.log.stretch(0, frozenset({sender.origin})) == (6400, 6400)
        assert sender.stream_offset == 6400

    def test_of_nothing(self, scene: Scene) -> None:
        sender = scene.peer()
        assert sender.receive() == 0
        assert (sender.events, scene.told) == ([], [])

    @pytest.mark.parametrize("cut", [1, 3, 4, 31, 32, 33, 63])
    def test_a_torn_message_waits_for_its_end(self, scene: Scene, cut: int) -> None:
        sender, consumer, other = (scene.peer() for _ in range(3))
        first, second, third = messages(3)
        sender.send(first, second[:cut])
        sender.receive()
        other.send(third)
        other.receive()
        assert consumer.got() == first + third
        sender.send(second[cut:])
        sender.receive()
        assert consumer.got() == second
        assert sender.torn_bytes == b""

    def test_across_many_chunks(self, scene: Scene) -> None:
        sender, consumer = scene.peer(), scene.peer()
        # More than the consumer's socket takes; less than a log segment is left.
        sent = b"".join(messages(900, 200))
        sender.send(sent)
        sender.receive()
        assert consumer.got() == sent
        assert scene.told == [("forwarded", sender, len(sent), 900, 1)]
        assert sum(scene.counters.forward.counts) == 3, "one for each chunk"

    def test_what_python_has_appended(self, scene: Scene) -> None:
        sender, consumer = scene.peer(), scene.peer()
        run = scene.log.space(64)
        run[:] = sent = message()
        scene.log.append(64, sender.origin, 1)
        assert scene.fan_out.send(run, sender) == 1
        assert (sender.got(), consumer.got()) == (b"", sent)


class TestLeftToPython:
    def test_what_fails_a_check_and_what_follows(self, scene: Scene) -> None:
        sender, consumer = scene.peer(), scene.peer()
        sound, bad, after = messages(3)
        bad = bad[:-1] + bytes([bad[-1] ^ 1])
        sender.send(sound, bad, after)
        sender.receive()
        assert consumer.got() == sound
        assert sender.events == [("published", 64, 1), ("left", bad + after)]
        assert sender.torn_bytes == b""

    def test_what_is_no_message(self, scene: Scene) -> None:
        sender = scene.peer()
        sender.send(BROKEN)
        sender.receive()
        assert sender.events == [("left", BROKEN)]

    def test_with_what_was_torn_before(self, scene: Scene) -> None:
        sender = scene.peer()
        bad = message()[:-1] + b"\xff"
        sender.send(bad[:40])
        sender.receive()
        assert sender.torn_bytes == bad[:40]
        sender.send(bad[40:])
        sender.receive()
        assert sender.events == [("left", bad)]

    @pytest.mark.parametrize(("size", "left"), [(GATHER - 1, False), (GATHER, True)])
    def test_large_messages_in_pieces(self, scene: Scene, size: int, left: bool) -> None:
        sender = scene.peer()
        large = message(size)
        sender.send(large[:100])
        sender.receive()
        assert sender.events == ([("left", large[:100])] if left else [])
        assert sender.torn_bytes == (b"" if left else large[:100])

    def test_a_large_message_in_one_piece_is_not(self, scene: Scene) -> None:
        sender, consumer = scene.peer(), scene.peer()
        sender.send(large := message(50_000))
        sender.receive()
        assert consumer.got() == large


class TestLaggards:
    def test_take_what_they_have_room_for(self, scene: Scene) -> None:
        sender, full, consumer = (scene.peer() for _ in range(3))
        full.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        sent = b"".join(messages(300, 200))
        sender.send(sent)
        sender.receive()
        behind, forwarded = scene.told
        assert forwarded == ("forwarded", sender, len(sent), 300, 1)
        assert consumer.got() == sent
        took = full.got()
        assert sent.startswith(took)
        assert 0 < len(took) < len(sent)
        assert behind == ("fell behind", full, len(took), False)
        assert full.seat is None

    def test_get_nothing_more(self, scene: Scene) -> None:
        sender, full = scene.peer(), scene.peer()
        full.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        sender.send(b"".join(messages(300, 200)))
        sender.receive()
        full.got()
        sender.send(message())
        sender.receive()
        assert full.got() == b""

    def test_end_the_turn_early(self, scene: Scene) -> None:
        """What follows waits until they go on by themselves: that is Python's to decide."""
        sender, full = scene.peer(), scene.peer()
        full.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        sender.send(b"".join(messages(900, 200)))
        left = sender.receive()
        assert left == WORK - 3 * RECEIVE
        assert scene.log.head <= RECEIVE

    def test_one_that_has_closed(self, scene: Scene) -> None:
        sender, gone, consumer = (scene.peer() for _ in range(3))
        gone.theirs.close()
        sender.send(sent := message())
        sender.receive()
        assert scene.told[0] == ("fell behind", gone, 0, True)
        assert consumer.got() == sent

    def test_several_at_once(self, scene: Scene) -> None:
        sender = scene.peer()
        peers = [scene.peer() for _ in range(9)]
        for gone in peers[::2]:
            gone.theirs.close()
        for _ in range(2):
            sender.send(message())
            sender.receive()
        behind = [what[1] for what in scene.told if what[0] == "fell behind"]
        assert behind == peers[::2]
        assert sum(peer.seat is not None for peer in scene.peers) == 5
        assert [len(peer.got()) for peer in peers[1::2]] == [128] * 4


class TestGrace:
    """In a flood those with full sockets are waited for a little; else nobody is."""

    def flooded(self, scene: Scene) -> tuple[Seated, Seated, bytes]:
        """Return a publisher with more than one receive takes, and a peer with little room."""
        sender, small = scene.peer(), scene.peer()
        sender.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        small.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        sent = b"".join(messages(400, 200))
        sender.send(sent)
        return sender, small, sent

    def test_who_reads_on_rides_on(self, scene: Scene) -> None:
        sender, small, sent = self.flooded(scene)
        with ThreadPoolExecutor(1) as reader:
            # However late the thread runs: the peer either rides on, or is told what it took.
            got = reader.submit(small.read, RECEIVE // 200 * 200)
            sender.receive(RECEIVE)
            if small.seat is None:
                (behind,) = [what for what in scene.told if what[0] == "fell behind"]
                small.ours.sendall(sent[behind[2] : RECEIVE // 200 * 200])
            assert got.result() == sent[: RECEIVE // 200 * 200]

    def test_who_does_not_falls_behind(self, scene: Scene) -> None:
        sender, small, sent = self.flooded(scene)
        sender.receive()
        took = small.got()
        assert ("fell behind", small, len(took), False) in scene.told
        assert sent.startswith(took)

    def test_who_has_closed_is_not_waited_for(self, scene: Scene) -> None:
        sender, gone, _ = self.flooded(scene)
        gone.theirs.close()
        sender.receive()
        assert ("fell behind", gone, 0, True) in scene.told


class TestKeptTurn:
    """A publisher keeps its turn while its next message is all that happens."""

    @pytest.fixture
    def reactor(self) -> Iterator[select.epoll]:
        with select.epoll() as epoll:
            yield epoll

    def receive(self, sender: Seated, reactor: select.epoll, wait: float) -> int:
        descriptor, nanoseconds = sender.ours.fileno(), int(wait * 1e9)
        fan_out = sender.hub.fan_out
        return int(fan_out.receive(sender, descriptor, WORK, reactor.fileno(), nanoseconds))

    def test_for_what_comes_in_time(self, scene: Scene, reactor: select.epoll) -> None:
        sender, consumer = scene.peer(), scene.peer()
        reactor.register(sender.ours, select.EPOLLIN)
        first, second, last = messages(3)
        sender.send(first)

        def go_on() -> None:
            """Send each when the one before has arrived, then end: nothing else wakes it."""
            for arrived, following in ((first, second), (second, last)):
                assert consumer.read(64) == arrived
                sender.send(following)
            assert consumer.read(64) == last
            sender.theirs.shutdown(socket.SHUT_WR)

        with ThreadPoolExecutor(1) as publisher:
            going_on = publisher.submit(go_on)
            assert self.receive(sender, reactor, 20) == -errno.ESHUTDOWN
            going_on.result()
        assert sender.events == [("published", 192, 3)]
        assert scene.log.stretch(0, frozenset({99})) == (0, 192)

    def test_until_the_wait_is_over(self, scene: Scene, reactor: select.epoll) -> None:
        sender = scene.peer()
        reactor.register(sender.ours, select.EPOLLIN)
        sender.send(message())
        assert self.receive(sender, reactor, 0.001) == 0

    def test_not_if_anything_else_happens(self, scene: Scene, reactor: select.epoll) -> None:
        sender, other = scene.peer(), scene.peer()
        reactor.register(sender.ours, select.EPOLLIN)
        reactor.register(other.ours, select.EPOLLIN)
        sender.send(message())
        other.send(message())
        assert self.receive(sender, reactor, 20) == 0
        assert scene.log.messages == 1

    def test_not_for_a_peer_that_fell_behind(self, scene: Scene, reactor: select.epoll) -> None:
        sender, gone = scene.peer(), scene.peer()
        reactor.register(sender.ours, select.EPOLLIN)
        gone.theirs.close()
        sender.send(message())
        assert self.receive(sender, reactor, 20) == 0
        assert scene.told[0] == ("fell behind", gone, 0, True)


class TestTheEnd:
    def test_of_the_stream(self, scene: Scene) -> None:
        sender, consumer = scene.peer(), scene.peer()
        sender.send(sent := message())
        sender.theirs.close()
        assert sender.receive() == 0
        assert sender.receive() == -errno.ESHUTDOWN
        assert consumer.got() == sent

    def test_after_a_full_chunk_keeps_what_came(self, scene: Scene) -> None:
        sender, consumer = scene.peer(), scene.peer()
        sent = message(RECEIVE // 2) * 2
        sender.send(sent)
        sender.theirs.close()
        assert sender.receive() == -errno.ESHUTDOWN
        assert consumer.got() == sent

    def test_by_an_error(self, scene: Scene) -> None:
        sender = scene.peer(rides=False)
        sender.ours.close()
        assert scene.fan_out.receive(sender, 1 << 20, WORK) == -errno.EBADF

    def test_closed_with_unread_bytes(self, scene: Scene) -> None:
        sender = scene.peer()
        sender.ours.send(b"unread")
        sender.theirs.close()
        assert sender.receive() == -errno.ECONNRESET


class TestFaults:
    def test_at_the_sender_leave_the_others_in_order(self, scene: Scene) -> None:
        """One that was sent a part goes on from there, whatever happens."""
        sender, small = scene.peer(), scene.peer()
        small.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)

        def fail(*_: object) -> None:
            raise RuntimeError("no")

        sender.published = fail  # type: ignore[method-assign]
        sender.send(b"".join(messages(200, 200)))
        with pytest.raises(RuntimeError, match="no"):
            sender.receive()
        assert scene.told == [("fell behind", small, len(small.got()), False)]
        assert small.seat is None

    def test_one_that_the_log_has_overtaken_receives_nothing(self, scene: Scene) -> None:
        sender, consumer = scene.peer(), scene.peer()
        sender.send(message())
        sender.ended = True
        assert sender.receive() == 0
        assert (consumer.got(), scene.log.head) == (b"", 0)


class TestTurns:
    def filled(self, scene: Scene) -> Seated:
        sender = scene.peer()
        sender.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sender.send(b"".join(messages(50, 4000)))
        return sender

    def test_work_counts_what_is_received_and_sent(self, scene: Scene) -> None:
        sender = self.filled(scene)
        assert sender.receive(WORK) == 0
        assert scene.log.messages == 50

    def test_are_over_when_the_work_is_done(self, scene: Scene) -> None:
        sender, _ = self.filled(scene), scene.peer()
        assert sender.receive(RECEIVE) == 0
        assert scene.log.head < RECEIVE

    def test_are_over_for_the_log_where_pace_has_to_look(self, scene: Scene) -> None:
        sender = self.filled(scene)
        scene.pace.next_look = 0
        assert sender.receive(WORK) == WORK - 2 * RECEIVE
        assert 0 < scene.log.head < RECEIVE

    def test_are_chunkwise_where_python_has_to_be_told(self, scene: Scene) -> None:
        sender = self.filled(scene)
        scene.fan_out.chunkwise = True
        assert sender.receive(WORK) > 0
        assert scene.log.head < RECEIVE
        assert sum(scene.counters.forward.counts) == 0, "Python is not done yet"

    def test_end_with_the_segment(self, scene: Scene) -> None:
        sender, size = scene.peer(), WINDOW // 8
        scene.log.space(size - RECEIVE)
        scene.log.append(size - RECEIVE, 99, 1)
        sender.send(message())
        sender.receive()
        sender.send(message())
        sender.receive()
        assert scene.log.messages == 3
        assert len(scene.log.read(size - RECEIVE)) == 64


def tallied(count: Callable[..., None], counters: Counters, runs: list[bytes]) -> tuple[Any, ...]:
    for run in runs:
        count(memoryview(run), NOW)
    arrays = (
        counters.types,
        counters.malformed,
        counters.age.counts,
        counters.sources,
        counters.sequences,
        counters.sequences_missing,
        counters.sequences_repeated,
    )
    return tuple(map(list, arrays))


@given(stream=st.lists(streams.messages, min_size=1, max_size=8))
def test_counts_are_the_same_with_and_without(stream: list[bytes]) -> None:
    scene, pure = Scene(), Counters()
    runs = [b"".join(stream), stream[0]]
    compiled = tallied(scene.fan_out.count, scene.counters, runs)
    assert compiled == tallied(pure.count, pure, runs)
    assert scene.counters.age.total == pytest.approx(pure.age.total)


@given(run=RUNS)
def test_publishers_count_the_same_with_and_without(run: list[bytes]) -> None:
    scene, pure = Scene(), Counters()
    runs = [b"".join(run), b"".join(run[:3])]
    compiled = tallied(scene.fan_out.count, scene.counters, runs)
    assert compiled == tallied(pure.count, pure, runs)


@pytest.mark.parametrize("name", [n for n, facts in MANIFEST.items() if "all" in facts["expect"]])
def test_samples_count_the_same_with_and_without(name: str) -> None:
    data = b"".join(split((SAMPLES / name).read_bytes()))
    scene, pure = Scene(), Counters()
    compiled = tallied(scene.fan_out.count, scene.counters, [data])
    assert compiled == tallied(pure.count, pure, [data])


def test_seats_are_taken_again(scene: Scene) -> None:
    peers = [scene.peer() for _ in range(200)]
    for peer in peers[:150]:
        scene.fan_out.remove(peer)
    assert sorted(peer.seat for peer in peers[150:]) == list(range(50))  # type: ignore[type-var]
    peers[0].send(sent := message())
    peers[0].receive()
    assert all(peer.got() == sent for peer in peers[150:])
