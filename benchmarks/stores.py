"""Hubs that keep what they forward, side by side: what is published is written, and then read.

One publisher and one consumer, both in Python, the same for all: a thread sends runs of messages
that were made beforehand, and the messages in what is received are counted, not looked at.
"""
# ruff: noqa: D102 - Store and System tell what the methods are for

import json
import re
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from alphapulse_relay.protocol_v2.control import Subscribe, Wish
from benchmarks import wire
from benchmarks.measure import MeasurementError
from benchmarks.systems import Nats, Redis, System

RUN_LENGTH = 303
"""Messages sent at once: 64 KiB of them."""
WINDOW = 4 * RUN_LENGTH
"""Messages that may wait for their acknowledgement."""
SECONDS = 1.0
"""How long is published."""
RECEIVE = 256 * 1024
"""Bytes asked for at once: more than a socket holds."""
READ_AT_ONCE = 1_000
"""Entries that Redis is asked for by one XREAD."""
QUIET = 2.0
"""Seconds without a message after which those that are missing are lost."""
ANSWER_PATIENCE = 20.0
"""Seconds for an answer."""


class Counter:
    """Counts a text in a stream, however it is cut."""

    def __init__(self, text: bytes) -> None:
        self.count = 0
        self._text = text
        self._kept = b""

    def feed(self, data: bytes) -> None:
        """Count what is in the next piece."""
        piece = self._kept + data
        self.count += piece.count(self._text)
        self._kept = piece[max(0, len(piece) - len(self._text) + 1) :]


class Store:
    """How messages go into a running ``system`` that keeps them, and come out again.

    Sent is ``frame``; where each is acknowledged, ``acknowledgement`` is in that once.
    """

    acknowledgement = b""

    def __init__(self, system: System) -> None:
        self.system = system
        self.message = wire.build_sample()
        self.found = Counter(self.message[wire.HEADER_SIZE :])

    @property
    @abstractmethod
    def frame(self) -> bytes:
        """What is sent for a message."""

    @abstractmethod
    def open_publisher(self) -> socket.socket:
        """Return a connection that can be published on; what keeps the messages is made."""

    @abstractmethod
    def open_consumer(self) -> socket.socket:
        """Return a connection that gets them, or can ask for them."""

    def receive(self, connection: socket.socket) -> None:
        """Receive and count some. Raises ``OSError``; ``TimeoutError`` if there are none."""
        self.found.feed(_some(connection))


class RelayStore(Store):
    """The relay with its journal, and a consumer that is told its positions."""

    @property
    def frame(self) -> bytes:
        return self.message

    def open_publisher(self) -> socket.socket:
        return self.system.connect(consumer=False)

    def open_consumer(self) -> socket.socket:
        connection = self.system.connect(consumer=True)
        wire.subscribe(connection, Subscribe(wishes=Wish.POSITIONS))
        wire.receive_message(connection)
        return connection


class JetStream(Nats):
    """nats-server, told to keep things, and to sync as often as the relay does."""

    key = "jetstream"
    label = "NATS JetStream"

    def command(self) -> Sequence[str | Path]:
        command = super().command()
        with (self.directory / "nats.conf").open("a") as file:
            store = self.directory / "store"
            file.write(f'jetstream {{ store_dir: "{store}", sync_interval: "1s" }}\n')
        return command


class JetStreamStore(Store):
    """A stream in files, and a push consumer that acknowledges nothing.

    https://docs.nats.io/reference/reference-protocols/nats_api_reference
    """

    acknowledgement = b"{"
    STREAM: ClassVar = {"name": "S", "subjects": ["s"], "storage": "file", "max_bytes": 1 << 30}
    CONSUMER: ClassVar = {
        "stream_name": "S",
        "config": {"deliver_subject": "d", "ack_policy": "none", "deliver_policy": "all"},
    }

    @property
    def frame(self) -> bytes:
        return b"PUB s a %d\r\n%s\r\n" % (len(self.message), self.message)

    def open_publisher(self) -> socket.socket:
        connection = self.system.connect(consumer=False)
        self._ask(connection, b"STREAM.CREATE.S", self.STREAM)
        connection.sendall(b"SUB a 2\r\n")
        return connection

    def open_consumer(self) -> socket.socket:
        connection = self.system.connect(consumer=False)
        connection.sendall(b"SUB d 3\r\n")
        self._ask(connection, b"CONSUMER.CREATE.S", self.CONSUMER)
        return connection

    @staticmethod
    def _ask(connection: socket.socket, what: bytes, body: object) -> None:
        """Ask for something of the JetStream API on a connection of which nothing else comes."""
        connection.settimeout(ANSWER_PATIENCE)
        text = json.dumps(body).encode()
        connection.sendall(b"SUB r 1\r\nPUB $JS.API.%s r %d\r\n%s\r\n" % (what, len(text), text))
        answer = wire.receive_until(connection, b"}\r\n")
        if b'"error"' in answer:
            raise MeasurementError(f"NATS JetStream: {answer.decode(errors='replace')}")


