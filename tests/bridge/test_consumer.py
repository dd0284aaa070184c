"""The durable consumer of a real JetStream: all there is, in order, and never silently less."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats")

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from alphapulse_relay.bridge import consumer as module
from alphapulse_relay.bridge.consumer import ASKED, Asked, Consumer, Delivery, RestartError
from alphapulse_relay.bridge.server import Server
from tests.bridge.bridges import settings
from tests.bridge.servers import NATS, connected, soon
from tests.support import PATIENCE

NUMBERS = itertools.count()


class Place:
    """A stream of a test's own, and what is in it."""

    def __init__(self, server: Server) -> None:
        self.name = f"C{next(NUMBERS)}"
        self.server = server
        self.jetstream = server.client.jetstream()

    async def make(self) -> None:
        await self.jetstream.add_stream(StreamConfig(name=self.name, subjects=[f"{self.name}.>"]))

    async def put(self, *payloads: bytes, subject: str = "a") -> None:
        for payload in payloads:
            await self.jetstream.publish(f"{self.name}.{subject}", payload)

    def consumer(self, *subjects: str) -> Consumer:
        asked = tuple(f"{self.name}.{subject}" for subject in subjects or (">",))
        return Consumer(self.server, Asked(self.name, "desk", asked))


@asynccontextmanager
async def a_place(directory: Path, url: str) -> AsyncIterator[Place]:
    async with connected(settings(directory, nats=url)) as server:
        place = Place(server)
        await place.make()
        yield place


