"""What is seen at real NATS servers, and that seeing it changes nothing."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats")

from nats.js.api import ConsumerConfig, StorageType, StreamConfig

from alphapulse_relay.bridge import check as module
from alphapulse_relay.bridge.bridge import wanted_stream
from alphapulse_relay.bridge.check import View, look, outward_place
from alphapulse_relay.bridge.envelope import Envelope, Place
from alphapulse_relay.bridge.options import BridgeSettings
from alphapulse_relay.bridge.state import State
from alphapulse_relay.bridge.stream import Last, Stream
from tests.bridge.bridges import settings
from tests.bridge.servers import NATS, connected

NUMBERS = itertools.count()
NONE = Place(0, 0, 0, 0)
NOBODY = "nats://127.0.0.1:1"
"""Where no server listens: a port that only root may have."""


def ours(directory: Path, url: Any, **options: Any) -> BridgeSettings:
    """Return settings with a stream and a subject that no other test has."""
    number = next(NUMBERS)
    given = {"nats": url, "stream": f"L{number}", "subject": f"l{number}", **options}
    return settings(directory, **given)


def prepare(one: BridgeSettings, work: Callable[[Stream, Any], Coroutine[Any, Any, None]]) -> None:
    """Do something with JetStream, as who makes the stream."""

    async def go() -> None:
        async with connected(one) as server:
            await work(Stream(server, wanted_stream(one)), server.client.jetstream())

    asyncio.run(go())


def seen(one: BridgeSettings) -> View:
    return asyncio.run(look(one))


def envelope(position: int, epoch: int = 1) -> Envelope:
    return Envelope(b"x", NONE, Place(epoch, position, 0, 0), 5)


class TestServers:
    def test_all_are_asked(self, tmp_path: Path, nats_url: str) -> None:
        view = seen(ours(tmp_path, [NOBODY, nats_url]))
        none, good = view.servers
        assert (none.url, none.trouble is None) == (NOBODY, False)
        assert (good.url, good.trouble, good.is_encrypted) == (nats_url, None, False)
        assert good.version > (2, 0, 0)
        assert 0 < good.round_trip < 1
        assert good.max_payload == 1 << 20
        assert view.is_reached
        assert (view.trouble, view.stream, view.taken_by) == (None, None, None)

    def test_none_answers(self, tmp_path: Path) -> None:
        view = seen(ours(tmp_path, NOBODY))
        assert not view.is_reached
        assert view.stream is None

    def test_silence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
        with NATS(tmp_path) as server:
            server.freeze()
            (one,) = seen(ours(tmp_path, server.url)).servers
        assert one.trouble is not None

    def test_who_is_not_let_in(self, tmp_path: Path) -> None:
        with NATS(tmp_path, "authorization { token: secret }") as server:
            (one,) = seen(ours(tmp_path, server.url)).servers
        assert one.trouble is not None
        assert "authorization violation" in one.trouble.lower()

    def test_a_file_that_has_gone(self, tmp_path: Path) -> None:
        one = replace(ours(tmp_path, NOBODY), tls_ca=tmp_path / "gone.pem")
        with pytest.raises(OSError, match="No such file"):
            seen(one)


class TestJetStream:
    def test_it_is_off(self, tmp_path: Path) -> None:
        with NATS(tmp_path, jetstream=False) as server:
            view = seen(ours(tmp_path, server.url))
        assert view.is_reached
        assert view.trouble == "JetStream is not enabled"

    def test_who_may_not_ask(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
        config = 'authorization { users: [{user: a, password: b, permissions: {publish: "c.>"}}] }'
        secret = tmp_path / "password"
        secret.write_text("b\n")
        secret.chmod(0o600)
        with NATS(tmp_path, config) as server:
            options = {"user": "a", "password_file": str(secret)}
            view = seen(ours(tmp_path, server.url, **options))
        assert view.trouble is not None
        assert "permissions violation" in view.trouble


class TestStream:
    def test_another_one_has_the_subjects(self, tmp_path: Path, nats_url: str) -> None:
        one = ours(tmp_path, nats_url)

        async def make(stream: Stream, jetstream: Any) -> None:
            await jetstream.add_stream(name="OTHER", subjects=[f"{one.subject}.>"])

        prepare(one, make)
        view = seen(one)
        assert (view.stream, view.taken_by) == (None, "OTHER")

    def test_none_is_made(self, tmp_path: Path, nats_url: str) -> None:
        one = ours(tmp_path, nats_url, create_stream="true")
        assert seen(one).stream is None
        assert seen(one).stream is None

    def test_an_empty_one(self, tmp_path: Path, nats_url: str) -> None:
        one = ours(tmp_path, nats_url, create_stream="true")

        async def make(stream: Stream, jetstream: Any) -> None:
            await stream.check()

        prepare(one, make)
        found = seen(one).stream
        assert found is not None
        assert (found.faults, found.oldest, found.subjects) == ((), None, {})
        assert (found.last, found.stranger, found.consumer) == (None, None, None)

    def test_all_that_is_in_it(self, tmp_path: Path, nats_url: str) -> None:
        one = ours(tmp_path, nats_url, create_stream="true")
        desk = f"{one.subject}.desk"

        async def fill(stream: Stream, jetstream: Any) -> None:
            await stream.check()
            await stream.publish(f"{one.subject}.a", envelope(7), 0)
            await stream.publish(desk, envelope(8), 0)
            await stream.publish(f"{desk}.21", envelope(9), 0)
            config = ConsumerConfig(durable_name="desk", ack_policy="all")
            await jetstream.add_consumer(one.stream, config)

        prepare(one, fill)
        found = seen(one).stream
        assert found is not None
        assert found.subjects == {f"{one.subject}.a": 1, desk: 1, f"{desk}.21": 1}
        assert found.oldest is not None
        assert found.last is not None
        assert (found.last.subject, found.last.sequence) == (f"{desk}.21", 3)
        assert found.last.envelope.end.position == 9
        assert found.consumer is not None
        assert found.consumer.num_pending == 3
        assert seen(one).stream == found, "it is as it was"

    def test_what_no_bridge_has_made(self, tmp_path: Path, nats_url: str) -> None:
        one = ours(tmp_path, nats_url, create_stream="true")

        async def fill(stream: Stream, jetstream: Any) -> None:
            await stream.check()
            await jetstream.publish(f"{one.subject}.desk", b"hello")

        prepare(one, fill)
        found = seen(one).stream
        assert found is not None
        assert "has not the headers of a bridge" in str(found.stranger)

    def test_what_does_not_fit(self, tmp_path: Path, nats_url: str) -> None:
        one = ours(tmp_path, nats_url)

        async def make(stream: Stream, jetstream: Any) -> None:
            config = StreamConfig(
                name=one.stream,
                subjects=[f"{one.subject}.>"],
                storage=StorageType.MEMORY,
                max_msg_size=100,
            )
            await jetstream.add_stream(config)

        prepare(one, make)
        found = seen(one).stream
        assert found is not None
        memory, small = found.faults
        assert memory.startswith("it is kept in memory")
        assert small.startswith("it takes only 100 bytes in a message")


class TestOutwardPlace:
    """The bridge's own rule: see the tests of ``outward``."""

    @pytest.mark.parametrize(
        ("last", "place", "expected"),
        [
            (None, 5, 5),
            (7, 5, 7),
            (7, 9, 9),
        ],
    )
    def test_the_later_one_counts(
        self, tmp_path: Path, last: int | None, place: int, expected: int
    ) -> None:
        found = None if last is None else Last("s.desk", 3, envelope(last))
        state = State(Place(1, place, 0, 0).text)
        assert outward_place(settings(tmp_path), found, state, 0, 1).position == expected

    def test_the_stream_counts_where_the_journal_is_another(self, tmp_path: Path) -> None:
        last = Last("s.desk", 3, envelope(7, epoch=2))
        state = State(Place(1, 9, 0, 0).text)
        assert outward_place(settings(tmp_path), last, state, 0, 2).epoch == 2

    def test_the_stream_counts_where_the_file_has_gone(self, tmp_path: Path) -> None:
        state = State(first=Place(1, 9, 0, 0).text)
        last = Last("s.desk", 3, envelope(7))
        assert outward_place(settings(tmp_path), last, state, 0, 2).position == 7
        assert outward_place(settings(tmp_path), None, state, 0, 1).position == 9
