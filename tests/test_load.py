"""What the hub promises under load, on a real relay process with real sockets."""

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable
from itertools import zip_longest

import pytest

from alphapulse_relay.protocol_v2.framing import MessageReader
from alphapulse_relay.protocol_v2.header import Header
from tests.support import Client, Relay, message, messages, random_cuts, read_all

SMALL_WINDOW = ("--backlog", "2M", "--max-message", "96K")
WINDOW = 2 << 20


class Threads:
    """Runs functions beside the test, and raises what they raised."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def run(self, function: Callable[..., object], *arguments: object) -> None:
        def guarded() -> None:
            try:
                function(*arguments)
            except BaseException as error:
                self._errors.append(error)

        self._threads.append(threading.Thread(target=guarded, daemon=True))
        self._threads[-1].start()

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a publisher could not send"
        if self._errors:
            raise self._errors[0]


@pytest.fixture
def threads():
    return Threads()


def split(stream: bytes) -> list[bytes]:
    return list(MessageReader().feed(stream))


def test_eight_publishers_and_sixteen_consumers_see_one_order(threads: Threads) -> None:
    chance = random.Random(8)
    sent = {
        source: [message(source, n, chance.randint(44, 64 * 1024)) for n in range(1, 31)]
        for source in range(20, 28)
    }
    total = sum(len(each) for own in sent.values() for each in own)
    with Relay() as relay:
        publishers = {source: relay.connect() for source in sent}
        consumers = [relay.connect() for _ in range(16)]

        def publish(source: int) -> None:
            for piece in random_cuts(b"".join(sent[source]), random.Random(source)):
                publishers[source].send(piece)

        for source in sent:
            threads.run(publish, source)
        expected = [total] * 16 + [total - sum(map(len, sent[source])) for source in sent]
        streams = read_all([*consumers, *publishers.values()], expected)
        threads.join()

    order = split(bytes(streams[0]))
    assert sorted(order) == sorted(each for own in sent.values() for each in own)
    for source, own in sent.items():
        assert [each for each in order if Header.unpack(each).source == source] == own
    assert all(stream == streams[0] for stream in streams[1:16])
    for source, stream in zip(sent, streams[16:], strict=True):
        others = [each for each in order if Header.unpack(each).source != source]
        assert split(bytes(stream)) == others


def test_one_stalled_consumer_of_fifty_harms_nobody() -> None:
    """Each message is sent when all but the stalled one have the last: so nothing is held."""
    size = 32 * 1024
    sent = messages(20, 6 * WINDOW // size, size)
    departed, appended = None, 0
    with Relay(*SMALL_WINDOW) as relay:
        consumers = [relay.connect() for _ in range(49)]
        stalled = relay.connect()
        publisher = relay.connect()
        before = relay.resident_bytes()
        for number, each in enumerate(sent):
            publisher.send(each)
            assert all(consumer.receive(size) == each for consumer in consumers)
            if departed is None and (gone := relay.status()["departed"]):
                # It was overtaken to make room for this message.
                (departed,), appended = gone, number
        status = relay.status()
        assert departed is not None
        assert status["departed"] == [departed]
        assert departed["reason"] == "overtaken"
        assert status["counters"]["held_seconds"] == 0
        assert relay.resident_bytes() - before < WINDOW + (4 << 20)
        # What it was given before is what was sent, cut off somewhere.
        given = stalled.receive_all()
        assert b"".join(sent).startswith(given)
        assert departed["messages_out"] == len(given) // size > 0
        missed = status["counters"]["missed"]["overtaken"]
        relay.wait_for_log(f"peer overtaken: .* {missed} messages were not sent to it")
        # A status that tells of it may be some messages late: it is not made anew each time.
        assert appended - 10 <= departed["messages_out"] + missed <= appended


def test_a_burst_of_twenty_windows_reaches_the_faster_consumer(threads: Threads) -> None:
    burst = b"".join(messages(20, 20 * WINDOW // 32768, 32768))

    def publish() -> None:
        publisher.send(burst)
        publisher.close()

    with Relay(*SMALL_WINDOW, "--log-level", "debug") as relay:
        fast, slow, publisher = relay.connect(), relay.connect(), relay.connect()
        threads.run(relay.wait_for_log, "peer disconnected: 3 .* reason=closed")
        threads.run(publish)
        relay.wait_until(lambda now: now["held"] == 1)
        received, slowly = bytearray(), bytearray()
        while len(received) < len(burst):
            for _ in range(4):
                received += fast.receive(min(65536, len(burst) - len(received)))
            slowly += slow.socket.recv(4096)
            # As slow as a consumer that does something with what it gets.
            hashlib.sha256(received[-65536:]).digest()
        threads.join()
        assert bytes(received) == burst
        status = relay.status()
        assert [gone["reason"] for gone in status["departed"]] == ["overtaken", "closed"]
        slowly += slow.receive_all()
        assert burst.startswith(slowly)
        assert len(slowly) < len(burst)
        assert status["counters"]["held_seconds"] > 0
        delivered = len(split(bytes(slowly)))
        assert status["departed"][0]["messages_out"] == delivered
        appended = _appended_before(relay, "peer disconnected: 2 .* reason=overtaken")
        assert delivered + status["counters"]["missed"]["overtaken"] == appended


def _appended_before(relay: Relay, pattern: str) -> int:
    """Return how many messages were in the log when the line was logged (at level debug)."""
    appended = 0
    for line in relay.log:
        if forwarded := re.search(r"forwarded message: .* (\d+) messages", line):
            appended += int(forwarded[1])
        if re.search(pattern, line):
            return appended
    raise AssertionError(f"never logged: {pattern}")


def test_forty_publishers_lose_nothing_to_a_consumer_that_works(threads: Threads) -> None:
    """All of them are held at once: no more than a chunk of each is read beyond that."""
    size, each = 8 * 1024, 128
    bursts = {source: messages(source, each, size) for source in range(20, 60)}
    total = sum(len(b"".join(burst)) for burst in bursts.values())
    # Beside other tests it may work only now and then: not within the second that is waited for it.
    with Relay("--backlog", "8M", "--max-message", "512K", "--hold", "30") as relay:
        publishers = {source: relay.connect() for source in bursts}
        consumer = relay.connect()
        for source, burst in bursts.items():
            # Until its first message nobody can tell a publisher from a consumer that stalls.
            publishers[source].send(burst[0])
        relay.wait_until(lambda now: now["counters"]["messages_received"] == len(bursts))
        for source, burst in bursts.items():
            threads.run(publishers[source].send, b"".join(burst[1:]))
        received = bytearray()
        while len(received) < total:
            piece = consumer.receive(min(64 * 1024, total - len(received)))
            assert piece, f"closed after {len(received)} of {total} bytes"
            received += piece
            for _ in range(8):
                hashlib.sha256(piece).digest()
        threads.join()
        status = relay.status()
    order = split(bytes(received))
    for source, burst in bursts.items():
        assert [got for got in order if Header.unpack(got).source == source] == burst
    assert len(order) == len(bursts) * each
    assert status["departed"] == []
    assert status["counters"]["missed"]["overtaken"] == 0
    assert status["counters"]["held_seconds"] > 0


def test_a_consumer_that_reads_slowly_but_steadily_is_not_overtaken(threads: Threads) -> None:
    """Its socket says that there is room only after longer than ``--hold``."""
    size, rate, piece_size = 32 * 1024, 600_000, 4096
    burst = b"".join(messages(20, 3 * WINDOW // 2 // size, size))
    with Relay(*SMALL_WINDOW, "--hold", "0.2") as relay:
        consumer, publisher = relay.connect(), relay.connect()
        threads.run(publisher.send, burst)
        received, start = bytearray(), time.monotonic()
        while len(received) < len(burst):
            piece = consumer.receive(min(piece_size, len(burst) - len(received)))
            assert piece, f"closed after {len(received)} of {len(burst)} bytes"
            received += piece
            while time.monotonic() < start + len(received) / rate:
                hashlib.sha256(piece).digest()
        threads.join()
        assert received == burst
        status = relay.status()
        assert status["departed"] == []
        assert status["counters"]["held_seconds"] > 1


def test_one_that_publishes_and_reads_all_is_the_fastest_consumer(threads: Threads) -> None:
    """Although its socket is never full: a stalled one holds nobody beside it."""
    size = 32 * 1024
    burst = messages(20, 3 * WINDOW // size, size)
    with Relay(*SMALL_WINDOW, "--hold", "30") as relay:
        relay.connect()
        both, publisher = relay.connect(), relay.connect()
        both.send(message(21, 1))
        for each in burst:
            publisher.send(each)
            assert both.receive(size) == each
        status = relay.status()
        assert [gone["reason"] for gone in status["departed"]] == ["overtaken"]
        assert status["counters"]["held_seconds"] == 0


def test_publishers_go_on_when_the_only_consumer_stops_for_good(threads: Threads) -> None:
    burst = b"".join(messages(20, 4 * WINDOW // 32768, 32768))
    with Relay(*SMALL_WINDOW, "--hold", "0.2") as relay:
        consumer, publisher = relay.connect(), relay.connect()
        threads.run(publisher.send, burst)
        assert consumer.receive(100_000) == burst[:100_000]
        threads.join()
        status = relay.wait_until(lambda now: bool(now["departed"]))
        assert status["departed"][0]["reason"] == "overtaken"
        assert 0.2 <= status["counters"]["held_seconds"] < 5
        relay.wait_until(lambda now: now["counters"]["bytes_received"] == len(burst))


def test_publishers_that_never_read_live_on_and_may_read_later(threads: Threads) -> None:
    size, each = 8 * 1024, 10 * WINDOW // 3 // (8 * 1024)
    bursts = {source: messages(source, each, size) for source in (20, 21, 22)}
    with Relay(*SMALL_WINDOW) as relay:
        publishers = {source: relay.connect() for source in bursts}
        consumer = relay.connect()
        for source, burst in bursts.items():
            # Until its first message nobody can tell a publisher from a consumer that stalls.
            publishers[source].send(burst[0])
            relay.wait_until(lambda now, n=source: now["peers"][n - 20]["messages_in"] == 1)
        for source, burst in bursts.items():
            threads.run(publishers[source].send, b"".join(burst[1:]))
        stream = bytes(read_all([consumer], [3 * each * size])[0])
        threads.join()
        order = split(stream)
        assert sorted(order) == sorted(each for burst in bursts.values() for each in burst)
        status = relay.wait_until(lambda now: now["counters"]["messages_received"] == 3 * each)
        assert [peer["state"] for peer in status["peers"]] == ["muted"] * 3 + ["live"]

        early = _read_muted(publishers[20], relay)
        marker = messages(21, 5, 500)
        publishers[21].send(b"".join(marker))
        read = early + publishers[20].receive(5 * 500)
        theirs = [each for each in order if Header.unpack(each).source != 20]
        got = split(read)
        assert got[-5:] == marker
        assert got[:-5] == theirs[: len(got) - 5]
        missed = relay.status()["counters"]["missed"]["muted"]
        assert missed == len(theirs) - (len(got) - 5)


def _read_muted(publisher: Client, relay: Relay) -> bytes:
    """Read what a muted publisher's socket holds, until the relay has it live again."""
    number = relay.status()["peers"][0]["number"]
    publisher.socket.setblocking(False)
    read = bytearray()

    def live(status: dict) -> bool:
        try:
            while piece := publisher.socket.recv(65536):
                read.extend(piece)
        except BlockingIOError:
            pass
        return next(p["state"] for p in status["peers"] if p["number"] == number) == "live"

    relay.wait_until(live)
    publisher.socket.setblocking(True)
    return bytes(read)


