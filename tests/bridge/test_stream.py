"""The stream in a real JetStream: what it is to be like, and what can go wrong in it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats")

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from alphapulse_relay.bridge import stream as module
from alphapulse_relay.bridge.envelope import HEADERS_ROOM, Envelope, Place
from alphapulse_relay.bridge.stream import (
    LaterError,
    Stream,
    StreamError,
    Wanted,
    WrongLastError,
    faults_of,
)
from tests.bridge.bridges import settings
from tests.bridge.servers import NATS, connected

NUMBERS = itertools.count()
NONE = Place(0, 0, 0, 0)


def wanted(**changed: Any) -> Wanted:
    """Return what a stream is to be that no other test has."""
    number = next(NUMBERS)
    ours = Wanted(f"S{number}", f"s{number}", True, 1, 1 << 20, 3600.0)
    return replace(ours, **changed)


def envelope(payload: bytes = b"x", position: int = 0) -> Envelope:
    return Envelope(payload, NONE, Place(1, position, 0, 0), 5)


@asynccontextmanager
async def a_stream(
    directory: Path, url: str, ours: Wanted | None = None, **options: str
) -> AsyncIterator[tuple[Stream, Any]]:
    """Return a stream that is not checked yet, and JetStream itself."""
    async with connected(settings(directory, nats=url, **options)) as server:
        yield Stream(server, ours or wanted()), server.client.jetstream()


class TestCheck:
    def test_it_is_made_once(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url) as (stream, _):
                config = (await stream.check()).config
                created = stream.created
                assert config.subjects == [f"{stream.wanted.subject}.>"]
                assert (config.max_bytes, config.max_age) == (1 << 20, 3600)
                assert config.storage == StorageType.FILE
                other = Stream(stream._server, replace(stream.wanted, create=False, max_bytes=9))
                await other.check()
                assert other.created == created != ""

        asyncio.run(go())

    def test_for_ever(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url, wanted(max_age=None)) as (stream, _):
                assert not (await stream.check()).config.max_age

        asyncio.run(go())

    def test_there_is_none(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url, wanted(create=False)) as (stream, _):
                with pytest.raises(StreamError, match=r"there is no stream S.* --create-stream"):
                    await stream.check()

        asyncio.run(go())

    def test_it_cannot_be_made(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url, wanted(replicas=3)) as (stream, _):
                with pytest.raises(StreamError, match=r"stream S\d+ cannot be made: .*replicas"):
                    await stream.check()

        asyncio.run(go())

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"storage": StorageType.MEMORY}, "it is kept in memory"),
            ({"retention": RetentionPolicy.INTEREST}, "its retention is interest"),
            ({"retention": RetentionPolicy.WORK_QUEUE}, "its retention is workqueue"),
            ({"max_msgs_per_subject": 5}, "it keeps only 5 messages of a relay"),
            ({"subjects": ["nobody.>", "s.b"]}, "it has the subjects nobody.>, s.b, not s"),
            ({"no_ack": True}, "it acknowledges nothing"),
            ({"max_msg_size": 4095}, "it takes only 4095 bytes in a message: at least 4096"),
        ],
    )
    def test_it_is_another_one(
        self, tmp_path: Path, nats_url: str, config: dict[str, Any], words: str
    ) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url) as (stream, jetstream):
                ours = stream.wanted
                made = {"name": ours.name, "subjects": [f"{ours.subject}.>"], **config}
                await jetstream.add_stream(StreamConfig(**made))
                with pytest.raises(StreamError, match=rf"stream {ours.name}.*{words}"):
                    await stream.check()
                await jetstream.delete_stream(ours.name)

        asyncio.run(go())

    def test_it_is_sealed(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url) as (stream, jetstream):
                config = (await stream.check()).config
                await jetstream.update_stream(config.evolve(sealed=True))
                with pytest.raises(StreamError, match="it is sealed"):
                    await stream.check()

        asyncio.run(go())

    def test_no_jetstream(self, tmp_path: Path) -> None:
        async def go(url: str) -> None:
            async with a_stream(tmp_path, url) as (stream, _):
                with pytest.raises(StreamError, match="JetStream is not enabled on this NATS"):
                    await stream.check()

        with NATS(tmp_path, jetstream=False) as server:
            asyncio.run(go(server.url))

    def test_no_jetstream_for_this_account(self, tmp_path: Path) -> None:
        async def go(url: str) -> None:
            async with a_stream(tmp_path, url) as (stream, _):
                with pytest.raises(StreamError, match="JetStream is not enabled"):
                    await stream.check()

        config = "accounts { A { users: [{user: a, password: b}] } }\nno_auth_user: a"
        with NATS(tmp_path, config) as server:
            asyncio.run(go(server.url))

    def test_it_may_not_be_looked_at(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(module, "PUBLISH_SECONDS", 0.5)

        async def go(url: str) -> None:
            async with a_stream(tmp_path, url) as (stream, _):
                with pytest.raises(LaterError, match=r"permissions violation .*stream\.info"):
                    await stream.check()

        config = """authorization { users: [{user: a, password: b, permissions: {publish: "s.>"}}] }
        no_auth_user: a"""
        with NATS(tmp_path, config) as server:
            asyncio.run(go(server.url))


class TestPublish:
    def test_one_behind_the_other(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url) as (stream, _):
                await stream.check()
                subject = f"{stream.wanted.subject}.a"
                first = await stream.publish(subject, envelope(), 0)
                assert await stream.publish(subject, envelope(position=1), first) == first + 1
                with pytest.raises(WrongLastError, match="somebody else publishes"):
                    await stream.publish(subject, envelope(position=2), first)
                # Each relay has an order of its own.
                await stream.publish(f"{stream.wanted.subject}.b", envelope(), 0)

        asyncio.run(go())

    def test_the_stream_is_full(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url) as (stream, jetstream):
                config = stream.wanted.config.evolve(discard=DiscardPolicy.NEW, max_bytes=10_000)
                await jetstream.add_stream(config)
                await stream.check()
                subject = f"{stream.wanted.subject}.a"
                first = await stream.publish(subject, envelope(bytes(9000)), 0)
                for _ in range(2):
                    with pytest.raises(LaterError, match="maximum bytes exceeded"):
                        await stream.publish(subject, envelope(bytes(9000), 1), first)
                await jetstream.update_stream(config.evolve(max_bytes=20_000))
                assert await stream.publish(subject, envelope(bytes(9000), 1), first) == first + 1

        asyncio.run(go())

    def test_the_stream_takes_less_than_the_server(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url) as (stream, jetstream):
                subject = f"{stream.wanted.subject}.a"
                await jetstream.add_stream(stream.wanted.config.evolve(max_msg_size=5000))
                assert stream.max_payload == 1 << 20
                await stream.check()
                assert stream.max_payload == 5000
                await stream.publish(subject, envelope(bytes(5000 - HEADERS_ROOM)), 0)
                with pytest.raises(StreamError, match="message size exceeds"):
                    await stream.publish(subject, envelope(bytes(5000), 1), 1)

        asyncio.run(go())

    def test_the_server_takes_less_by_now(self, tmp_path: Path) -> None:
        async def go(nats_server: NATS) -> None:
            async with a_stream(tmp_path, nats_server.url) as (stream, _):
                await stream.check()
                subject, server = f"{stream.wanted.subject}.a", stream._server
                nats_server.restart("max_payload: 4096")
                with pytest.raises(ConnectionError):
                    await server.until_lost()
                await server.connected()
                with pytest.raises(StreamError, match="maximum payload exceeded"):
                    await stream.publish(subject, envelope(bytes(5000)), 0)
                assert stream.max_payload == 4096
                await stream.publish(subject, envelope(bytes(4096 - HEADERS_ROOM)), 0)

        with NATS(tmp_path) as server:
            asyncio.run(go(server))

    def test_the_stream_is_gone(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url) as (stream, jetstream):
                await stream.check()
                subject, created = f"{stream.wanted.subject}.a", stream.created
                first = await stream.publish(subject, envelope(), 0)
                await jetstream.delete_stream(stream.wanted.name)
                with pytest.raises(LaterError):
                    await stream.publish(subject, envelope(position=1), first)
                with pytest.raises(LaterError, match="stream not found"):
                    await stream.last_of(subject)
                await stream.check()
                assert stream.created != created
                with pytest.raises(WrongLastError):
                    await stream.publish(subject, envelope(position=1), first)
                assert await stream.last_of(subject) is None

        asyncio.run(go())

    def test_nobody_answers(self, tmp_path: Path, monkeypatch: Any) -> None:
        async def go(nats_server: NATS) -> None:
            async with a_stream(tmp_path, nats_server.url) as (stream, _):
                await stream.check()
                monkeypatch.setattr(module, "PUBLISH_SECONDS", 0.3)
                nats_server.freeze()
                subject = f"{stream.wanted.subject}.a"
                for call in (
                    stream.publish(subject, envelope(), 0),
                    stream.last_of(subject),
                    stream.check(),
                ):
                    with pytest.raises(LaterError, match="JetStream does not answer"):
                        await call

        with NATS(tmp_path) as server:
            asyncio.run(go(server))


class TestLast:
    def test_of_a_subject_and_of_all_below_one(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url) as (stream, _):
                await stream.check()
                relay = f"{stream.wanted.subject}.a"
                assert await stream.last_of(relay) is None
                assert await stream.last_of(f"{relay}.>") is None
                await stream.publish(relay, envelope(b"abc"), 0)
                await stream.publish(f"{relay}.20", envelope(b"def", 3), 0)
                last = await stream.last_of(relay)
                assert last is not None
                assert (last.subject, last.sequence, last.envelope) == (relay, 1, envelope(b""))
                last = await stream.last_of(f"{relay}.>")
                assert last is not None
                assert (last.subject, last.sequence) == (f"{relay}.20", 2)
                assert last.envelope == envelope(b"", 3)

        asyncio.run(go())

    def test_none_of_a_bridge_s(self, tmp_path: Path, nats_url: str) -> None:
        async def go() -> None:
            async with a_stream(tmp_path, nats_url) as (stream, jetstream):
                await stream.check()
                await jetstream.publish(f"{stream.wanted.subject}.a", b"hello")
                with pytest.raises(StreamError, match=r"message 1 of s\d+\.a in stream S\d+: it"):
                    await stream.last_of(f"{stream.wanted.subject}.a")

        asyncio.run(go())


@pytest.mark.parametrize(
    ("subject", "fits"),
    [
        ("desk.signals.>", True),
        ("desk.>", True),
        (">", True),
        ("*.>", True),
        ("*.signals.>", True),
        ("*.*.>", True),
        ("*.*.*.>", False),
        ("desk.signals.a.>", False),
        ("desk.signals.*", False),
        ("desk.signals", False),
        ("other.>", False),
        ("desk.sig.>", False),
    ],
)
def test_subjects(subject: str, fits: bool) -> None:
    ours = replace(wanted(), subject="desk.signals")
    config = ours.config.evolve(subjects=["else", subject])
    assert (not faults_of(config, ours, 1 << 20)) == fits
