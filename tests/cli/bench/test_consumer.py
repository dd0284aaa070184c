"""A benchmark's consumer, with a relay that is the test itself."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from alphapulse_relay.cli.bench import consumer as bench_consumer
from alphapulse_relay.cli.bench.consumer import Comparison, Incoming, consume
from alphapulse_relay.cli.bench.load import END, HELLO, message
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.protocol_v2.control import ErrorCode, build_error
from tests.cli.bench.test_load import load
from tests.cli.conftest import PATIENCE
from tests.support import messages, random_cuts

FULL = load(size=5000)
PAYLOAD = FULL.payload()
CYCLE = b"".join(FULL.blocks())
LAST = message(PAYLOAD, END, 1)


class TestComparison:
    @pytest.fixture
    def comparison(self) -> Iterator[Comparison]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield Comparison(FULL, Incoming(ours, PAYLOAD))

    def take(self, comparison: Comparison, data: bytes, seed: int = 0) -> None:
        for piece in random_cuts(data, random.Random(seed)):
            comparison.take(memoryview(piece))

    @pytest.mark.parametrize("cycles", [0, 1, 3])
    def test_what_was_published_comes(self, comparison, cycles):
        self.take(comparison, cycles * CYCLE + CYCLE[:15_000] + LAST)
        assert comparison.ended
        assert comparison.bytes == cycles * len(CYCLE) + 15_000

    @pytest.mark.parametrize("seed", range(20))
    def test_what_others_publish_is_passed_over(self, comparison, seed):
        chance = random.Random(seed)
        foreign = [*messages(20, 30), *[message(load(size=5000).payload(), n, 1) for n in range(9)]]
        chance.shuffle(foreign)
        ours = [CYCLE[start : start + 5000] for start in range(0, len(CYCLE), 5000)]
        mixed = []
        for each in ours:
            mixed += [foreign.pop()] if foreign and chance.random() < 0.5 else []
            mixed.append(each)
        self.take(comparison, b"".join([*mixed, *foreign, CYCLE[:5000], LAST]), seed)
        assert comparison.ended
        assert comparison.bytes == len(CYCLE) + 5000

    @pytest.mark.parametrize("seed", range(5))
    def test_a_missing_message_is_told(self, comparison, seed):
        with pytest.raises(Failure, match="sequence 4 was due, 5 came"):
            self.take(comparison, CYCLE[:15_000] + CYCLE[20_000:], seed)

    def test_a_changed_byte_is_told(self, comparison):
        changed = bytearray(CYCLE)
        changed[17_000] ^= 1
        with pytest.raises(Failure, match="sequence 4 was due, 5 came"):
            self.take(comparison, bytes(changed))

    def test_what_is_no_message_is_told(self, comparison):
        with pytest.raises(Failure, match="what comes is not Protocol V2: magic"):
            self.take(comparison, CYCLE[:15_000] + b"HTTP/1.1 400 Bad Request")


class Server:
    """Accepts one consumer and sends to it."""

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind("")
        self._listener.listen()
        self._listener.settimeout(PATIENCE)
        self.path = self._listener.getsockname().decode()
        self.started = threading.Event()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def serve(self, first: bytes, *rest: bytes, rate: int | None = None, stays: bool = False):
        """Return what a consumer makes of what is sent: first the hello, the rest from the start.

        Then the connection is closed, or ``stays`` until the consumer has gone.
        """
        made = load(path=self.path, size=5000, rate=rate, seconds=0.1, mark=FULL.mark)
        serving = threading.Thread(target=self._send, args=(first, rest, stays))
        serving.start()
        try:
            return consume(made, lambda: None, self._start)
        finally:
            self.started.set()
            serving.join(PATIENCE)

    def _start(self) -> int:
        self.started.set()
        return time.monotonic_ns()

    def _send(self, first: bytes, rest: tuple[bytes, ...], stays: bool) -> None:
        connection, _ = self._listener.accept()
        with connection, suppress(ConnectionError):  # a consumer that has seen enough leaves
            connection.sendall(first)
            for part in rest:
                self.started.wait(PATIENCE)
                connection.sendall(part)
            if stays:
                connection.settimeout(PATIENCE)
                connection.recv(1)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


GREETING = message(PAYLOAD, HELLO, 1)


def steady(*sequences: int) -> bytes:
    return b"".join(message(PAYLOAD, sequence, 1) for sequence in sequences)


def test_full_load(server):
    received = server.serve(GREETING + messages(20, 1)[0], CYCLE, CYCLE[:10_000], LAST)
    assert received.messages == len(CYCLE) // 5000 + 2
    assert received.rate > 0


def test_latencies_are_of_what_comes_after_the_warm_up(server):
    """Of 12 messages in 0.12 s the first two are due within the warm-up of 0.02 s."""
    received = server.serve(GREETING, steady(*range(1, 13)), LAST, rate=100)
    assert received.messages == 12
    assert len(received.latencies) == 10


def test_missing_message_while_latency_is_measured(server):
    with pytest.raises(Failure, match="sequence 3 was due, 4 came"):
        server.serve(GREETING, steady(1, 2, 4), LAST, rate=100)


@pytest.mark.parametrize("rate", [None, 100])
def test_relay_closes(server, rate):
    with pytest.raises(Failure, match=r"the relay closed the connection$"):
        server.serve(GREETING, steady(1), rate=rate)


def test_relay_closes_and_tells_why(server):
    refusal = build_error(ErrorCode.TOO_MANY_PEERS, "refused: too_many_peers", timestamp=1)
    with pytest.raises(Failure, match="closed the connection: refused: too_many_peers"):
        server.serve(refusal)


class TestSilence:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch):
        monkeypatch.setattr(bench_consumer, "SILENCE", 0.05)

    def test_after_the_hello(self, server):
        with pytest.raises(Failure, match=r"nothing came for 0\.05 s"):
            server.serve(GREETING, stays=True)

    def test_before_the_hello(self, server):
        with pytest.raises(
            Failure, match="forwards no messages of source 255 with a TLV of type 39"
        ):
            server.serve(b"", stays=True)

    def test_others_do_not_break_it(self):
        foreign = messages(20, 1)[0]
        deadline = time.monotonic() + PATIENCE

        def take(incoming: Incoming) -> None:
            while time.monotonic() < deadline:
                assert list(incoming.messages(foreign)) == []

        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(Failure, match="nothing came"):
            take(Incoming(ours, PAYLOAD))
