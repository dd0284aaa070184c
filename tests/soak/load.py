"""Publishers of numbered messages, and checks of what comes that are cheap enough for a flood.

All messages have one size. So whole runs are checked by slices of their headers: source, and the
lower 16 bits of the sequence number.
"""

import time
from bisect import bisect_right
from socket import SHUT_RDWR
from threading import Condition, Thread

from alphapulse_relay.protocol_v2.control import (
    ControlMessage,
    ErrorCode,
    ErrorMessage,
    Gap,
    SequenceSync,
    Subscribe,
    parse_control,
)
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Domain, Header, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.support import PATIENCE, Client

SIZE = 216
"""Bytes of each message."""
BATCH = 256
"""Messages that are sent at once: as many as a byte can number, 55 KB."""
TYPES = (21, 22)
"""The TLV's type in even and in odd messages."""
RECEIVE_SIZE = 1 << 18
_CYCLE = 1 << 16
_NUMBERS = range(2 * _CYCLE)
_LOW = bytes(number & 255 for number in _NUMBERS)
_HIGH = bytes(number >> 8 & 255 for number in _NUMBERS)


def signal_message(source: int, sequence: int) -> bytes:
    """Return a message without a checksum."""
    return build_message(
        build_tlv(TYPES[sequence & 1], bytes(SIZE - HEADER_SIZE - 2)),
        source=source,
        sequence=sequence,
        timestamp=time.time_ns(),
        with_checksum=False,
    )


class Publisher:
    """Sends messages numbered from 0 in batches, ``rate`` messages a second at most."""

    def __init__(self, client: Client, source: int, rate: float) -> None:
        self.source = source
        self.begun = 0
        """Messages of all batches that are sent, or being sent."""
        self.failure: OSError | None = None
        self._client = client
        self._rate = rate
        self._batch = bytearray(b"".join(signal_message(source, n) for n in range(BATCH)))
        self._over = False
        self._thread = Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "a publisher could not send"
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        start = time.monotonic()
        try:
            while not self._over:
                time.sleep(max(0, start + self.begun / self._rate - time.monotonic()))
                self._number(self.begun // BATCH)
                self.begun += BATCH
                self._client.socket.sendall(self._batch)
        except OSError as error:
            self.failure = error

    def _number(self, batch: int) -> None:
        """Write the upper bytes of the sequence numbers; the lowest byte stays."""
        for place, byte in enumerate(batch.to_bytes(4, "little"), start=9):
            self._batch[place::SIZE] = bytes([byte]) * BATCH


class Stream:
    """What a peer is sent, checked: of each source each message that it wants, once and in order.

    ``next`` is the sequence number by source that must come next; what has another source must not
    come. ``step`` is from one wanted message to the next. What comes while ``next`` is None is not
    looked at.
    """

    def __init__(self, expected: dict[int, int] | None = None, step: int = 1) -> None:
        self.next = expected
        self.step = step
        self.messages = 0
        self._rest = b""

    def feed(self, data: bytes) -> None:
        data, start = self._rest + data, 0
        while len(data) - start >= HEADER_SIZE:
            if data[start + 4] == Domain.SYSTEM:
                stop = start + Header.unpack(data, start).message_size
                if stop > len(data):
                    break
                self.told(parse_control(data[start:stop]))
            elif (stop := self._take_run(data, start)) == start:
                break
            start = stop
        self._rest = data[start:]

    def told(self, word: ControlMessage) -> None:
        """Take note of what the relay says."""
        assert not isinstance(word, Gap | ErrorMessage), word

    def took(self, sources: bytes) -> None:
        """Take note of messages of these sources, which were what had to come."""
        self.messages += len(sources)

    def _take_run(self, data: bytes, start: int) -> int:
        """Take the messages up to the next word or to a torn one; return where they end."""
        stop = start + (len(data) - start) // SIZE * SIZE
        length = data[start + 4 : stop : SIZE].find(Domain.SYSTEM)
        if length >= 0:
            stop = start + length * SIZE
        sources = data[start + 6 : stop : SIZE]
        if self.next is not None:
            self._check(sources, data[start + 8 : stop : SIZE], data[start + 9 : stop : SIZE])
            self.took(sources)
        return stop

    def _check(self, sources: bytes, low: bytes, high: bytes) -> None:
        assert self.next is not None
        start = 0
        while start < len(sources):
            source = sources[start]
            number = len(sources) - start - len(sources[start:].lstrip(bytes([source])))
            assert source in self.next, f"a message of source {source}: echoed, or not asked for"
            expected = self.next[source]
            first = expected % _CYCLE
            numbers = slice(first, first + number * self.step, self.step)
            run = slice(start, start + number)
            if low[run] != _LOW[numbers] or high[run] != _HIGH[numbers]:
                raise AssertionError(_difference(source, expected, self.step, low[run], high[run]))
            self.next[source] = expected + number * self.step
            start += number


def _difference(source: int, expected: int, step: int, low: bytes, high: bytes) -> str:
    """Tell what is wrong with the first message that is."""
    for came in (one | other << 8 for one, other in zip(low, high, strict=True)):
        if came != expected % _CYCLE:
            far = (came - expected) % _CYCLE
            what = "missing" if far < _CYCLE // 2 else "repeated or reordered"
            return f"{what}: source {source}, {expected} was due, but {came} (mod 2^16) came"
        expected += step
    raise AssertionError("there is no difference")


class Witness(Stream):
    """A peer that was there from the start, and has seen what stands where in the log.

    Since all messages have one size, a position is a message's number times :data:`SIZE`.
    """

    def __init__(self, client: Client, sources: list[int]) -> None:
        super().__init__(dict.fromkeys(sources, 0))
        self.failure: BaseException | None = None
        self._client = client
        self._order = bytearray()
        self._marks = [(0, self._counted(0, 0, dict.fromkeys(sources, 0)))]
        self._moved = Condition()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, messages: int) -> int:
        """Wait until it has seen so many messages; return how many it has."""
        with self._moved:
            there = self._moved.wait_for(
                lambda: self.failure or self.messages >= messages, PATIENCE
            )
        if self.failure is not None:
            raise self.failure
        assert there, f"{self.messages} messages came, {messages} did not"
        return self.messages

    def close(self) -> None:
        self._client.socket.shutdown(SHUT_RDWR)
        self._thread.join(PATIENCE)

    def before(self, position: int) -> dict[int, int]:
        """Return how many messages of each source lie before a position: which number is next."""
        number, rest = divmod(position, SIZE)
        assert not rest, f"{position} is not where a message begins"
        self.wait(number)
        marked, counts = self._marks[
            bisect_right(self._marks, number, key=lambda mark: mark[0]) - 1
        ]
        return self._counted(marked, number, counts)

    def took(self, sources: bytes) -> None:
        self._order += sources
        assert self.next is not None
        with self._moved:
            self.messages += len(sources)
            self._marks.append((self.messages, dict(self.next)))
            self._moved.notify_all()

    def _counted(self, start: int, stop: int, counts: dict[int, int]) -> dict[int, int]:
        return {
            source: count + self._order.count(source, start, stop)
            for source, count in counts.items()
        }

    def _run(self) -> None:
        try:
            while data := self._client.socket.recv(RECEIVE_SIZE):
                self.feed(data)
        except BaseException as error:
            with self._moved:
                self.failure = error
                self._moved.notify_all()


