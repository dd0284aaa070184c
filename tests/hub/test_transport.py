"""The transports, on real sockets and the real reactor: what the kernel does to them."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.outlet import UNDER_WAY, IOutlet
from alphapulse_relay.hub.peer import Ending, State
from alphapulse_relay.hub.protocol import SignalRelayProtocol
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.hub.transport import (
    CHUNK_WORK,
    PUBLISHER_WAIT,
    REST_LIMIT,
    SEND_LIMIT,
    TURN_WORK,
    RelayTransport,
    TCPTransport,
    UnixTransport,
)
from alphapulse_relay.protocol_v2.control import parse_error
from alphapulse_relay.protocol_v2.framing import Rules
from tests.hub.fakes import BROKEN, Events, message, messages
from tests.hub.sockets import PATIENCE, Relay, Remote, reactor, turns, until

READS = TURN_WORK // CHUNK_WORK


@pytest_twisted.async_yield_fixture
async def relay(path: Path) -> Any:
    relay = Relay(path, "relay")
    yield relay
    await relay.stop()


@pytest_twisted.async_yield_fixture(params=["relay", "tcp"])
async def own_relay(request: Any, path: Path) -> Any:
    """A hub whose transports are its own."""
    relay = Relay(path, request.param)
    yield relay
    await relay.stop()


@pytest_twisted.async_yield_fixture(
    params=["relay", "unix", "tcp", "ordinary unix", "ordinary tcp", "tls"]
)
async def any_relay(request: Any, path: Path) -> Any:
    relay = Relay(path, request.param)
    yield relay
    await relay.stop()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class TestEveryTransport:
    async def test_everybody_gets_what_the_others_send(self, any_relay: Relay) -> None:
        one, two, three = [(await any_relay.connect())[0] for _ in range(3)]
        first, second = b"".join(messages(50)), b"".join(messages(30, 5000, 100))
        await one.send(first)
        assert await three.receive(len(first)) == first
        await two.send(second)
        assert await three.receive(len(second)) == second
        assert await one.receive(len(second)) == second
        assert await two.receive(len(first)) == first

    async def test_a_consumer_that_reads_late_gets_all(self, any_relay: Relay) -> None:
        sender, _ = await any_relay.connect()
        late, peer = await any_relay.connect()
        sent = b"".join(messages(60, 60_000))
        sending = sender.send(sent)
        await until(lambda: peer.state is State.BEHIND)
        assert await late.receive(len(sent)) == sent
        await sending
        await until(lambda: peer.state is State.LIVE)
        assert peer.cursor.bytes_out == len(sent)

    async def test_an_error_comes_before_the_end(self, any_relay: Relay) -> None:
        client, _ = await any_relay.connect()
        await client.send(BROKEN)
        told = parse_error(await client.receive(1 << 16))
        assert told is not None
        assert "magic" in told.text

    async def test_a_drain_delivers_all_and_closes(self, any_relay: Relay) -> None:
        sender, publisher = await any_relay.connect()
        slow, peer = await any_relay.connect()
        sent = b"".join(messages(50, 60_000))
        sending = sender.send(sent)
        await until(lambda: peer.state is State.BEHIND)
        receiving = slow.receive(len(sent))
        await sending
        await until(lambda: publisher.bytes_in == len(sent))
        await any_relay.factory.drain.begin(PATIENCE)
        assert await receiving == sent
        assert await slow.receive(1) == b""
        assert any_relay.factory.counters.ended[Ending.SHUTDOWN] == 2

    async def test_a_drain_is_over_when_all_has_left(self, any_relay: Relay) -> None:
        """A TCP transport still has bytes of its own to send when the peer is ended."""
        sender, publisher = await any_relay.connect()
        slow, _ = await any_relay.connect()
        sent = b"".join(messages(100, 60_000))
        sending = sender.send(sent)
        await until(lambda: not sending.called or publisher.bytes_in == len(sent))  # type: ignore[attr-defined]
        drained: Any = any_relay.factory.drain.begin(PATIENCE)
        await turns()
        assert not drained.called
        got = await slow.receive(len(sent) + 1)
        await drained
        assert not any(transport.connected for transport in any_relay.transports)
        assert sent.startswith(got)
        sender.close()
        with suppress(OSError):
            await sending

    async def test_one_that_closes_is_gone(self, any_relay: Relay) -> None:
        client, _ = await any_relay.connect()
        await turns()  # TLS has something to say, which nobody would take from one that has gone
        client.close()
        await until(lambda: any_relay.factory.departed)
        assert any_relay.factory.departed[0].reason is Ending.CLOSED


class TestHeld:
    """What a held publisher has sent before it closed is not lost."""

    SENT = messages(20, 5000)

    async def test_nothing_is_read_of_it(self, own_relay: Relay) -> None:
        sender, publisher = await own_relay.connect()
        publisher.hold()
        await sender.send(b"".join(self.SENT))
        await turns()
        assert publisher.bytes_in == 0
        publisher.release()
        await until(lambda: publisher.messages_in == 20)

    async def test_sent_and_closed(self, own_relay: Relay) -> None:
        sender, publisher = await own_relay.connect()
        consumer, _ = await own_relay.connect()
        publisher.hold()
        await sender.send(b"".join(self.SENT))
        sender.close()
        await turns()
        assert own_relay.factory.counters.messages_received == 0
        publisher.release()
        assert await consumer.receive(20 * 5000) == b"".join(self.SENT)
        await until(lambda: own_relay.factory.departed)
        assert own_relay.factory.departed[0].reason is Ending.CLOSED
        assert own_relay.factory.departed[0].messages_in == 20

    async def test_sent_and_closed_with_its_own_socket_full(self, own_relay: Relay) -> None:
        """Then the reactor waits for room in it, and only sees that it is gone."""
        sender, publisher = await own_relay.connect()
        other, other_peer = await own_relay.connect()
        consumer, _ = await own_relay.connect()
        filling = b"".join(messages(10, 60_000))
        await other.send(filling)
        assert await consumer.receive(len(filling)) == filling
        await until(lambda: publisher.state is State.BEHIND)
        publisher.hold()
        await sender.send(b"".join(self.SENT))
        sender.close()
        assert await consumer.receive(20 * 5000) == b"".join(self.SENT)
        await until(lambda: own_relay.factory.departed)
        assert own_relay.factory.departed[0].messages_in == 20
        assert other_peer.messages_in == 10
        assert await other.receive(20 * 5000) == b"".join(self.SENT)

    async def test_a_drain_reads_it(self, own_relay: Relay) -> None:
        sender, publisher = await own_relay.connect()
        consumer, _ = await own_relay.connect()
        publisher.hold()
        await sender.send(b"".join(self.SENT))
        await own_relay.factory.drain.begin(PATIENCE)
        assert await consumer.receive(1 << 20) == b"".join(self.SENT)

    async def test_torn_end_is_counted(self, own_relay: Relay) -> None:
        sender, _ = await own_relay.connect()
        await sender.send(message(64) + message(64)[:50])
        sender.close()
        await until(lambda: own_relay.factory.departed)
        assert own_relay.factory.counters.dropped["torn"] == 1


class TestClosedWithUnreadBytes:
    """As publishers do: the kernel tells it as a reset, but nobody has vanished."""

    @pytest.mark.parametrize("held", [False, True])
    async def test_is_closed_and_not_reset(self, relay: Relay, held: bool) -> None:
        sender, publisher = await relay.connect()
        other, _ = await relay.connect()
        consumer, _ = await relay.connect()
        await other.send(unread := message())
        assert await consumer.receive(64) == unread
        await until(lambda: publisher.cursor.messages_out == 1)
        if held:
            publisher.hold()
        sent = messages(20, 5000)
        await sender.send(b"".join(sent))
        sender.close()
        if held:
            await turns()
            publisher.release()
        assert await consumer.receive(20 * 5000) == b"".join(sent)
        await until(lambda: relay.factory.departed)
        assert relay.factory.departed[0].reason is Ending.CLOSED
        assert relay.factory.departed[0].messages_in == 20

    async def test_when_it_is_sent_to_first(self, relay: Relay) -> None:
        """Sending takes the error away that receiving would have got."""
        sender, publisher = await relay.connect()
        other, _ = await relay.connect()
        await other.send(message())
        await until(lambda: publisher.cursor.messages_out == 1)
        publisher.hold()
        sent = messages(20, 5000)
        await sender.send(b"".join(sent))
        sender.close()
        await other.send(message())
        await until(lambda: publisher.state is State.MUTED)
        publisher.release()
        assert await other.receive(20 * 5000) == b"".join(sent)
        await until(lambda: relay.factory.departed)
        assert relay.factory.departed[0].reason is Ending.CLOSED
        assert relay.factory.counters.missed["muted"] == 0


class TestReadingSideShut:
    async def test_goes_on_publishing(self, relay: Relay, logged: Events) -> None:
        sender, publisher = await relay.connect()
        other, _ = await relay.connect()
        sender.socket.shutdown(socket.SHUT_RD)
        await other.send(message())
        await until(lambda: publisher.state is State.MUTED)
        assert len(logged.lines("has shut its reading side")) == 1
        sent = b"".join(messages(5))
        await sender.send(sent)
        assert await other.receive(len(sent)) == sent
        assert publisher in list(relay.factory.peers)
        sender.close()
        await until(lambda: relay.factory.departed)
        assert relay.factory.departed[0].reason is Ending.CLOSED
        assert relay.factory.counters.missed["muted"] == 1
        assert relay.factory.departed[0].messages_in == 5

    async def test_inside_a_message(self, relay: Relay) -> None:
        sender, publisher = await relay.connect()
        other, _ = await relay.connect()
        await other.send(b"".join(messages(10, 60_000)))
        await until(lambda: publisher.cursor.mid_message)
        sender.socket.shutdown(socket.SHUT_RD)
        await other.send(message())
        await sender.send(last := message(64, 3))
        assert await other.receive(64) == last


class TestWritingSideShut:
    async def test_is_the_end(self, relay: Relay) -> None:
        client, _ = await relay.connect()
        client.socket.shutdown(socket.SHUT_WR)
        await until(lambda: relay.factory.departed)
        assert relay.factory.departed[0].reason is Ending.CLOSED
        assert await client.receive(1) == b""


class TestDescriptors:
    async def test_those_that_a_client_sends_are_closed(self, relay: Relay) -> None:
        client, publisher = await relay.connect()
        before = descriptors()
        for number in range(20):
            socket.send_fds(client.socket, [message(64, number)], [0, 1, 2])
        await until(lambda: publisher.messages_in == 20)
        assert descriptors() == before

    async def test_none_is_left_of_a_connection(self, relay: Relay) -> None:
        first, _ = await relay.connect()
        first.close()
        await until(lambda: not list(relay.factory.peers))
        before = descriptors()
        for ending in ("close", "error", "abort"):
            client, peer = await relay.connect()
            if ending == "error":
                await client.send(BROKEN)
            elif ending == "abort":
                peer.end(Ending.FAULT)
            client.close()
            await until(lambda peer=peer: not peer.transport.connected)
        assert descriptors() == before

    async def test_none_is_left_of_a_refused_one(self, relay: Relay) -> None:
        relay.factory.max_peers = 0
        client = Remote(socket.AF_UNIX, str(relay.path))
        before = descriptors()
        told = parse_error(await client.receive(1 << 16))
        assert told is not None
        await turns()
        assert descriptors() == before
        client.close()


class TestBurst:
    async def test_many_connections_at_once(self, relay: Relay) -> None:
        remotes = [Remote(socket.AF_UNIX, str(relay.path)) for _ in range(90)]
        relay.remotes += remotes
        await until(lambda: len(list(relay.factory.peers)) == 90)
        relay.transports += [peer.transport for peer in list(relay.factory.peers)]  # type: ignore[attr-defined]
        await remotes[0].send(each := message())
        for remote in remotes[1:]:
            assert await remote.receive(64) == each


class FakeSocket:
    """A socket that does what the test says at each call."""

    def __init__(self, descriptor: int, *script: int | OSError) -> None:
        self.fileno = lambda: descriptor
        self.script = list(script)
        self.calls = 0
        self.sent = bytearray()

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        pass

    def _next(self, most: int) -> int:
        self.calls += 1
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, OSError):
            raise step
        return min(step, most)

    def recv_into(self, space: memoryview) -> int:
        return self._next(len(space))

    def send(self, data: memoryview) -> int:
        sent = self._next(len(data))
        self.sent += data[:sent]
        return sent


WOULD_BLOCK = BlockingIOError(errno.EAGAIN, "")
RESET = ConnectionResetError(errno.ECONNRESET, "")
BROKEN_PIPE = BrokenPipeError(errno.EPIPE, "")
ALL = 1 << 30


class BufferProtocol(Protocol):
    """Counts what a transport does to a protocol that names its buffer."""

    fan_out = None
    ended = False

    def __init__(self) -> None:
        self.received: list[int] = []
        self.hold_after = ALL
        self.error: Exception | None = None
        self.ended: list[Failure] = []

    def getBuffer(self) -> memoryview:
        return memoryview(bytearray(65536))

    def bufferUpdated(self, length: int) -> None:
        self.received.append(length)
        if self.error is not None:
            raise self.error
        if len(self.received) == self.hold_after:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.append(reason)


class RecordingProducer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")

    def reader_gone(self) -> None:
        self.calls.append("reader gone")


class Watched:
    """Stands in for the reactor: remembers what is to be watched."""

    def __init__(self) -> None:
        self.readers: set[object] = set()
        self.writers: set[object] = set()
        self.later: list[Callable[[], None]] = []
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard

    def callLater(self, _: float, function: Callable[..., None], *arguments: object) -> None:
        self.later.append(lambda: function(*arguments))


class Made:
    """A transport on one end of a pair of sockets, on a reactor that does nothing."""

    def __init__(self, kind: type[RelayTransport], pair: tuple[socket.socket, socket.socket]):
        self.ours, self.theirs = pair
        self.ours.setblocking(False)
        self.theirs.settimeout(PATIENCE)
        self.reactor = Watched()
        self.protocol = BufferProtocol()
        self.producer = RecordingProducer()
        address = "" if kind is UnixTransport else ("127.0.0.1", 1)
        port = type("FakePort", (), {"_realPortNumber": None, "port": ""})()
        self.transport: Any = kind(self.ours, self.protocol, address, port, 1, self.reactor)
        self.protocol.makeConnection(self.transport)
        self.transport.registerProducer(self.producer, True)

    def script(self, *steps: int | OSError) -> FakeSocket:
        self.transport.socket = fake = FakeSocket(self.ours.fileno(), *steps)
        return fake

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def made() -> Iterator[Made]:
    made = Made(UnixTransport, socket.socketpair())
    yield made
    made.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        return server.accept()[0], theirs


@pytest.fixture
def tcp() -> Iterator[Made]:
    made = Made(TCPTransport, tcp_pair())
    yield made
    made.close()


class TestReceiving:
    def test_is_bounded_in_one_turn(self, made: Made) -> None:
        fake = made.script(ALL)
        assert made.transport.doRead() is None
        assert fake.calls == READS
        assert made.protocol.received == [65536] * READS

    def test_stops_when_the_socket_is_empty(self, made: Made) -> None:
        fake = made.script(65536, 100)
        assert made.transport.doRead() is None
        assert fake.calls == 2
        assert made.protocol.received == [65536, 100]

    def test_stops_when_it_is_held(self, made: Made) -> None:
        fake = made.script(ALL)
        made.protocol.hold_after = 3
        made.transport.doRead()
        assert fake.calls == 3
        made.transport.doRead()
        assert fake.calls == 3, "an event from before it was held"
        made.transport.resumeProducing()
        made.transport.doRead()
        assert fake.calls == 3 + READS

    def test_nothing_there(self, made: Made) -> None:
        made.script(WOULD_BLOCK)
        assert made.transport.doRead() is None
        assert made.protocol.received == []

    @pytest.mark.parametrize(
        ("step", "why"),
        [
            (0, CONNECTION_DONE),
            (ConnectionResetError(errno.ECONNRESET, ""), CONNECTION_DONE),
            (OSError(errno.EIO, ""), CONNECTION_LOST),
        ],
    )
    def test_the_end(self, made: Made, step: int | OSError, why: Exception) -> None:
        made.script(65536, step)
        assert made.transport.doRead() is why
        assert made.protocol.received == [65536]


class TestReactorWait:
    """A reactor is kept waiting for a publisher only while it has nothing else to do."""

    @pytest.fixture
    def epoll(self, made: Made) -> Iterator[Any]:
        made.transport.reactor = epoll = EPollReactor()
        yield epoll
        epoll._poller.close()
        for reader in epoll.removeAll():
            reader.connectionLost(Failure(ConnectionDone()))

    def test_with_nothing_to_do(self, made: Made, epoll: Any) -> None:
        assert made.transport._reactor_wait() == (epoll._poller.fileno(), PUBLISHER_WAIT)

    def test_until_a_timer(self, made: Made, epoll: Any) -> None:
        epoll.callLater(0.05, lambda: None)
        descriptor, wait = made.transport._reactor_wait()
        assert descriptor == epoll._poller.fileno()
        assert 0 < wait <= 50_000_000

    def test_not_with_a_timer_that_is_due(self, made: Made, epoll: Any) -> None:
        epoll.callLater(0, lambda: None)
        assert made.transport._reactor_wait()[1] == 0

    def test_not_with_a_call_from_a_thread(self, made: Made, epoll: Any) -> None:
        """What woke the reactor for it may have been read already, in this same turn."""
        epoll.callFromThread(lambda: None)
        assert made.transport._reactor_wait() == (-1, 0)

    def test_not_with_a_reactor_of_another_kind(self, made: Made) -> None:
        assert made.transport._reactor_wait() == (-1, 0)


class TestSending:
    DATA = bytes(range(256)) * 8

    def test_all(self, made: Made) -> None:
        assert made.transport.send(memoryview(self.DATA)) == len(self.DATA)
        assert made.theirs.recv(1 << 16) == self.DATA
        assert made.producer.calls == []
        assert made.transport not in made.reactor.writers

    def test_a_part_pauses_until_there_is_room(self, made: Made) -> None:
        made.script(100)
        assert made.transport.send(memoryview(self.DATA)) == 100
        assert made.producer.calls == ["pause"]
        assert made.transport in made.reactor.writers
        made.transport.doWrite()
        assert made.producer.calls == ["pause", "resume"]
        assert made.transport not in made.reactor.writers

    def test_nothing(self, made: Made) -> None:
        made.script(WOULD_BLOCK)
        assert made.transport.send(memoryview(self.DATA)) == 0
        assert made.producer.calls == ["pause"]
        assert made.transport in made.reactor.writers

    @pytest.mark.parametrize("step", [BROKEN_PIPE, RESET])
    def test_to_one_that_has_closed(self, made: Made, step: OSError) -> None:
        made.theirs.close()
        made.script(step)
        assert made.transport.send(memoryview(self.DATA)) == 0
        assert made.producer.calls == ["stop"]
        assert made.transport not in made.reactor.writers
        assert made.transport in made.reactor.readers, "what it has sent is still to be received"
        assert made.protocol.ended == []

    def test_to_one_that_has_shut_its_reading_side(self, made: Made) -> None:
        made.theirs.shutdown(socket.SHUT_RD)
        assert made.transport.send(memoryview(self.DATA)) == 0
        assert made.producer.calls == ["reader gone"]
        assert made.transport not in made.reactor.writers
        assert made.transport in made.reactor.readers
        assert made.protocol.ended == []

    @pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.EINTR])
    def test_what_passes_is_as_if_it_was_full(self, made: Made, number: int) -> None:
        made.script(OSError(number, ""), ALL)
        assert made.transport.send(memoryview(self.DATA)) == 0
        assert made.producer.calls == ["pause"]
        made.transport.doWrite()
        assert made.producer.calls == ["pause", "resume"]
        assert made.transport.send(memoryview(self.DATA)) == len(self.DATA)

    def test_queued_is_what_the_other_side_has_not_read(self, made: Made) -> None:
        assert made.transport.queued() == 0
        made.transport.send(memoryview(self.DATA))
        first = made.transport.queued()
        assert first >= len(self.DATA)
        made.transport.send(memoryview(self.DATA))
        assert made.transport.queued() > first
        made.theirs.recv(len(self.DATA))
        assert made.transport.queued() == first
        made.theirs.recv(1)
        assert made.transport.queued() == first, "the kernel counts in pieces"
        made.theirs.recv(len(self.DATA))
        assert made.transport.queued() == 0

    def test_is_bounded(self, made: Made) -> None:
        made.script(ALL)
        assert made.transport.send(memoryview(bytes(2 * SEND_LIMIT))) == SEND_LIMIT
        assert made.producer.calls == [], "the socket is not full"

    def test_keeps_no_view(self, made: Made) -> None:
        data = bytearray(self.DATA)
        with memoryview(data) as view:
            made.transport.send(view)
        data.clear()  # raises BufferError if a view is left

    def test_write_is_refused(self, made: Made) -> None:
        for write, data in ((made.transport.write, b"a"), (made.transport.writeSequence, [b"a"])):
            with pytest.raises(NotImplementedError):
                write(data)

    def test_is_an_outlet_of_its_own(self, made: Made) -> None:
        assert IOutlet(made.transport) is made.transport
        assert verifyObject(IOutlet, made.transport)


class TestClosing:
    def test_with_a_farewell(self, made: Made) -> None:
        made.transport.close(b"goodbye")
        assert made.theirs.recv(100) == b"goodbye"
        assert made.transport not in made.reactor.readers
        made.reactor.later.pop()()
        assert made.theirs.recv(100) == b""
        assert len(made.protocol.ended) == 1

    @pytest.mark.parametrize("step", [WOULD_BLOCK, BROKEN_PIPE])
    def test_whatever_the_socket_says(self, made: Made, step: OSError) -> None:
        made.script(step)
        made.transport.close(b"goodbye")
        assert len(made.reactor.later) == 1

    def test_reads_nothing_more(self, made: Made) -> None:
        made.theirs.sendall(b"more")
        made.transport.close(b"")
        made.reactor.later.pop()()
        assert made.protocol.received == []


class TestRest:
    def test_ends_with_a_stream_that_is_broken(self, tcp: Made) -> None:
        """What follows is not looked at, though the connection is still to be closed in order."""
        tcp.script(ALL)
        tcp.protocol.hold_after = 3
        tcp.transport.pauseProducing = lambda: tcp.transport.close(b"")
        tcp.transport._receive_rest(ALL)
        assert len(tcp.protocol.received) == 3

    def test_is_read_although_held(self, made: Made) -> None:
        made.transport.pauseProducing()
        made.theirs.sendall(bytes(100_000))
        made.transport.read_rest()
        assert sum(made.protocol.received) == 100_000

    def test_is_what_was_there(self, made: Made) -> None:
        made.transport.read_rest()
        assert made.protocol.received == []
        made.script(ALL)
        made.transport.read_rest()
        assert made.protocol.received == []

    def test_before_the_end_is_bounded(self, made: Made) -> None:
        made.script(ALL)
        made.transport.connectionLost(Failure(ConnectionLost()))
        assert sum(made.protocol.received) == REST_LIMIT

    def test_ends_with_the_connection(self, made: Made) -> None:
        made.script(ALL)
        made.protocol.hold_after = 3
        made.transport.pauseProducing = made.transport.abortConnection
        made.transport.connectionLost(Failure(ConnectionLost()))
        assert len(made.protocol.received) == 3

    def test_comes_before_the_end(self, made: Made) -> None:
        made.theirs.sendall(bytes(1000))
        made.theirs.close()
        made.transport.connectionLost(Failure(ConnectionLost()))
        assert made.protocol.received == [1000]
        assert [failure.type for failure in made.protocol.ended] == [ConnectionDone]
        assert made.ours.fileno() == -1

    def test_a_failure_in_it_does_not_keep_the_connection(self, made: Made) -> None:
        made.theirs.sendall(bytes(1000))
        made.protocol.error = RuntimeError("no")
        with pytest.raises(RuntimeError, match="no"):
            made.transport.connectionLost(Failure(ConnectionDone()))
        assert len(made.protocol.ended) == 1
        assert made.ours.fileno() == -1


class TestTCP:
    """What differs: a peer may vanish, and its kernel takes what it does not read."""

    def test_does_not_wait_for_more(self, tcp: Made) -> None:
        assert tcp.ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    @pytest.mark.parametrize(("step", "why"), [(0, CONNECTION_DONE), (RESET, CONNECTION_LOST)])
    def test_a_reset_is_not_the_end(self, tcp: Made, step: Any, why: Exception) -> None:
        tcp.script(65536, step)
        assert tcp.transport.doRead() is why

    def test_a_reset_stays_one_although_more_was_received(self, tcp: Made) -> None:
        tcp.script(100, RESET)
        tcp.transport.connectionLost(Failure(ConnectionLost()))
        assert tcp.protocol.received == [100]
        assert [failure.type for failure in tcp.protocol.ended] == [ConnectionLost]

    def test_room_means_little(self, tcp: Made) -> None:
        tcp.transport.send(memoryview(b"all"))
        assert tcp.transport.queued() >= UNDER_WAY
        assert not tcp.transport.room_means_read(UNDER_WAY)
        assert tcp.transport.room_means_read(UNDER_WAY + 1)

    def test_closes_once_all_is_taken(self, tcp: Made) -> None:
        tcp.theirs.sendall(b"more, which is not received any more")
        sent = 0
        while len(tcp.producer.calls) == 0:
            sent += tcp.transport.send(memoryview(bytes(65536)))
        tcp.transport.close(b"")
        assert tcp.transport not in tcp.reactor.readers
        assert tcp.transport.disconnecting
        while tcp.reactor.later:
            sent -= len(tcp.theirs.recv(1 << 20))
            tcp.reactor.later.pop()()
        assert tcp.transport in tcp.reactor.writers
        assert tcp.transport.doWrite() is CONNECTION_DONE
        tcp.transport.connectionLost(Failure(ConnectionDone()))
        while sent:
            sent -= len(tcp.theirs.recv(1 << 20))
        assert tcp.protocol.received == []

    def test_gives_up_on_one_that_takes_nothing(self, tcp: Made) -> None:
        while len(tcp.producer.calls) == 0:
            tcp.transport.send(memoryview(bytes(65536)))
        tcp.transport.close(b"goodbye")
        look = tcp.reactor.later.pop()
        tcp.transport.abortConnection()
        tcp.reactor.later.clear()
        look()
        assert tcp.reactor.later == []

    def test_a_farewell_comes_before_the_end(self, tcp: Made) -> None:
        tcp.transport.close(b"goodbye")
        assert tcp.theirs.recv(100) == b"goodbye"
        assert tcp.theirs.recv(100) == b""

    def test_is_an_outlet_of_its_own(self, tcp: Made) -> None:
        assert IOutlet(tcp.transport) is tcp.transport
        assert verifyObject(IOutlet, tcp.transport)


async def test_a_failure_while_receiving_ends_that_connection(
    relay: Relay, logged: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, peer = await relay.connect()
    other, _ = await relay.connect()

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(peer, "published", fail)
    await client.send(b"".join(messages(2000)))
    await until(lambda: relay.factory.departed)
    assert "no" in {str(error) for error in logged.flush_failures()}
    assert relay.factory.departed[0].reason is Ending.FAULT
    assert not peer.transport.connected
    await other.send(message())
    await until(lambda: relay.factory.counters.messages_received == 1)


def test_a_peer_knows_who_connected(made: Made, logged: Events) -> None:
    factory = SignalRelayFactory(reactor, Rules(), MemoryStorage(1 << 20), hold=1, max_peers=1)
    factory.open()
    protocol: Any = SignalRelayProtocol(factory)
    made.transport.unregisterProducer()
    protocol.makeConnection(made.transport)
    assert (protocol.identity.pid, protocol.identity.uid) == (os.getpid(), os.getuid())
    assert len(logged.lines(f"peer connected: 1 (unix pid={os.getpid()} ")) == 1
    protocol.connectionLost(Failure(ConnectionDone()))
