"""Where a bridge goes on in the stream, and what of it is gone: real relays, a real NATS server."""

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nats")

from alphapulse_relay.bridge import bridge
from alphapulse_relay.bridge.account import Account, Loss
from alphapulse_relay.bridge.bridge import Bridge
from alphapulse_relay.bridge.progress import Progress
from alphapulse_relay.bridge.state import StateFile
from tests.bridge.bridges import settings
from tests.bridge.joined import Pair, a_bridge, arrived, head, send, until
from tests.bridge.replaced import Replaced
from tests.bridge.servers import NATS, connected
from tests.support import messages

pytestmark = pytest.mark.usefixtures("quickly")


def test_a_stream_that_is_deleted_and_made_anew(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    async def go() -> None:
        async with (
            connected(settings(tmp_path, nats=nats_url)) as nats_server,
            Pair(tmp_path, relays, nats_url, **names) as pair,
        ):
            jetstream, sent = nats_server.client.jetstream(), list[bytes]()
            await pair.ready()
            for number in range(3):
                more = messages(20 + number, 100)
                send(relays[0], *more)
                sent += more
                await pair.arrived(sent, sent)
                await jetstream.delete_stream(names["stream"])

    asyncio.run(go())


def test_a_stream_that_is_made_anew_while_nobody_looks(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    async def go() -> None:
        async with Pair(tmp_path, relays, nats_url, **names) as pair:
            await pair.ready()
        async with connected(settings(tmp_path, nats=nats_url)) as nats_server:
            await nats_server.client.jetstream().delete_stream(names["stream"])
        sent, since = messages(20, 10), head(relays[1])
        async with a_bridge(tmp_path, relays[0], nats_url, "a", **names) as a:
            send(relays[0], *sent)
            await until(lambda: a.account.outward.messages == 10)
            async with a_bridge(tmp_path, relays[1], nats_url, "b", **names):
                await arrived(relays[1], since, sent)

    asyncio.run(go())


def test_what_by_types_went_while_there_was_no_bridge_is_told_once(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    given = {**names, "take_types": "21"}
    one, two, three = messages(20, 10), messages(21, 10), messages(22, 10)

    async def go() -> None:
        since = head(relays[1])
        async with (
            connected(settings(tmp_path, nats=nats_url)) as nats_server,
            a_bridge(tmp_path, relays[0], nats_url, "a", **names, split_by_type="true") as a,
        ):
            async with a_bridge(tmp_path, relays[1], nats_url, "b", **given) as b:
                await until(lambda: a.trouble is None and b.trouble is None)
                send(relays[0], *one)
                await arrived(relays[1], since, one)
                assert not b.account.lost[Loss.STREAM_GAP]
            send(relays[0], *two)
            await until(lambda: a.account.outward.messages == 20)
            await nats_server.client.jetstream().purge_stream(names["stream"])
            send(relays[0], *three)
            for gaps in (1, 0):
                async with a_bridge(tmp_path, relays[1], nats_url, "b", **given) as b:
                    await arrived(relays[1], since, one + three)
                    await until(lambda b=b: b.file.state.done == b.file.state.sending)
                    assert b.account.lost[Loss.STREAM_GAP] == gaps

    asyncio.run(go())


def test_what_by_types_went_but_had_come_is_not_told(
    tmp_path: Path,
    relays: tuple[Path, Path],
    nats_url: str,
    names: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bridge, "LOOK_SECONDS", 0.05)
    given = {**names, "take_types": "99"}

    async def go() -> None:
        async with (
            connected(settings(tmp_path, nats=nats_url)) as nats_server,
            a_bridge(tmp_path, relays[0], nats_url, "a", **names, split_by_type="true") as a,
        ):
            async with a_bridge(tmp_path, relays[1], nats_url, "b", **given) as b:
                await until(lambda: a.trouble is None and b.trouble is None)
                send(relays[0], *messages(20, 10))
                await until(lambda: a.account.outward.messages == 10)
                last = (await a.stream.check()).state.last_seq
                await until(lambda: b.file.state.caught_up == last)
                await nats_server.client.jetstream().purge_stream(names["stream"])
                await looked(b, monkeypatch)
                assert not b.account.lost[Loss.STREAM_GAP]
            async with a_bridge(tmp_path, relays[1], nats_url, "b", **given) as b:
                await until(lambda: b.trouble is None)
                assert b.file.state.caught_up == last
                assert not b.account.lost[Loss.STREAM_GAP]

    asyncio.run(go())


@pytest.mark.parametrize("had_come", [True, False], ids=["had come", "never came"])
def test_a_stream_that_has_lost_its_end(
    tmp_path: Path, relays: tuple[Path, Path], names: dict[str, str], had_come: bool
) -> None:
    """What comes to have the lost sequences is new; what never came is told."""
    (tmp_path / "n").mkdir()
    store, backup = tmp_path / "n" / "jetstream", tmp_path / "backup"
    one, two, three = messages(20, 3), messages(21, 9), messages(22, 12)
    since = head(relays[1])
    with NATS(tmp_path / "n") as nats_server:

        async def send_singly(sent: list[bytes]) -> None:
            async with a_bridge(tmp_path, relays[0], nats_server.url, "a", **names) as a:
                await until(lambda: a.trouble is None)
                for number, each in enumerate(sent, 1):
                    send(relays[0], each)
                    await until(lambda number=number: a.account.outward.messages == number)

        async def take(expected: list[bytes], gaps: int = 0) -> None:
            async with a_bridge(tmp_path, relays[1], nats_server.url, "b", **names) as b:
                await arrived(relays[1], since, expected)
                await until(lambda: b.file.state.done == b.file.state.sending)
                assert b.account.lost[Loss.STREAM_GAP] == gaps

        async def go() -> None:
            async with a_bridge(tmp_path, relays[1], nats_server.url, "b", **names) as b:
                await until(lambda: b.trouble is None)
            await send_singly(one)
            await take(one)
            nats_server.stop()
            shutil.copytree(store, backup)
            nats_server.start()
            await send_singly(two)
            if had_come:
                await take(one + two)
            nats_server.stop()
            shutil.rmtree(store)
            backup.rename(store)
            nats_server.start()
            await send_singly(three)
            if had_come:
                await take(one + two + three)
            else:
                await take(one + three, gaps=1)

        asyncio.run(go())


def test_what_by_types_goes_while_it_waits_is_told_once(
    tmp_path: Path,
    relays: tuple[Path, Path],
    nats_url: str,
    names: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The relay is down, and retention does not wait: what was delivered arrives all the same."""
    monkeypatch.setattr(bridge, "LOOK_SECONDS", 0.05)
    given = {**names, "take_types": "21"}
    one, two, three = messages(20, 10), messages(21, 50), messages(22, 10)

    async def go() -> None:
        async with (
            connected(settings(tmp_path, nats=nats_url)) as nats_server,
            a_bridge(tmp_path, relays[0], nats_url, "a", **names, split_by_type="true") as a,
            a_bridge(tmp_path, relay.socket, nats_url, "b", **given) as b,
        ):
            await until(lambda: a.trouble is None and b.trouble is None)
            since = head(relay.socket)
            send(relays[0], *one)
            await arrived(relay.socket, since, one)
            relay.stop()
            for number, each in enumerate(two, len(one) + 1):
                send(relays[0], each)
                await until(lambda number=number: a.account.outward.messages == number)
            await until(lambda: b.consumer.waiting)
            await looked(b, monkeypatch)
            assert not b.account.lost[Loss.STREAM_GAP]
            await nats_server.client.jetstream().purge_stream(names["stream"])
            await until(lambda: b.account.lost[Loss.STREAM_GAP])
            delivered = 1 + b.consumer.waiting
            relay.start()
            send(relays[0], *three)
            await arrived(relay.socket, since, one + two[:delivered] + three)
            await looked(b, monkeypatch)
            assert b.account.lost[Loss.STREAM_GAP] == 1

    with Replaced(tmp_path / "r") as relay:
        asyncio.run(go())


def test_nothing_is_told_where_a_bridge_by_types_comes_and_goes(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    given = {**names, "take_types": "21"}
    sent, since = messages(20, 100), head(relays[1])

    async def go() -> None:
        async with a_bridge(tmp_path, relays[0], nats_url, "a", **names, split_by_type="true") as a:
            async with a_bridge(tmp_path, relays[1], nats_url, "b", **given) as b:
                await until(lambda: a.trouble is None and b.trouble is None)
            for begin in range(0, 100, 20):
                for end in range(begin + 5, begin + 21, 5):
                    send(relays[0], *sent[end - 5 : end])
                    await until(lambda end=end: a.account.outward.messages == end)
                async with a_bridge(tmp_path, relays[1], nats_url, "b", **given) as b:
                    await arrived(relays[1], since, sent[: begin + 20])
                    assert not b.account.lost[Loss.STREAM_GAP]

    asyncio.run(go())


async def looked(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until a bridge has looked what has gone, twice from now on."""
    look, looks = bridge.progress.look, list[None]()

    async def look_and_tell() -> None:
        await look()
        looks.append(None)

    monkeypatch.setattr(bridge.progress, "look", look_and_tell)
    await until(lambda: len(looks) == 2)
    monkeypatch.setattr(bridge.progress, "look", look)


@dataclass
class MemoryStream:
    """A stream and a consumer of it, as a test says they are."""

    first: int = 1
    last: int = 0
    created: str = "today"
    has_all: bool = True
    delivered: int = 0
    asked: list[str] = field(default_factory=list)

    async def check(self) -> Any:
        return await self.find()

    async def find(self) -> Any:
        self.asked.append("stream")
        state = SimpleNamespace(first_seq=self.first, last_seq=self.last)
        return SimpleNamespace(created=self.created, state=state)

    async def same_until(self, _info: object, sequence: int, _stored: float) -> int:
        return sequence

    async def acknowledged(self) -> int:
        return 0

    async def has_delivered_all(self) -> bool:
        self.asked.append("consumer")
        return self.has_all


class TestLook:
    @pytest.fixture
    def stream(self) -> MemoryStream:
        return MemoryStream()

    @pytest.fixture
    def progress(self, stream: MemoryStream, tmp_path: Path) -> Progress:
        """One that has begun; 50 messages of the stream have come."""
        ends: Any = stream
        progress = Progress(ends, ends, StateFile(tmp_path / "s"), Account(), by_types=True)
        asyncio.run(progress.begin())
        progress._state.done = stream.delivered = stream.last = 50
        return progress

    def look(self, progress: Progress) -> tuple[int, int]:
        """Return what was told to be lost by then, and up to where all has come."""
        asyncio.run(progress.look())
        return progress._account.lost[Loss.STREAM_GAP], progress._state.caught_up

    def test_what_had_come_before_the_last_look_is_known(
        self, progress: Progress, stream: MemoryStream
    ) -> None:
        stream.last = 80
        assert self.look(progress) == (0, 0)
        stream.last = 90
        assert self.look(progress) == (0, 80)
        asyncio.run(progress.begin())  # where nothing is known of what is there
        stream.last = 99
        assert self.look(progress) == (0, 80)

    def test_what_waits_has_not_come(self, progress: Progress, stream: MemoryStream) -> None:
        stream.has_all, stream.last = False, 80
        assert self.look(progress) == self.look(progress) == (0, 0)
        stream.has_all, stream.delivered = True, 60  # which is not at the relay yet
        assert self.look(progress) == (0, 0)

    def test_what_has_gone_is_told_once(self, progress: Progress, stream: MemoryStream) -> None:
        stream.has_all, stream.first, stream.last = False, 61, 80
        assert self.look(progress) == self.look(progress) == (1, 60)
        stream.first = 71
        assert self.look(progress) == (2, 70)

    def test_what_has_gone_but_was_delivered_is_none(
        self, progress: Progress, stream: MemoryStream
    ) -> None:
        stream.has_all, stream.delivered, stream.first = False, 60, 61
        assert self.look(progress) == (0, 0)

    def test_the_consumer_is_asked_first(self, progress: Progress, stream: MemoryStream) -> None:
        """To it all has come that is gone: the stream must be asked whether any is, after it."""
        stream.asked.clear()
        self.look(progress)
        assert stream.asked == ["consumer", "stream"]

    def test_the_beginning_of_a_run_has_gone(
        self, progress: Progress, stream: MemoryStream
    ) -> None:
        """At the next start it is needed: the rest is of no use without it."""
        progress._state.parts = {"other": 40, "third": 46}
        stream.first = 46
        assert asyncio.run(progress.begin()) == 46
        assert progress._account.lost[Loss.STREAM_GAP] == 1
        assert (progress._state.done, progress._state.parts) == (50, {"third": 46})

    def test_what_has_gone_by_the_next_start(
        self, progress: Progress, stream: MemoryStream
    ) -> None:
        progress._state.stored = 9.0
        stream.first, stream.last = 61, 80
        assert asyncio.run(progress.begin()) == 61
        assert asyncio.run(progress.begin()) == 61
        assert progress._account.lost[Loss.STREAM_GAP] == 1
        assert (progress._state.done, progress._state.stored) == (60, 0.0)

    def test_a_stream_that_has_lost_its_end(self, progress: Progress, stream: MemoryStream) -> None:
        progress._state.caught_up = 99  # of what is no longer there
        stream.first, stream.last = 61, 80
        asyncio.run(progress.begin())
        assert progress._account.lost[Loss.STREAM_GAP] == 0
        stream.last = 200
        stream.first = 90
        assert self.look(progress) == (1, 89)

    def test_another_stream(self, progress: Progress, stream: MemoryStream) -> None:
        stream.created, stream.first, stream.last = "tomorrow", 90, 99
        assert self.look(progress) == self.look(progress) == (0, 0)

    def test_all_types(self, stream: MemoryStream, tmp_path: Path) -> None:
        """Then runs tell by their places where one is missing."""
        ends: Any = stream
        progress = Progress(ends, ends, StateFile(tmp_path / "s"), Account(), by_types=False)
        assert self.look(progress) == (0, 0)
        assert not stream.asked