def test_two_publishers_never_tear_each_others_messages() -> None:
    """Their pieces reach the relay in turn, most of them cut inside a message."""
    sent = {source: messages(source, 500, 300) for source in (20, 21)}
    cuts = [random_cuts(b"".join(own), random.Random(source)) for source, own in sent.items()]
    with Relay() as relay:
        consumer = relay.connect()
        publishers = [relay.connect() for _ in sent]
        for pieces in zip_longest(*cuts, fillvalue=b""):
            for publisher, piece in zip(publishers, pieces, strict=True):
                publisher.send(piece)
        got = consumer.messages(1000)
    by_source = {s: [m for m in got if Header.unpack(m).source == s] for s in sent}
    assert by_source == sent


def test_a_flood_starves_nobody(threads: Threads) -> None:
    """A message of a slow publisher waits for no more of the flood than a window, and a few turns.

    That is in bytes: how long it takes is the machine's business.
    """
    size, rounds, bound = 8 * 1024, 5, WINDOW + (4 << 20)
    flood = b"".join(messages(20, 64, size))
    over = threading.Event()
    with Relay(*SMALL_WINDOW) as relay:
        flooder, consumer = relay.connect(), relay.connect()
        slow = {source: relay.connect() for source in range(21, 31)}

        def publish() -> None:
            while not over.is_set():
                flooder.send(flood)

        threads.run(publish)
        reader = MessageReader()
        for sequence in range(rounds):
            for source, publisher in slow.items():
                publisher.send(message(source, sequence))
            waiting, between = set(slow), 0
            while waiting:
                assert between < bound, f"{len(waiting)} of 10 publishers are starved"
                for each in reader.feed(consumer.socket.recv(1 << 18)):
                    between += len(each)
                    waiting.discard(Header.unpack(each).source)
        over.set()
        while threads.running:
            consumer.socket.recv(1 << 18)
        threads.join()


def test_an_idle_peer_takes_little_memory(threads: Threads) -> None:
    number, limit = 300, 16 * 1024
    with Relay() as relay:
        relay.connect()
        before = relay.resident_bytes()
        # Each is a line in the log, which has to be read.
        threads.run(relay.wait_for_log, f"peer connected: {number + 1} ")
        for _ in range(number):
            relay.connect(joined=False)
        threads.join()
        assert relay.resident_bytes() - before < number * limit
