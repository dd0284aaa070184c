"""A benchmark's publisher, with consumers, or a relay, that are the test itself."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from alphapulse_relay.cli.bench.load import BLOCK_SIZE, END, HELLO, Load
from alphapulse_relay.cli.bench.publisher import Published, publish
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.protocol_v2.framing import Level, MessageReader, Rules
from alphapulse_relay.protocol_v2.header import Header
from tests.cli.bench.test_load import load
from tests.cli.conftest import PATIENCE


class Reader(threading.Thread):
    """Reads all that comes on a connection, until the other end says that this was all."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self.messages: list[bytes] = []
        self._connection = connection
        self.start()

    def run(self) -> None:
        reader = MessageReader(Rules(Level.STRICT))
        with self._connection as connection:
            connection.settimeout(PATIENCE)
            while data := connection.recv(1 << 18):
                self.messages += reader.feed(data)

    @property
    def sequences(self) -> list[int]:
        self.join(PATIENCE)
        return [Header.unpack(message).sequence for message in self.messages]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()
        yield listener


def direct(listener: socket.socket, **options: object) -> tuple[Load, list[Reader]]:
    """A load that goes directly to consumers, and two of them."""
    path = listener.getsockname().decode()
    made = load(relayed=False, path=path, consumers=2, seconds=0.1, **options)
    readers = []
    for _ in range(made.consumers):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        readers.append(Reader(connection))
    return made, readers


def run(made: Load, listener: socket.socket, start: int = 0) -> tuple[Published, list[int]]:
    reports: list[int] = []
    started = start or time.monotonic_ns()
    return publish(made, listener, lambda: started, reports.append), reports


def test_at_a_rate(listener):
    made, readers = direct(listener, rate=500)
    published, reports = run(made, listener)
    assert published.messages == 60  # in the warm-up of 0.02 s and in 0.1 s
    for reader in readers:
        assert reader.sequences == [HELLO, *range(1, 61), END]
    assert reports == []  # to no relay


def test_none_is_left_out_however_late(listener):
    made, readers = direct(listener, rate=10_000)
    a_second = 1_000_000_000
    published, _ = run(made, listener, time.monotonic_ns() - a_second)
    assert published.messages == 1200
    assert published.late > a_second // 2
    assert readers[0].sequences == [HELLO, *range(1, 1201), END]


def test_nothing_is_sent_before_it_is_due(listener):
    made, readers = direct(listener, rate=100)
    now = time.monotonic_ns()
    wall = time.time_ns()
    run(made, listener, now + 20_000_000)
    assert readers[0].sequences
    times = [Header.unpack(message).timestamp for message in readers[0].messages[1:-1]]
    for number, sent in enumerate(times):
        assert sent - wall > 15_000_000 + number * 10_000_000


@pytest.mark.parametrize("size", [216, 40_000])
def test_at_full_load(listener, size):
    made, readers = direct(listener, size=size)
    published, _ = run(made, listener)
    count = max(BLOCK_SIZE // size, 1) * 16
    expected = [HELLO, *(n % count + 1 for n in range(published.messages)), END]
    for reader in readers:
        assert reader.sequences == expected
        assert {len(message) for message in reader.messages} == {size}


def test_through_a_relay_it_reports_all(listener):
    made = load(path=listener.getsockname().decode(), seconds=0.1)
    accepted: list[Reader] = []
    serving = threading.Thread(target=lambda: accepted.append(Reader(listener.accept()[0])))
    serving.start()
    published, reports = run(made, listener)
    serving.join(PATIENCE)
    assert sum(reports) == published.messages + 2 == len(accepted[0].sequences)


def test_relay_closes(listener):
    made = load(path=listener.getsockname().decode(), seconds=0.1)

    def refuse() -> None:
        listener.accept()[0].close()

    serving = threading.Thread(target=refuse)
    serving.start()
    with pytest.raises(Failure, match="the relay closed the connection"):
        run(made, listener)
    serving.join(PATIENCE)
