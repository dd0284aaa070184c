"""One of many consumers stops for a while; nobody else and no memory may feel it."""

import re
import selectors
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.soak.load import RECEIVE_SIZE, SIZE, Publisher, Stream
from tests.support import PATIENCE, Client, Relay

SOURCES = (20, 21)
MARGIN_SECONDS = 10
"""For how much longer than a consumer is stopped the journal keeps what is published."""
MEMORY_MAX = 10 << 20
"""Bytes by which the relay's own memory may differ."""
RATE_LEAST = 0.8
"""Of the rate without a stopped consumer: it varies where the machine does other things too."""


@dataclass(frozen=True)
class Result:
    """Rates are in messages a second that each of the others got, memory is in bytes."""

    rate_before: float
    rate_beside: float
    memory_grown: int
    left_behind: int
    """Messages that the stopped one had to catch up with."""


class Crowd:
    """Consumers that are read in turn. The first one's messages are looked at, and it may stop."""

    def __init__(self, clients: list[Client]) -> None:
        self.received = [0] * len(clients)
        self.first = Stream(dict.fromkeys(SOURCES, 0))
        self.failure: BaseException | None = None
        self._clients = clients
        self._stopped = threading.Event()
        self._buffer = bytearray(RECEIVE_SIZE)
        self._selector = selectors.DefaultSelector()
        for number, client in enumerate(clients):
            self._selector.register(client.socket, selectors.EVENT_READ, number)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def others(self) -> float:
        """How many messages each of the others got, on average."""
        return sum(self.received[1:]) / SIZE / (len(self.received) - 1)

    def stop_first(self) -> None:
        self._selector.unregister(self._clients[0].socket)

    def go_on(self) -> None:
        self._selector.register(self._clients[0].socket, selectors.EVENT_READ, 0)

    def wait_for(self, messages: int) -> None:
        """Wait until each has got so many messages, and no more."""
        deadline, before = time.monotonic() + PATIENCE, 0
        while (now := sum(self.received)) < messages * SIZE * len(self.received):
            if now > before:
                deadline, before = time.monotonic() + PATIENCE, now
            assert time.monotonic() < deadline, "not all came"
            self.check()
            time.sleep(0.05)
        assert set(self.received) == {messages * SIZE}
        assert self.first.messages == messages

    def check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(PATIENCE)
        self._selector.close()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                for key, _ in self._selector.select(0.1):
                    self._read(key.data)
        except BaseException as error:
            self.failure = error

    def _read(self, number: int) -> None:
        length = self._clients[number].socket.recv_into(self._buffer)
        assert length, f"the relay closed connection {number}"
        self.received[number] += length
        if number == 0:
            self.first.feed(bytes(self._buffer[:length]))


def stopped(consumers: int, seconds: float, rate: float, tell: Callable[[str], object]) -> Result:
    """Have one of the consumers stop for so many seconds, after as many in which all read.

    ``rate`` is what all publishers send in a second at most, in messages. Raises ``AssertionError``
    if anybody misses a message, or the others or the memory feel it.
    """
    size = int(rate * SIZE * (seconds + MARGIN_SECONDS) * 8 / 7)  # of eight segments seven are kept
    with (
        Relay("--journal-size", str(size)) as relay,
        closing(Crowd([relay.connect() for _ in range(consumers)])) as crowd,
    ):
        share = rate / len(SOURCES)
        publishers = [Publisher(relay.connect(), source, share) for source in SOURCES]
        for publisher in publishers:
            publisher.start()
        time.sleep(1)  # until it is at full speed
        rate_before, _ = measure(relay, crowd, seconds)
        tell(f"all of {consumers} read: {rate_before:.0f} messages a second to each")
        memory_before = anonymous_bytes(relay)
        crowd.stop_first()
        rate_beside, memory_beside = measure(relay, crowd, seconds)
        left_behind = int(crowd.others - crowd.received[0] / SIZE)
        tell(f"one has stopped: {rate_beside:.0f} to each of the others; {left_behind} behind")
        crowd.go_on()
        for publisher in publishers:
            publisher.stop()
        crowd.wait_for(sum(publisher.begun for publisher in publishers))
        tell("it goes on: it has every message, and so have all others")
    grown = memory_beside - memory_before
    assert grown <= MEMORY_MAX, f"the relay's memory grew by {grown} bytes"
    assert rate_beside >= RATE_LEAST * rate_before, f"{rate_before} -> {rate_beside} messages/s"
    return Result(rate_before, rate_beside, grown, left_behind)


def measure(relay: Relay, crowd: Crowd, seconds: float) -> tuple[float, int]:
    """Return the others' rate and the most memory, over so many seconds."""
    start, began, memory = time.monotonic(), crowd.others, 0
    while (passed := time.monotonic() - start) < seconds:
        crowd.check()
        memory = max(memory, anonymous_bytes(relay))
        time.sleep(0.1)
    return (crowd.others - began) / passed, memory


def anonymous_bytes(relay: Relay) -> int:
    """Return how much memory the process has that is not of a file: its journal does not count."""
    text = Path(f"/proc/{relay.process.pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    assert found
    return int(found[1]) * 1024
