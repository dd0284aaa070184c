"""What each peer must be sent, said in plain lists: programs of any kind hold the hub to it."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from alphapulse_relay.hub import cursor, outgoing, receiver, subscribed, subscription
from alphapulse_relay.protocol_v2.compression import expand, is_compressed
from alphapulse_relay.protocol_v2.control import (
    ControlMessage,
    ErrorMessage,
    Gap,
    GapReason,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
    build_control,
    parse_control,
)
from alphapulse_relay.protocol_v2.framing import message_size
from alphapulse_relay.protocol_v2.header import Domain, Header, build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv, parse_tlvs

ANSWER_SOURCE = 81
"""Who says the answer to a Subscribe, here: so that it can be told from a SequenceSync unasked."""
SMALL_MAX = 1024
SMALL_WINDOW = 8 * 4096


class Answer(SequenceSync):
    """The answer to a Subscribe."""


@contextmanager
def small_measures() -> Iterator[None]:
    """Have all limits so small that a short program comes to them; and have answers told apart."""
    answer = outgoing.Outgoing.answer

    def mark(queue: outgoing.Outgoing, content: ControlMessage) -> None:
        answer(queue, Answer(*content) if isinstance(content, SequenceSync) else content)

    def build(content: ControlMessage, *, timestamp: int) -> bytes:
        source = ANSWER_SOURCE if isinstance(content, Answer) else 80
        return build_control(content, timestamp=timestamp, source=source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outgoing.Outgoing, "answer", mark)
        patch.setattr(outgoing, "build_control", build)
        patch.setattr(receiver, "RECEIVE_SIZE", 512)
        for module in (subscribed, cursor):
            patch.setattr(module, "STRETCH", 700)
        patch.setattr(subscribed.SubscribedCursor, "skip_behind", 1500)
        patch.setattr(subscribed, "SYNC_EVERY", 1000)
        for module in (subscribed, subscription):
            patch.setattr(module, "COMPRESSED_SIZE", 300)
        yield


def control(content: ControlMessage) -> bytes:
    return build_control(content, timestamp=1, source=30)


@dataclass
class Entry:
    """A message of the log: where it begins, and whose it is."""

    position: int
    origin: object
    message: bytes

    @property
    def stop(self) -> int:
        return self.position + len(self.message)


class Journal:
    """All messages that were ever published, in order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.head = 0

    def append(self, origin: object, message: bytes) -> None:
        self.entries.append(Entry(self.head, origin, message))
        self.head += len(message)

    def index(self, position: int) -> int:
        """Return which entry begins there; the position must be a boundary."""
        if position == self.head:
            return len(self.entries)
        (found,) = (n for n, each in enumerate(self.entries) if each.position == position)
        return found

    def boundary(self, position: int) -> int:
        return min((e.position for e in self.entries if e.position >= position), default=self.head)

    def make(self, chance: random.Random) -> bytes:
        """Return a message that is like no other."""
        number = len(self.entries) + chance.randrange(1 << 40) * 100_000
        value = number.to_bytes(8, "little") + bytes(chance.choice([0, 10, 100, 400]))
        return build_message(
            build_tlv(chance.choice([20, 21, 22, 30]), value),
            source=chance.choice([20, 21, 22]),
            sequence=number,
            timestamp=1,
        )


def matches(asked: Subscribe, message: bytes) -> bool:
    sources, types = asked.sources, asked.types
    return (not sources or Header.unpack(message).publisher in sources) and (
        not types or any(tlv.type in types for tlv in parse_tlvs(message))
    )


@dataclass
class Asked:
    """A Subscribe that was accepted: where it begins, and where it stops."""

    subscribe: Subscribe
    start: int
    head: int
    origins: set[object]
    stop: int | None = None


