"""A consumer of a benchmark: sees to it that all comes, in order, and notes when.

Knows sockets and loads; runs in a process of its own, and what that is told, ``crew`` knows.
"""

import socket
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from alphapulse_relay.cli.bench.latency import Latencies
from alphapulse_relay.cli.bench.load import END, HELLO, SOURCE, TLV_TYPE, Load, due
from alphapulse_relay.cli.connection import FROM_RELAY, RECEIVE_SIZE, closed, connect
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.protocol_v2.control import ErrorMessage, parse_error
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import MessageReader
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Domain, Header

SILENCE = 10.0
"""Seconds without a message of the benchmark after which no more is expected."""
_NS = 1_000_000_000


class Silence(Failure):
    """Nothing came for too long."""

    def __init__(self) -> None:
        super().__init__(f"nothing came for {SILENCE:g} s")


class Received(NamedTuple):
    """What a consumer got.

    ``messages`` between hello and end. Of those after the warm-up: ``latencies`` where the load has
    a rate; at full load ``rate``, in messages a second.
    """

    messages: int
    latencies: Latencies
    rate: float


class Incoming:
    """What comes from the relay: messages of this benchmark, and those of others."""

    def __init__(self, connection: socket.socket, payload: bytes) -> None:
        connection.settimeout(SILENCE)
        self._connection = connection
        self._payload = payload
        self._buffer = memoryview(bytearray(RECEIVE_SIZE))
        self._reader = MessageReader(FROM_RELAY)
        self._error: ErrorMessage | None = None
        self.heard()

    def heard(self) -> None:
        """Note that a message of this benchmark came."""
        self._deadline = time.monotonic() + SILENCE

    def receive(self) -> memoryview:
        """Return the next bytes, until the next call; raises :class:`Failure` if none come."""
        try:
            size = self._connection.recv_into(self._buffer)
        except TimeoutError:
            raise Silence from None
        except ConnectionResetError:
            size = 0
        if not size:
            raise closed(self._error)
        return self._buffer[:size]

    def messages(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Yield the messages of this benchmark that the next bytes complete.

        Raises :class:`Failure` if they are not messages, or all have been others' for long.
        """
        try:
            for message in self._reader.feed(bytes(data)):
                if message[HEADER_SIZE:] == self._payload and message[6] == SOURCE:
                    self.heard()
                    yield message
                elif message[4] == Domain.SYSTEM:
                    self._error = parse_error(message) or self._error
        except WireError as error:
            raise Failure(f"what comes is not Protocol V2: {error}") from None
        if time.monotonic() > self._deadline:
            raise Silence

    def take_rest(self) -> bytes:
        """Return the torn beginning of a message, and forget it."""
        rest = bytes(self._reader.pending)
        self._reader = MessageReader(FROM_RELAY)
        return rest

    @property
    def rest(self) -> bytes:
        """The torn beginning of a message."""
        return bytes(self._reader.pending)


class Comparison:
    """Compares what comes with what was published at full load, and counts it.

    While only the expected comes, it is compared as a whole, which costs next to nothing; a look
    at single messages is taken where something else comes, such as what others publish.
    """

    def __init__(self, load: Load, incoming: Incoming) -> None:
        cycle = b"".join(load.blocks())
        self.bytes = 0
        """Received of the expected ones."""
        self.ended = False
        self._incoming = incoming
        self._size = load.size
        self._length = len(cycle)
        self._expected = cycle + cycle[:RECEIVE_SIZE]  # whatever comes at once may span its end
        self._in_step = False
        self._catch_up(b"")

    def take(self, data: memoryview) -> None:
        """Take the next bytes; raises :class:`Failure` if a message is missing."""
        if self._in_step and self._expected.startswith(data, self._position):
            self.bytes += len(data)
            self._incoming.heard()
        else:
            self._catch_up(data)

    @property
    def _position(self) -> int:
        """Where in the cycle the next byte is."""
        return self.bytes % self._length

    def _catch_up(self, data: bytes | memoryview) -> None:
        """Go through the messages one by one, from the one on that is under way."""
        under_way = self.bytes % self._size
        start = self._position - under_way
        self.bytes -= under_way
        for message in self._incoming.messages(self._expected[start : start + under_way] + data):
            if self._expected.startswith(message, self._position):
                self.bytes += self._size
            elif _sequence(message) == END:
                self.ended = True
            else:
                raise _missing(
                    _sequence(self._expected[self._position :][:HEADER_SIZE]), _sequence(message)
                )
        self._in_step = self._expected.startswith(self._incoming.rest, self._position)
        if self._in_step:
            self.bytes += len(self._incoming.take_rest())


def consume(load: Load, ready: Callable[[], None], wait_for_start: Callable[[], int]) -> Received:
    """Receive a load.

    ``ready`` is called when the connection is made; ``wait_for_start`` when the hello has come,
    and it returns when the load begins, in nanoseconds of the monotonic clock. Raises
    :class:`Failure` if the relay closes, nothing comes any more, or a message is missing.
    """
    with connect(load.path) as connection:
        incoming = Incoming(connection, load.payload())
        ready()
        _wait_for_hello(incoming)
        if load.rate:
            return _note_latencies(incoming, load, load.rate, wait_for_start())
        comparison = Comparison(load, incoming)
        return _compare(incoming, comparison, load, wait_for_start())


def _wait_for_hello(incoming: Incoming) -> None:
    came = False
    try:
        while not came:
            for message in incoming.messages(incoming.receive()):
                came = came or _sequence(message) == HELLO
    except Silence:
        raise Failure(
            f"the relay forwards no messages of source {SOURCE} with a TLV of type {TLV_TYPE}: "
            '"signal-relay status" tells what it drops'
        ) from None


def _note_latencies(incoming: Incoming, load: Load, rate: int, start: int) -> Received:
    latencies, begin, last = Latencies(), start + load.warm_up, HELLO
    while True:
        data = incoming.receive()
        now = time.monotonic_ns()
        for message in incoming.messages(data):
            sequence = _sequence(message)
            if sequence == END:
                return Received(last, latencies, 0.0)
            last += 1
            if sequence != last:
                raise _missing(last, sequence)
            moment = start + due(sequence, rate)
            if moment >= begin:
                latencies.add(now - moment)


def _compare(incoming: Incoming, comparison: Comparison, load: Load, start: int) -> Received:
    """Compare until the end; what came before the warm-up was over does not count for the rate."""
    begin, before, now = start, 0, start
    while not comparison.ended:
        data = incoming.receive()
        now = time.monotonic_ns()
        comparison.take(data)
        if now < start + load.warm_up:
            begin, before = now, comparison.bytes
    if comparison.bytes == before:  # the publisher was kept from running for all the rest
        begin, before = start, 0
    rate = (comparison.bytes - before) / load.size * _NS / (now - begin)
    return Received(comparison.bytes // load.size, Latencies(), rate)


def _sequence(message: bytes) -> int:
    return Header.unpack(message).sequence


def _missing(expected: int, came: int) -> Failure:
    return Failure(f"a message is missing: sequence {expected} was due, {came} came")
