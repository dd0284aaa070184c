"""Peers that stall, or begin in the past, while others publish as fast as in a flood."""

import random
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from alphapulse_relay.protocol_v2.control import (
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
    build_control,
)
from tests.soak.load import SIZE, TYPES, Follower, Publisher, Witness, signal_message
from tests.support import PATIENCE, Client, Relay

RATE = 120_000
"""Messages a second of all publishers together."""
SOURCES = (20, 21)
OWN = 30
"""Source of what the peers of the rounds publish, all of them under one name."""
NAME = "soak"
JOURNAL = ("--journal-size", "512M")
REACH = 400_000
"""Messages that a round goes back at most: 86 MB of the 450 that are kept at least."""
STALL = 4_000, 60_000
"""Messages that come while a peer stalls: the first is four times what its socket holds."""
KINDS = ("stall", "position", "stall", "time", "stall", "last", "stall", "bookmark")
"""One of these is what a round does."""
FILTERS: tuple[tuple[frozenset[int], frozenset[int]], ...] = (
    (frozenset(), frozenset()),
    (frozenset(), frozenset()),
    (frozenset({SOURCES[0]}), frozenset()),
    (frozenset(), frozenset({TYPES[1]})),
)
"""Sources and types: every second peer has a filter."""


@dataclass(frozen=True)
class Moment:
    """What had been seen before a time, in ns since the epoch, and begun to be sent after it."""

    seen: int
    time: int
    begun: dict[int, int]


class Load:
    """Publishers, a witness, and what the rounds remember of each other."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.witness = Witness(relay.connect(), [*SOURCES, OWN])
        self.publishers = [
            Publisher(relay.connect(), source, RATE / len(SOURCES)) for source in SOURCES
        ]
        self.bookmarks: deque[SequenceSync] = deque(maxlen=8)
        self.moments: deque[Moment] = deque(maxlen=8)
        self.published = 0
        """Messages of :data:`OWN`, by all rounds."""
        self.checked = 0
        """Messages that the peers of all rounds got."""
        self.names_taken = 0
        """How often the relay still had the last round's connection."""
        self._began = time.monotonic()

    @property
    def rate(self) -> float:
        """Messages a second since it began, as they came to the witness."""
        return self.witness.messages / (time.monotonic() - self._began)

    @property
    def begun(self) -> dict[int, int]:
        """How many messages of each source have been sent at most."""
        return {OWN: self.published} | {each.source: each.begun for each in self.publishers}

    def note(self) -> None:
        """Remember this moment."""
        self.moments.append(Moment(self.witness.messages, time.time_ns(), self.begun))

    def publish(self, client: Client, number: int) -> None:
        """Send some messages of :data:`OWN`."""
        numbers = range(self.published, self.published + number)
        client.send(b"".join(signal_message(OWN, sequence) for sequence in numbers))
        self.published += number