class Follower(Stream):
    """A peer with a subscription, held to what the witness has seen.

    ``own`` is the source of what it publishes under its name, which must not come. Of the types it
    asks for none, or the one of odd messages.
    """

    def __init__(self, client: Client, witness: Witness, asked: Subscribe, own: int) -> None:
        super().__init__(None, 2 if asked.types else 1)
        self.first: SequenceSync | None = None
        """The relay's answer."""
        self.last: SequenceSync | None = None
        """Where it stood when the relay told it last; ``next_there`` was ``next`` then."""
        self.next_there: dict[int, int] | None = None
        self.refused = False
        """Whether the relay answered that another connection has the name."""
        self._client = client
        self._witness = witness
        self._asked = asked
        self._own = own

    def turn(self) -> None:
        """Receive once."""
        data = self._client.socket.recv(RECEIVE_SIZE)
        assert data, "the relay closed the connection"
        self.feed(data)

    def told(self, word: ControlMessage) -> None:
        if isinstance(word, ErrorMessage) and word.code == ErrorCode.NAME_TAKEN:
            self.refused = True
            return
        super().told(word)
        assert isinstance(word, SequenceSync), word
        self.last = word
        if self.first is None:
            self.first = word
            self.next = self.wanted(word.position)
        assert self.next is not None
        self.next_there = dict(self.next)

    def wanted(self, position: int) -> dict[int, int]:
        """Return which message of each source that it wants is the next one at a position."""
        odd = 1 if self._asked.types else 0
        return {
            source: number | odd
            for source, number in self._witness.before(position).items()
            if source != self._own and source in (self._asked.sources or {source})
        }