@asynccontextmanager
async def running(consumer: Consumer, begin: int) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a consumer; it need not last as long as this."""
    await consumer.begin(begin)
    task = asyncio.ensure_future(consumer.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.done()


async def some(consumer: Consumer, number: int) -> list[Delivery]:
    async with asyncio.timeout(PATIENCE):
        return [await consumer.get() for _ in range(number)]


def payloads(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.payload for delivery in deliveries]


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def test_all_from_a_sequence_on(tmp_path: Path, nats_url: str) -> None:
    async def go() -> None:
        async with a_place(tmp_path, nats_url) as place:
            await place.put(*numbers(5))
            consumer = place.consumer()
            async with running(consumer, 3):
                first, *others = found = await some(consumer, 3)
                assert [delivery.sequence for delivery in found] == [3, 4, 5]
                assert payloads(found) == [b"2", b"3", b"4"]
                assert (first.subject, first.headers) == (f"{place.name}.a", None)
                assert [delivery.pending for delivery in found] == [2, 1, 0]
                assert others[-1].stored >= first.stored > 1e9
                await place.put(b"later")
                assert payloads(await some(consumer, 1)) == [b"later"]
                assert consumer.waiting == 0

    asyncio.run(go())


def test_no_more_than_a_few_wait_here(tmp_path: Path, nats_url: str) -> None:
    async def go() -> None:
        async with a_place(tmp_path, nats_url) as place:
            many = numbers(5 * ASKED)
            await place.put(*many)
            consumer = place.consumer()
            async with running(consumer, 1):
                found = []
                while len(found) < len(many):
                    left = len(many) - len(found)
                    await soon(lambda left=left: consumer.waiting >= min(left, ASKED // 2))
                    assert consumer.waiting <= ASKED
                    found += payloads(await some(consumer, 1))
                assert found == many

    asyncio.run(go())


def test_only_what_is_asked_for(tmp_path: Path, nats_url: str) -> None:
    async def go() -> None:
        async with a_place(tmp_path, nats_url) as place:
            for subject in ("a", "b", "c", "b.20", "c.20"):
                await place.put(subject.encode(), subject=subject)
            for asked, found in [
                (("b",), [b"b"]),
                (("b", "b.>"), [b"b", b"b.20"]),
                (("b", "*.20"), [b"b", b"b.20", b"c.20"]),
            ]:
                consumer = place.consumer(*asked)
                async with running(consumer, 1):
                    assert payloads(await some(consumer, len(found))) == found

    asyncio.run(go())


def test_whether_all_was_delivered(tmp_path: Path, nats_url: str) -> None:
    """All that is asked for, and not before it is acknowledged."""

    async def go() -> None:
        async with a_place(tmp_path, nats_url) as place:
            await place.put(*numbers(ASKED + 2))
            await place.put(b"else", subject="b")
            consumer = place.consumer("a")
            assert not await consumer.has_delivered_all()  # there is none yet
            async with running(consumer, 1):
                assert not await consumer.has_delivered_all()
                found = await some(consumer, ASKED)
                await found[-1].acknowledge()
                found += await some(consumer, 2)
                assert consumer.delivered == ASKED + 2
                assert not await consumer.has_delivered_all()
                await found[-1].acknowledge()
                async with asyncio.timeout(PATIENCE):
                    while not await consumer.has_delivered_all():
                        await asyncio.sleep(0.01)
            await consumer.begin(1)
            assert consumer.delivered == 0

    asyncio.run(go())


def test_how_far_it_has_come(tmp_path: Path, nats_url: str) -> None:
    async def go() -> None:
        async with a_place(tmp_path, nats_url) as place:
            await place.put(*numbers(5))
            consumer = place.consumer()
            assert await consumer.acknowledged() is None
            async with running(consumer, 2):
                found = await some(consumer, 4)
                assert await consumer.acknowledged() == 1
                await found[1].acknowledge()  # and with it the one before
                async with asyncio.timeout(PATIENCE):
                    while await consumer.acknowledged() != 3:
                        pass
            # What was not acknowledged comes again, in order, with what is new.
            await place.put(b"new")
            async with running(consumer, 4):
                assert payloads(await some(consumer, 3)) == [b"3", b"4", b"new"]
                assert await consumer.acknowledged() == 3

    asyncio.run(go())


def test_a_delivery_that_is_lost(tmp_path: Path, nats_url: str) -> None:
    async def go() -> None:
        async with a_place(tmp_path, nats_url) as place:
            consumer = place.consumer()
            async with running(consumer, 1) as task:
                await place.put(b"0")
                assert payloads(await some(consumer, 1)) == [b"0"]
                # Somebody else takes one.
                thief = await place.jetstream.pull_subscribe_bind("desk", place.name)
                taken = asyncio.ensure_future(thief.fetch(ASKED, timeout=PATIENCE))
                await place.put(*numbers(3 * ASKED))
                await taken
                await asyncio.wait([task], timeout=PATIENCE)
                with pytest.raises(RestartError, match=r"\d+ deliveries were lost"):
                    task.result()
            async with running(consumer, 2):
                assert payloads(await some(consumer, 3 * ASKED)) == numbers(3 * ASKED)

    asyncio.run(go())


@pytest.mark.parametrize("what", ["consumer", "stream"])
def test_it_is_deleted(tmp_path: Path, nats_url: str, what: str) -> None:
    async def go() -> None:
        async with a_place(tmp_path, nats_url) as place:
            consumer = place.consumer()
            async with running(consumer, 1) as task:
                await place.put(b"0")
                await some(consumer, 1)
                if what == "consumer":
                    await place.jetstream.delete_consumer(place.name, "desk")
                else:
                    await place.jetstream.delete_stream(place.name)
                with pytest.raises(RestartError, match="409 Consumer Deleted"):
                    async with asyncio.timeout(PATIENCE):
                        await task

    asyncio.run(go())


def test_there_is_no_stream(tmp_path: Path, nats_url: str) -> None:
    async def go() -> None:
        async with a_place(tmp_path, nats_url) as place:
            await place.jetstream.delete_stream(place.name)
            consumer = place.consumer()
            assert await consumer.acknowledged() is None
            with pytest.raises(nats.js.errors.NotFoundError):
                await consumer.begin(1)

    asyncio.run(go())


def test_requests_end_and_are_made_again(tmp_path: Path, nats_url: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "EXPIRES_SECONDS", 0.1)

    async def go() -> None:
        async with a_place(tmp_path, nats_url) as place:
            consumer = place.consumer()
            async with running(consumer, 1) as task:
                for number in range(3):
                    await asyncio.sleep(0.25)
                    await place.put(b"%d" % number)
                    assert payloads(await some(consumer, 1)) == [b"%d" % number]
                assert not task.done()

    asyncio.run(go())


def test_a_server_that_says_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "EXPIRES_SECONDS", 0.1)

    async def go(server: NATS) -> None:
        async with a_place(tmp_path, server.url) as place:
            consumer = place.consumer()
            async with running(consumer, 1) as task:
                await place.put(b"0")
                await some(consumer, 1)
                server.freeze()
                with pytest.raises(RestartError, match="JetStream does not answer"):
                    async with asyncio.timeout(PATIENCE):
                        await task

    with NATS(tmp_path) as server:
        asyncio.run(go(server))


def test_a_server_that_knows_one_subject_only(
    tmp_path: Path, nats_url: str, monkeypatch: Any
) -> None:
    made = JetStreamContext.add_consumer

    async def as_before_2_10(self: Any, stream: str, config: Any, **more: Any) -> Any:
        # Such a server passes over what it does not know.
        return await made(self, stream, config.evolve(filter_subjects=None), **more)

    monkeypatch.setattr(JetStreamContext, "add_consumer", as_before_2_10)

    async def go() -> None:
        async with a_place(tmp_path, nats_url) as place:
            with pytest.raises(RestartError, match=r"too old to choose C\d+.a, C\d+.b: 2.10 is"):
                await place.consumer("a", "b").begin(1)
            consumer = place.consumer("b")
            async with running(consumer, 1):
                await place.put(b"b", subject="b")
                assert payloads(await some(consumer, 1)) == [b"b"]

    asyncio.run(go())