@contextmanager
def load(*options: str) -> Iterator[Load]:
    """Run a relay under load. At the end all that was sent must have come to the witness."""
    with Relay(*JOURNAL, *options) as relay:
        flood = Load(relay)
        for publisher in flood.publishers:
            publisher.start()
        flood.witness.wait(RATE // 10)
        flood.note()
        yield flood
        for publisher in flood.publishers:
            publisher.stop()
        flood.witness.wait(sum(flood.begun.values()))
        flood.witness.close()


def stall_round(flood: Load, chance: random.Random, kind: str) -> str:
    """Have one peer stall, or begin in the past in that way, and hold it to what the witness saw.

    Returns what it did, for a person. Raises ``AssertionError`` for a message that is missing,
    repeated, out of order or the peer's own.
    """
    sources, types = chance.choice(FILTERS)
    asked = Subscribe(Wish.POSITIONS, sources=sources, types=types, name=NAME)
    if kind == "stall":
        follower, client = join(flood, asked)
        stall(flood, follower, client, chance)
    else:
        follower, client = PASTS[kind](flood, asked, chance)
        if chance.random() < 0.5:
            flood.publish(client, chance.randint(1, 20))
    behind = flood.witness.messages - position_of(follower) // SIZE
    catch_up(flood, follower)
    client.close()
    flood.checked += follower.messages
    flood.note()
    wanted = "sources" * bool(sources) or "types" * bool(types) or "all"
    return f"{kind}, {wanted}: {follower.messages} messages, from {behind} behind"


def join(flood: Load, asked: Subscribe) -> tuple[Follower, Client]:
    """Subscribe, and wait for the answer. A name is asked for until it is free."""
    client = flood.relay.connect()
    follower = Follower(client, flood.witness, asked, OWN)
    deadline = time.monotonic() + PATIENCE
    while follower.first is None:
        assert time.monotonic() < deadline, "the name is not free"
        client.send(build_control(asked, timestamp=time.time_ns()))
        follower.refused = False
        while follower.first is None and not follower.refused:
            follower.turn()
        flood.names_taken += follower.refused
    return follower, client


def stall(flood: Load, follower: Follower, client: Client, chance: random.Random) -> None:
    """Read a little, and then nothing until much has come; publish before, meanwhile or not."""
    for _ in range(chance.randint(0, 20)):
        follower.turn()
    flood.publish(client, chance.choice((0, 0, 7)))
    flood.witness.wait(flood.witness.messages + chance.randint(*STALL))
    flood.publish(client, chance.choice((0, 0, 7)))


def catch_up(flood: Load, follower: Follower) -> None:
    """Read up to the head, where each message must have come that the witness has seen."""
    goal = (flood.witness.messages + 1) * SIZE
    while not (_is_live(follower.last) and position_of(follower) >= goal):
        follower.turn()
    assert follower.next_there == follower.wanted(position_of(follower)), "missing at a position"
    assert follower.last is not None
    flood.bookmarks.append(follower.last)


def _is_live(sync: SequenceSync | None) -> bool:
    return sync is not None and sync.state is SyncState.LIVE


def position_of(follower: Follower) -> int:
    """Return what the relay said last."""
    assert follower.last is not None
    return follower.last.position


def begin_of(follower: Follower) -> int:
    """Return where the relay said that it begins."""
    assert follower.first is not None
    return follower.first.position


def from_position(flood: Load, asked: Subscribe, chance: random.Random) -> tuple[Follower, Client]:
    """Begin anywhere, in most cases inside a message: it begins with the next one then."""
    back = chance.randint(1, min(REACH, flood.witness.messages))
    position = (flood.witness.messages - back) * SIZE + chance.choice((0, chance.randrange(SIZE)))
    follower, client = join(flood, _from(asked, Start.POSITION, position))
    assert begin_of(follower) == -(-position // SIZE) * SIZE
    return follower, client


def from_bookmark(flood: Load, asked: Subscribe, chance: random.Random) -> tuple[Follower, Client]:
    """Begin where one of the last rounds ended."""
    if not flood.bookmarks:
        return from_position(flood, asked, chance)
    epoch, position, _ = chance.choice(flood.bookmarks)
    follower, client = join(flood, _from(asked, Start.POSITION, position, epoch))
    assert begin_of(follower) == position
    return follower, client


def from_last(flood: Load, asked: Subscribe, chance: random.Random) -> tuple[Follower, Client]:
    """Begin with the last messages that match: that many must lie between there and the head."""
    number = chance.randint(1, min(REACH, flood.witness.messages // 4))
    least = matching(asked, flood.witness.before(flood.witness.messages * SIZE))
    follower, client = join(flood, _from(asked, Start.LAST, number))
    most = matching(asked, flood.begun)
    begin = matching(asked, flood.witness.before(begin_of(follower)))
    assert least <= begin + number <= most, "not as many as asked for"
    return follower, client


def matching(asked: Subscribe, counts: dict[int, int]) -> int:
    """Return how many of so many first messages of each source match; its own do as well."""
    of_sources = (counts[source] for source in asked.sources or counts)
    return sum(count // 2 if asked.types else count for count in of_sources)


def from_time(flood: Load, asked: Subscribe, chance: random.Random) -> tuple[Follower, Client]:
    """Begin at a moment of an earlier round: nothing may be left out that was sent after it."""
    moment = chance.choice(flood.moments)
    follower, client = join(flood, _from(asked, Start.TIME, moment.time))
    before = flood.witness.before(begin_of(follower))
    assert all(before[source] <= begun for source, begun in moment.begun.items()), "too late"
    assert begin_of(follower) >= moment.seen * SIZE, "what came before is not left out"
    return follower, client


def _from(asked: Subscribe, start: Start, value: int, epoch: int = 0) -> Subscribe:
    return replace(asked, start=start, start_value=value, epoch=epoch)


PASTS = {
    "position": from_position,
    "bookmark": from_bookmark,
    "last": from_last,
    "time": from_time,
}
