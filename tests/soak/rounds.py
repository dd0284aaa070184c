"""A relay that is restarted or replaced again and again under load, with many named clients."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import ClassVar, Self

from alphapulse_relay.client.blocking import Client, follow
from alphapulse_relay.client.core import NOTHING, Message, Missed, Synced
from alphapulse_relay.protocol_v2.control import Start, Subscribe, Wish
from alphapulse_relay.protocol_v2.header import Header
from tests.soak.crowd import SOURCES, Seen, is_wanted, wanted
from tests.soak.guests import Guest
from tests.soak.load import signal_message
from tests.soak.supervised import Supervised
from tests.support import PATIENCE

BACK_MAX = 2.0
"""Seconds after which all clients must be back."""
PROCESSES = 2
PUBLISHERS = 4
BURST, PAUSE = 1, 0.2
"""Messages of each source, each so many seconds: 100 a second of all."""
UNDER_LOAD = 0.3, 1.0
"""Seconds under load before each break."""
LOOK_SECONDS = 0.1
JOURNAL = ("--journal-size", "256M")


class Publisher(Guest):
    """Publishes of some sources, with acknowledgements, over all breaks."""

    def __init__(self, relay: Path, sources: Sequence[int]) -> None:
        super().__init__()
        self.published = dict.fromkeys(sources, 0)
        self._client = Client(relay, types=NOTHING, acknowledge=True)
        self._turn = Lock()

    def turn(self) -> None:
        with self._turn:
            for _ in range(BURST):
                for source, number in self.published.items():
                    self._client.publish(signal_message(source, number), timeout=PATIENCE)
                    self.published[source] += 1
        self.over.wait(PAUSE)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Publish nothing, once all has been acknowledged."""
        with self._turn:
            self._client.flush(PATIENCE)
            yield

    def stop(self) -> None:
        super().stop()
        self._client.close()


class Crowd:
    """A part of the named clients, in a process of their own."""

    def __init__(self, relay: Path, first: int, stop: int) -> None:
        pipe = subprocess.PIPE
        command = (sys.executable, "-m", "tests.soak.crowd", relay, first, stop)
        self._process = subprocess.Popen(
            [str(each) for each in command], stdin=pipe, stdout=pipe, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def look(self) -> list[Seen]:
        """Return what each has seen until now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found = [Seen(**each) for each in json.loads(self._process.stdout.readline())]
        for each in found:
            assert not each.fault, each.fault
        return found


class Record:
    """What the log holds, read up to its head each round, and what each client should have seen."""

    def __init__(self, relay: Path, clients: int) -> None:
        self.expected = {wanted(number): Seen() for number in range(clients)}
        self.sent_twice = 0
        self._relay = relay
        self._next = dict.fromkeys(SOURCES, 0)
        self._epoch = self._position = 0

    def read(self) -> None:
        asked = Subscribe(
            Wish.POSITIONS | Wish.STOP_AT_HEAD, Start.POSITION, self._position, self._epoch
        )
        for event in follow(self._relay, asked):
            assert not isinstance(event, Missed), event
            if isinstance(event, Message):
                self._take(event.data)
            elif isinstance(event, Synced):
                self._epoch, self._position = event.bookmark.epoch, event.bookmark.position

    def check(self, published: dict[int, int]) -> None:
        """See that the log has all that was acknowledged, each once."""
        assert self._next == published, "what was acknowledged is not in the log"

    def _take(self, data: bytes) -> None:
        header = Header.unpack(data)
        due = self._next[header.source]
        assert header.sequence <= due, f"source {header.source}: {due} is lost"
        if header.sequence < due:
            self.sent_twice += 1
        else:
            self._next[header.source] += 1
        for asked, seen in self.expected.items():
            if is_wanted(asked, header):
                seen.take(data)


@dataclass(frozen=True)
class Break:
    """How a round went, in seconds until the last client had been answered again.

    ``since_told`` is from the SIGTERM, or from the start of the process that takes over;
    ``since_lost`` from the end of the first client's connection. ``away`` is of the client that was
    longest without one.
    """

    WHAT: ClassVar = {
        "since_told": "from the SIGTERM, or the start of who takes over, until all are back",
        "since_lost": "from the first one's end of connection until all are back",
        "away": "the longest that one was without a relay",
    }
    since_told: float
    since_lost: float
    away: float

    def __str__(self) -> str:
        return f"{self.since_told:.2f}/{self.since_lost:.2f}/{self.away:.2f} s"


class Life:
    """A relay with clients and publishers. ``way`` is what ends a process and begins the next."""

    def __init__(self, clients: int, *, held: bool, chance: random.Random) -> None:
        self.clients = clients
        self._held = held
        self._chance = chance
        self._stack = ExitStack()
        self.messages = 0
        """Those that were acknowledged."""

    def __enter__(self) -> Self:
        with self._stack:
            self.relay = self._stack.enter_context(Supervised(*JOURNAL, held=self._held))
            path = self.relay.socket
            cuts = [self.clients * part // PROCESSES for part in range(PROCESSES + 1)]
            self._crowds = [
                self._stack.enter_context(Crowd(path, first, stop))
                for first, stop in pairwise(cuts)
            ]
            self._record = Record(path, self.clients)
            self._wait(lambda seen: all(each.connected for each in seen), "are there")
            self._publishers = [
                Publisher(path, SOURCES[number::PUBLISHERS]) for number in range(PUBLISHERS)
            ]
            for publisher in self._publishers:
                publisher.start()
                self._stack.callback(publisher.stop)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def round(self, way: Callable[[Supervised], float]) -> Break:
        """Break the relay's service under load, and see that nobody has felt more than a pause."""
        time.sleep(self._chance.uniform(*UNDER_LOAD))
        told = way(self.relay)
        seen = self._wait(lambda seen: all(each.connected > told for each in seen), "are back")
        last = max(each.connected for each in seen)
        self._check()
        return Break(
            since_told=last - told,
            since_lost=last - min(each.lost for each in seen),
            away=max(each.connected - each.lost for each in seen),
        )

    def _check(self) -> None:
        """See that the log has all that was acknowledged, and each client what it wants of that."""
        with ExitStack() as stack:
            published: dict[int, int] = {}
            for publisher in self._publishers:
                publisher.check()
                stack.enter_context(publisher.paused())
                published |= publisher.published
            self._record.read()
            self._record.check(published)
            expected = [self._record.expected[wanted(number)] for number in range(self.clients)]
            self._wait(partial(_all_had, expected), "have what they want")
            self.messages = sum(published.values())

    @property
    def sent_twice(self) -> int:
        """How many messages a publisher sent again since their Ack did not come."""
        return self._record.sent_twice

    def _look(self) -> list[Seen]:
        return [each for crowd in self._crowds for each in crowd.look()]

    def _wait(self, holds: Callable[[list[Seen]], bool], what: str) -> list[Seen]:
        deadline = time.monotonic() + PATIENCE
        while not holds(seen := self._look()):
            assert time.monotonic() < deadline, f"not all clients {what}"
            time.sleep(LOOK_SECONDS)
        return seen


def _all_had(expected: Sequence[Seen], seen: Sequence[Seen]) -> bool:
    """Whether each has had what was expected. Raises ``AssertionError`` if that can never be."""
    for number, (one, other) in enumerate(zip(expected, seen, strict=True)):
        assert other.messages <= one.messages, f"client {number} got a message twice"
        if other.messages == one.messages:
            assert other.crc == one.crc, f"client {number} got other messages, or another order"
    return all(one.messages == other.messages for one, other in zip(expected, seen, strict=True))