class RedisStreams(Redis):
    """Redis with its append-only file, synced once a second, which is its default."""

    key = "redis-streams"
    label = "Redis Streams"
    OPTIONS = ("--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec")


class RedisStore(Store):
    """A stream, appended to by XADD and read by XREAD.

    https://redis.io/docs/latest/commands/xread/
    """

    acknowledgement = b"$"  # before the length of the entry's number, which is what is answered
    HEAD = re.compile(rb"\*1\r\n\*2\r\n\$1\r\ns\r\n\*(\d+)\r\n")
    """One stream, and in it so many entries."""
    LAST_ID = re.compile(rb"\r\n(\d+-\d+)\r\n\*2\r\n\$1\r\nm\r\n")

    def __init__(self, system: System) -> None:
        super().__init__(system)
        self._last = b"0"

    @property
    def frame(self) -> bytes:
        return _resp(b"XADD", b"s", b"*", b"m", self.message)

    def open_publisher(self) -> socket.socket:
        return self.system.connect(consumer=False)

    def open_consumer(self) -> socket.socket:
        return self.system.connect(consumer=False)

    def receive(self, connection: socket.socket) -> None:
        """Ask for what follows the last entry, and receive all of the answer."""
        wait = b"%d" % int(QUIET * 1000 / 2)
        count = b"%d" % READ_AT_ONCE
        question = b"XREAD", b"COUNT", count, b"BLOCK", wait, b"STREAMS", b"s", self._last
        connection.sendall(_resp(*question))
        answer = bytearray(_some(connection))
        if answer == b"*-1\r\n":
            raise TimeoutError("no entries")
        while (head := self.HEAD.match(answer)) is None:
            answer += _some(connection)
        wanted = self.found.count + int(head[1])
        self.found.feed(bytes(answer))
        while self.found.count < wanted or not answer.endswith(b"\r\n"):
            piece = _some(connection)
            self.found.feed(piece)
            answer += piece
        self._last = self.LAST_ID.findall(answer[-2 * len(self.frame) :])[-1]


def _resp(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(RECEIVE)
    if not data:
        raise ConnectionError("closed on the consumer")
    return data


class Publisher(threading.Thread):
    """Sends for so many ``seconds``, never more than a window ahead of what is acknowledged."""

    def __init__(self, store: Store, connection: socket.socket, seconds: float) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.failure: Exception | None = None
        self._run = store.frame * RUN_LENGTH
        self._acknowledged = Counter(store.acknowledgement) if store.acknowledgement else None
        self._connection = connection
        self._seconds = seconds

    def run(self) -> None:
        """Send, until the time is over; then wait for the last acknowledgement."""
        try:
            # From here on: on a busy machine the thread begins late.
            until = time.perf_counter() + self._seconds
            while time.perf_counter() < until:
                self._connection.sendall(self._run)
                self.sent += RUN_LENGTH
                self._wait(WINDOW)
            self._wait(0)
        except (OSError, MeasurementError) as error:
            self.failure = error

    def _wait(self, most: int) -> None:
        """Wait until no more than so many are not acknowledged."""
        while self._acknowledged and self.sent - self._acknowledged.count > most:
            data = _some(self._connection)
            if b'"error"' in data or data.startswith(b"-"):
                raise MeasurementError(data[:200].decode(errors="replace"))
            self._acknowledged.feed(data)


def messages_a_second(store: Store, seconds: float) -> float:
    """Return how many go through, from the first send to the last receipt.

    Raises ``OSError`` or :class:`MeasurementError`, also if one is lost.
    """
    with store.open_publisher() as to, store.open_consumer() as source:
        to.settimeout(ANSWER_PATIENCE)
        source.settimeout(QUIET)
        began = last = time.perf_counter()
        publisher = Publisher(store, to, seconds)
        publisher.start()
        while publisher.is_alive() or store.found.count < publisher.sent:
            try:
                store.receive(source)
                last = time.perf_counter()
            except TimeoutError:
                if not publisher.is_alive():
                    break
        publisher.join()
    if publisher.failure is not None:
        raise MeasurementError(f"{store.system.label}: {publisher.failure}")
    if store.found.count != publisher.sent:
        missing = publisher.sent - store.found.count
        raise MeasurementError(f"{store.system.label}: {missing:,} messages did not come")
    return publisher.sent / (last - began)


RIVALS: tuple[tuple[type[System], type[Store]], ...] = (
    (JetStream, JetStreamStore),
    (RedisStreams, RedisStore),
)
"""Those that are measured beside the relay, each begun anew in an empty directory."""
