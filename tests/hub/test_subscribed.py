"""The cursor of a peer that speaks control: what is sent, and what is said in between.

Any program of publishers and subscribers, over a log so small that all limits are met.
"""

import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from alphapulse_relay.hub.peer import Ending
from alphapulse_relay.protocol_v2.control import Heartbeat, Start, Subscribe, Wish
from alphapulse_relay.protocol_v2.framing import Rules
from tests.hub.fakes import Hub, make_clock
from tests.hub.oracle import (
    SMALL_MAX,
    SMALL_WINDOW,
    Journal,
    Oracle,
    Stream,
    control,
    first_of_last,
    random_subscribe,
    small_measures,
)
from tests.hub.sockets import Relay, Remote, until


class Connection:
    """A client, beside what it must be sent."""

    def __init__(self, program: "Program", name: str = "") -> None:
        self.program = program
        self.client: Any = program.hub.connect()
        self.key: object = self.client.protocol.identity.number
        log, journal = program.hub.factory.log, program.journal
        self.oracle = Oracle(journal, {self.key}, len(journal.entries), lambda: log.tail)
        self.stream = Stream()
        self.name = name
        self.torn = b""

    @property
    def ended(self) -> bool:
        return bool(self.client.protocol.left)

    def publish(self, count: int) -> None:
        """Publish; the beginning of one more message may follow."""
        journal = self.program.journal
        origin = self.name or self.key
        run = [self.program.journal.make(self.program.chance) for _ in range(count)]
        if self.torn:
            run.insert(0, self.torn)
        for each in run:
            journal.append(origin, each)
        first = run[0][len(self.torn) // 2 :] if self.torn else run[0]
        data = first + b"".join(run[1:])
        self.torn = journal.make(self.program.chance) if self.program.chance.random() < 0.1 else b""
        self.client.send(data + self.torn[: len(self.torn) // 2])

    def subscribe(self, asked: Subscribe) -> None:
        if self.torn:
            self.publish(1)
        if self.torn or self.ended:
            return
        journal, log = self.program.journal, self.program.hub.factory.log
        if asked.start is Start.LAST:
            start = first_of_last(journal, asked, log.tail)
        elif asked.start is Start.POSITION:
            start = asked.start_value
            if start >= log.tail:
                start = journal.boundary(start)
        else:
            start = journal.head
        if self.program.accepts(self, asked.name):
            self.name = asked.name
            if self.name:
                self.oracle.origins = self.oracle.origins | {self.name}
            self.oracle.ask(asked, start)
        else:
            self.program.refused += 1
        self.client.send(control(asked))

    def take(self, room: float) -> None:
        if not self.client.transport.disconnected:
            self.client.take(room)

    def look(self) -> None:
        for message in self.stream.messages(self.client.received):
            self.oracle.take(message)


class Program:
    """A hub, publishers, subscribers, and chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        rules = Rules(max_message=SMALL_MAX, aside=True)
        self.hub = Hub(make_clock(), rules=rules, window=SMALL_WINDOW)
        self.journal = Journal()
        self.publishers = [Connection(self) for _ in range(2)]
        self.subscribers = [Connection(self) for _ in range(3)]
        self.past: list[Connection] = []
        self.refused = 0

    def accepts(self, who: Connection, name: str) -> bool:
        if name == who.name:
            return True
        taken = any(each.name == name and not each.ended for each in self.subscribers)
        return not who.name and not taken

    def step(self) -> None:
        chance = self.chance
        what = chance.random()
        who = chance.choice(self.subscribers)
        if what < 0.3:
            chance.choice(self.publishers).publish(chance.choice([1, 1, 2, 5, 20]))
        elif what < 0.4:
            if not who.ended:
                who.publish(chance.randint(1, 3))
        elif what < 0.5:
            self.subscribe(who)
        elif what < 0.8:
            who.take(chance.choice([0, 10, 100, 500, 3000, 20_000, float("inf")]))
        elif what < 0.85:
            who.client.transport.limit = chance.choice([1, 50, 400, 1 << 30])
        elif what < 0.88:
            self.reconnect(who)
        elif what < 0.92:
            if not who.ended and not who.torn:
                who.client.send(control(Heartbeat(1, 0)))
        else:
            self.hub.clock.advance(0)
        for each in self.subscribers:
            each.look()

    def subscribe(self, who: Connection) -> None:
        if not who.ended:
            told = [c.oracle.position for c in [*self.subscribers, *self.past[-5:]]]
            asked = random_subscribe(self.chance, self.journal, [p for p in told if p is not None])
            name = self.chance.choice(["", "", "a", "b"]) or who.name
            who.subscribe(replace(asked, name=name))

    def reconnect(self, who: Connection) -> None:
        if not who.client.lost:
            who.client.lose()
        self.past.append(who)
        new = Connection(self)
        self.subscribers[self.subscribers.index(who)] = new
        if who.name and who.oracle.position is not None:
            again = Subscribe(
                who.oracle.subscribe.wishes,
                Start.POSITION,
                who.oracle.position,
                types=who.oracle.subscribe.types,
                sources=who.oracle.subscribe.sources,
                name=who.name,
            )
            new.subscribe(again)

    def finish(self) -> None:
        for each in self.subscribers:
            each.client.transport.limit = 1 << 30
            each.take(float("inf"))
        for _ in range(200):
            self.hub.clock.advance(0)
        for each in self.subscribers:
            each.look()
            reasons = self.hub.counters.ended
            if each.ended and not each.oracle.answered:
                assert reasons[Ending.OVERTAKEN]
                continue
            each.oracle.check_complete(finished=each.ended)
        assert not self.hub.counters.ended[Ending.FAULT]
        assert self.hub.counters.dropped["control"] == self.refused  # type: ignore[index]
        self.hub.finish()
        assert not self.hub.factory.names


@pytest.mark.parametrize("seed", range(40))
def test_any_program(seed: int) -> None:
    with small_measures():
        program = Program(seed)
        for _ in range(250):
            program.step()
        program.finish()


@pytest_twisted.async_yield_fixture
async def relay(path: Path) -> Any:
    relay = Relay(path, "relay")
    yield relay
    await relay.stop()


class Reader:
    """A client on a real socket that reads to the end of what is published."""

    def __init__(self, remote: Remote, peer: Any, oracle: Oracle) -> None:
        self.remote, self.peer, self.oracle = remote, peer, oracle
        self.stream = Stream()
        self.received = bytearray()

    async def asks(self, asked: Subscribe) -> None:
        await self.remote.send(control(asked))
        await until(lambda: self.peer.asked == asked)

    async def read(self) -> None:
        """Read until nothing more comes: then all is delivered, or the relay has closed."""
        self.remote.socket.setblocking(False)

        def drained() -> bool:
            with suppress(BlockingIOError, ConnectionResetError):
                while piece := self.remote.socket.recv(1 << 18):
                    self.received += piece
            return self.peer.left or (self.peer.cursor.at_head and not self.peer.outlet.queued())

        await until(drained)
        drained()
        for message in self.stream.messages(bytes(self.received)):
            self.oracle.take(message)


@pytest.mark.parametrize("seed", range(4))
@pytest_twisted.ensureDeferred
async def test_on_real_sockets(relay: Any, seed: int) -> None:
    """Each socket is full, and goes on in the middle of messages, with words in between."""
    chance = random.Random(seed)
    journal, log = Journal(), relay.factory.log
    publisher, sender = await relay.connect()
    readers = []
    with small_measures():
        for number in range(5):
            remote, peer = await relay.connect()
            oracle = Oracle(journal, {peer.identity.number}, 0, lambda: log.tail)
            readers.append(Reader(remote, peer, oracle))
            wishes = [Wish.ACKNOWLEDGE, Wish.POSITIONS, Wish.ZSTD][number % 3]
            asked = Subscribe(wishes, name=str(number))
            oracle.ask(asked, log.head)
            await readers[-1].asks(asked)
        for _ in range(4):
            sent = [journal.make(chance) for _ in range(1500)]
            for message in sent:
                journal.append(sender.identity.number, message)
            await publisher.send(b"".join(sent))
            await until(lambda: log.head == journal.head)
            for reader in chance.sample(readers, 3):
                await reader.remote.send(control(Heartbeat(1, 0)))
            reader = chance.choice(readers)
            start = chance.choice([0, reader.oracle.position or 0])
            asked = replace(reader.peer.asked, start=Start.POSITION, start_value=start)
            reader.oracle.ask(asked, start)
            await reader.asks(asked)
            for reader in chance.sample(readers, 3):
                await reader.read()
        for reader in readers:
            await reader.read()
            reader.oracle.check_complete(finished=False)