@dataclass
class Oracle:
    """What one connection is sent, checked message by message."""

    journal: Journal
    origins: set[object]
    here: int
    """Which entry comes next."""
    tail: Callable[[], int]
    """Tells from where on the log is kept."""
    asked: list[Asked] = field(default_factory=list)
    subscribe: Subscribe = field(default_factory=Subscribe)
    own: set[object] = field(default_factory=set)
    stop: int | None = None
    answered: int = 0
    position: int | None = None
    """What it was told last of where it stands."""
    state: SyncState | None = None
    delivered: int = 0
    last: object = None
    gaps: list[Gap] = field(default_factory=list)
    errors: list[ErrorMessage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.own = self.origins

    def ask(self, subscribe: Subscribe, start: int) -> None:
        stop = self.journal.head if Wish.STOP_AT_HEAD in subscribe.wishes else None
        self.asked.append(Asked(subscribe, start, self.journal.head, set(self.origins), stop))

    def wanted(self, stop: int) -> list[int]:
        """Return which entries are still to come of those before ``stop``, an index."""
        entries = self.journal.entries
        return [
            n
            for n in range(self.here, stop)
            if entries[n].origin not in self.own and matches(self.subscribe, entries[n].message)
        ]

    def take(self, message: bytes) -> None:
        """Check the next message that came."""
        if Header.unpack(message).domain != Domain.SYSTEM:
            self.take_data(message)
            return
        content = parse_control(message)
        self.last = content
        if isinstance(content, Gap):
            self.take_gap(content)
        elif isinstance(content, SequenceSync):
            if Header.unpack(message).source == ANSWER_SOURCE:
                self.take_answer(content)
            else:
                self.take_sync(content)
        elif isinstance(content, ErrorMessage):
            self.errors.append(content)

    def take_data(self, message: bytes) -> None:
        if is_compressed(message):
            assert Wish.ZSTD in self.subscribe.wishes
            message = expand(message, SMALL_MAX)
        self.last = message
        for number in range(self.here, len(self.journal.entries)):
            entry = self.journal.entries[number]
            if entry.message == message:
                break
        else:
            raise AssertionError("sent again, or never published")
        assert self.wanted(number) == [], "missing"
        self.here = number
        assert self.wanted(number + 1) == [number], "not wanted, or its own"
        assert self.stop is None or entry.stop <= self.stop
        self.here = number + 1
        self.delivered += 1

    def take_sync(self, sync: SequenceSync) -> None:
        assert self.subscribe.wishes & (Wish.POSITIONS | Wish.STOP_AT_HEAD)
        number = self.journal.index(sync.position)
        assert number >= self.here, "what is behind the position was sent"
        assert self.wanted(number) == [], "what is before the position was not sent"
        self.here = number
        self.position, self.state = sync.position, sync.state

    def take_answer(self, sync: SequenceSync) -> None:
        asked = self.asked[self.answered]
        self.answered += 1
        expected = asked.start
        for gap in self.gaps:
            if gap.start <= expected < gap.stop:
                expected = gap.stop
        assert sync.position == expected or self.lost_its_start(asked, expected, sync.position)
        self.subscribe, self.own, self.stop = asked.subscribe, asked.origins, asked.stop
        self.here = self.journal.index(sync.position)
        self.position, self.state = sync.position, sync.state
        self.gaps.clear()

    def lost_its_start(self, asked: Asked, expected: int, position: int) -> bool:
        """Whether the log went on, or the peer, while it was looked for where to begin."""
        if asked.subscribe.start is not Start.LAST:
            return False
        if self.answered < len(self.asked) and position >= asked.head:
            return True
        given_up = any(gap.stop == position for gap in self.gaps)
        return given_up or expected < position <= self.tail()

    def take_gap(self, gap: Gap) -> None:
        assert gap.start < gap.stop
        entry = self.journal.index(gap.stop)
        pending = self.asked[self.answered :]
        # It belongs to the subscription that it goes on from.
        if self.goes_on_at(gap.start):
            if gap.reason is GapReason.SKIPPED:
                assert Wish.SKIP_WHEN_BEHIND in self.subscribe.wishes
            self.here = max(self.here, entry)
            self.position = gap.stop
        else:
            assert pending, "a gap where nothing was missing"
        if pending and gap.reason is not GapReason.SKIPPED:
            self.gaps.append(gap)

    def goes_on_at(self, position: int) -> bool:
        if position != self.journal.boundary(position):
            return False
        start = self.journal.index(position)
        return start >= self.here and not self.wanted(start)

    def check_complete(self, *, finished: bool) -> None:
        """Check that nothing is missing, now that all was taken."""
        assert self.answered == len(self.asked)
        if self.stop is not None:
            assert finished, "not closed"
            assert isinstance(self.last, SequenceSync)
            assert self.state is SyncState.LIVE
            assert self.position is not None
            assert self.position >= self.stop
            return
        assert not finished
        assert self.wanted(len(self.journal.entries)) == [], "missing in the end"
        if self.asked and Wish.POSITIONS in self.subscribe.wishes:
            assert self.state is SyncState.LIVE


class Stream:
    """The messages of what a peer was sent so far."""

    def __init__(self) -> None:
        self._taken = 0

    def messages(self, received: bytes) -> Iterator[bytes]:
        """Yield those that are whole and were not before."""
        while (left := len(received) - self._taken) >= 32:
            size = message_size(received[self._taken :])
            assert received[self._taken : self._taken + 4] == b"\xef\xbe\xad\xde", "torn"
            if size > left:
                return
            yield received[self._taken : self._taken + size]
            self._taken += size


def random_subscribe(chance: random.Random, journal: Journal, positions: list[int]) -> Subscribe:
    """Return any Subscribe, most of them from a position that somebody was told."""
    wishes = Wish(0)
    for wish, often in (
        (Wish.POSITIONS, 0.6),
        (Wish.ZSTD, 0.3),
        (Wish.STOP_AT_HEAD, 0.1),
        (Wish.SKIP_WHEN_BEHIND, 0.15),
        (Wish.ACKNOWLEDGE, 0.2),
    ):
        if chance.random() < often:
            wishes |= wish
    start = chance.choice([Start.LIVE, Start.POSITION, Start.POSITION, Start.POSITION, Start.LAST])
    value = 0
    if start is Start.POSITION:
        value = chance.choice([0, journal.head, chance.randint(0, journal.head), *positions])
    elif start is Start.LAST:
        value = chance.choice([0, 1, 3, 20, 10_000])
    filtered = chance.random()
    return Subscribe(
        wishes,
        start,
        value,
        types=frozenset(chance.sample([20, 21, 22], chance.randint(1, 2)))
        if filtered < 0.3
        else frozenset(),
        sources=frozenset(chance.sample([20, 21, 22], 1)) if filtered > 0.75 else frozenset(),
    )


def first_of_last(journal: Journal, asked: Subscribe, tail: int) -> int:
    """Return the position of the first of the last N that match."""
    kept = [each for each in journal.entries if each.position >= tail]
    number = asked.start_value
    found = [each.position for each in kept if matches(asked, each.message)]
    if not number:
        return journal.head
    if len(found) < number:
        return tail
    return found[-number]
