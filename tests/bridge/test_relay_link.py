"""The way to a real relay: what comes over it, what is published, and how it comes again."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import fail
from twisted.internet.error import ConnectError
from twisted.logger import globalLogPublisher

pytest.importorskip("nats")

from alphapulse_relay.bridge.relay_link import (
    WISHES,
    LinkError,
    RefusedError,
    RelayLink,
    ends_uniquely,
)
from alphapulse_relay.client import silence
from alphapulse_relay.client.bookmark import Bookmark, fingerprint
from alphapulse_relay.client.core import Missed, Run
from alphapulse_relay.client.errors import BookmarkError
from alphapulse_relay.protocol_v2.control import (
    ErrorCode,
    ErrorMessage,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    build_control,
)
from alphapulse_relay.protocol_v2.header import Header
from tests.bridge.joined import LoopEndpoint, head, journal, running, send, until
from tests.hub.fakes import Events
from tests.support import Relay, message, messages

NAMED = Subscribe(WISHES, name="bridge-test")


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.data = b""
        self.place: Bookmark | None = None
        self.refused: list[int] = []
        self.on_run: Callable[[], None] = lambda: None

    def run_received(self, run: Run) -> None:
        self.data += run.data
        self.place = run.bookmark
        self.on_run()

    def position_received(self, bookmark: Bookmark) -> None:
        self.place = bookmark

    def gap_received(self, missed: Missed) -> None:
        raise AssertionError(missed)

    def bookmark_refused(self, error: BookmarkError) -> Subscribe:
        self.refused.append(error.code)
        return replace(NAMED, start=Start.POSITION)


@asynccontextmanager
async def a_link(path: Path) -> AsyncIterator[tuple[RelayLink, Listener]]:
    """Run a link that is connected."""
    listener = Listener()
    link = RelayLink(LoopEndpoint(path), NAMED, listener)
    async with running(link.run()):
        async with asyncio.timeout(30):
            await link.connected()
        yield link, listener


@pytest.fixture
def relay(relays: tuple[Path, Path]) -> Path:
    return relays[0]


def here(relay: Path) -> Bookmark:
    return head(relay)._replace(asked=fingerprint(NAMED))


def publish(link: RelayLink, *data: bytes) -> Any:
    return link.publish(b"".join(data), Header.unpack(data[-1]))


class TestPublish:
    def test_it_is_in_the_journal_when_it_returns(self, relay: Path) -> None:
        async def go() -> None:
            async with a_link(relay) as (link, _):
                since, first, second = head(relay), messages(20, 30), messages(21, 5, 5000)
                assert (link.epoch, link.position) == since[:2]
                place = await publish(link, *first)
                assert place > since.position
                assert journal(relay, since) == first
                assert await publish(link, *second) > place
                assert journal(relay, since) == first + second
                # The same again is acknowledged for itself.
                assert await publish(link, *second) == link.position
                assert journal(relay, since) == first + second + second

        asyncio.run(go())

    def test_one_that_is_not_connected(self, tmp_path: Path) -> None:
        async def go() -> None:
            link = RelayLink(LoopEndpoint(tmp_path / "none"), NAMED, Listener())
            with pytest.raises(LinkError, match="no connection"):
                await publish(link, message(20, 1))
            async with running(link.run()):
                await until(lambda: "No such file" in str(link.trouble))
                with pytest.raises(LinkError, match="no connection"):
                    await publish(link, message(20, 1))

        asyncio.run(go())

    def test_what_the_relay_does_not_take(self, relay: Path) -> None:
        async def go() -> None:
            async with a_link(relay) as (link, _):
                broken = b"?" + message(20, 1)[1:]
                with pytest.raises(RefusedError, match="the relay says: magic at byte"):
                    await link.publish(broken, Header.unpack(message(20, 1)))
                await link.connected()
                await publish(link, message(20, 2))
                assert link.connections == 2

        asyncio.run(go())

    def test_the_relay_is_killed(self, tmp_path: Path) -> None:
        with Relay() as relay:

            async def go() -> None:
                async with a_link(relay.socket) as (link, _):
                    relay.process.send_signal(signal.SIGSTOP)
                    sent = asyncio.ensure_future(publish(link, *messages(20, 3)))
                    await asyncio.sleep(0.05)
                    assert not sent.done()
                    relay.process.kill()
                    with pytest.raises(LinkError):
                        await sent
                    await until(lambda: link.trouble is not None)
                    epoch = link.epoch
                    relay.process.wait()
                    assert relay.process.stdout
                    relay.process.stdout.close()
                    relay.start()
                    await link.connected()
                    assert (link.trouble, link.epoch) == (None, epoch)
                    await publish(link, message(20, 9))

            asyncio.run(go())

    def test_one_that_is_given_up(self, relay: Path) -> None:
        async def go() -> None:
            async with a_link(relay) as (link, _):
                sent = asyncio.ensure_future(publish(link, *messages(20, 3)))
                await asyncio.sleep(0)
                sent.cancel()
                await asyncio.wait([sent])
                assert sent.cancelled()
                # The relay may go on to take it: what it has is known on the next connection.
                with pytest.raises(LinkError):
                    await publish(link, *messages(20, 4))
                await link.connected()
                since = link.position
                assert await publish(link, *messages(20, 4)) > since

        asyncio.run(go())


class TestListen:
    def test_all_that_others_send_from_a_place_on(self, relay: Path) -> None:
        async def go() -> None:
            async with a_link(relay) as (link, listener):
                since, old, new = here(relay), messages(22, 50), messages(23, 50)
                send(relay, *old)
                assert not link.listens
                link.listen(since)
                assert link.listens
                await until(lambda: len(listener.data) == 50 * 216)
                await publish(link, message(24, 1))
                send(relay, *new)
                await until(lambda: len(listener.data) >= 100 * 216)
                assert listener.data == b"".join(old + new)
                assert listener.place is not None
                # Where it stopped it goes on, also within a run.
                place = listener.place
                for bookmark, rest in ((place, []), (since._replace(taken=30), (old + new)[30:])):
                    listener.data = b""
                    link.listen(bookmark)
                    send(relay, message(25, 1))
                    size = (len(rest) + 1) * 216
                    await until(lambda size=size: len(listener.data) >= size)
                    assert listener.data[: len(rest) * 216] == b"".join(rest)

        asyncio.run(go())

    def test_it_stops(self, relay: Path) -> None:
        async def go() -> None:
            async with a_link(relay) as (link, listener):
                listener.on_run = link.stop_listening
                link.listen(here(relay))
                send(relay, *messages(22, 1000))
                await until(lambda: bool(listener.data))
                got = len(listener.data)
                await until(lambda: link.connections == 3 and link.trouble is None)
                await publish(link, message(24, 1))
                assert not link.listens
                assert len(listener.data) == got

        asyncio.run(go())

    def test_what_waits_comes_when_it_is_read_again(self, relay: Path) -> None:
        async def go() -> None:
            async with a_link(relay) as (link, listener):
                link.listen(here(relay))
                await until(lambda: link.connections == 2)
                link.pause()
                sent = messages(22, 100)
                send(relay, *sent)
                await asyncio.sleep(0.1)
                assert not listener.data
                link.resume()
                await until(lambda: len(listener.data) >= 100 * 216)
                assert listener.data == b"".join(sent)
                link.pause()
                link.stop_listening()
                await until(lambda: link.connections == 3)
                await publish(link, message(24, 1))

        asyncio.run(go())

    @pytest.mark.parametrize(
        ("epoch", "position", "code"),
        [(1, 0, ErrorCode.WRONG_EPOCH), (0, 1 << 50, ErrorCode.NOT_KEPT)],
    )
    def test_a_place_that_the_journal_has_not(
        self, relay: Path, epoch: int, position: int, code: ErrorCode
    ) -> None:
        async def go() -> None:
            async with a_link(relay) as (link, listener):
                asked, everything = fingerprint(NAMED), Bookmark(link.epoch, 0, 0, 0)
                link.listen(Bookmark(link.epoch + epoch, position, 0, asked))
                await until(lambda: listener.refused == [code])
                last = message(26, 1)
                send(relay, last)
                await until(lambda: listener.data.endswith(last))
                kept = len(b"".join(journal(relay, everything)))
                assert kept // 2 < len(listener.data) <= kept  # but for what it published itself

        asyncio.run(go())


class TestConnections:
    def test_a_name_that_is_taken(self, relay: Path) -> None:
        async def go() -> None:
            other = RelayLink(LoopEndpoint(relay), NAMED, Listener())
            async with a_link(relay), running(other.run()):
                await until(lambda: "name" in str(other.trouble))
                with pytest.raises(LinkError):
                    await publish(other, message(20, 1))

        asyncio.run(go())

    def test_nothing_of_it_is_left_when_it_ends(self, relay: Path) -> None:
        async def go() -> None:
            for _ in range(20):
                async with a_link(relay) as (link, _):  # or the name would be taken
                    assert link.connections == 1

        asyncio.run(go())

    def test_it_ends_while_it_connects(self, relay: Path) -> None:
        async def go() -> None:
            for turns in range(8):
                async with running(RelayLink(LoopEndpoint(relay), NAMED, Listener()).run()):
                    for _ in range(turns):
                        await asyncio.sleep(0)

        asyncio.run(go())

    def test_a_relay_that_falls_silent(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(silence, "ASK_AFTER", 0.1)
        monkeypatch.setattr(silence, "ANSWER_WITHIN", 0.1)

        async def go() -> None:
            async with scripted(tmp_path, sync(7, 0)) as path, a_link(path) as (link, _):
                await until(lambda: "is silent" in str(link.trouble))
                await until(lambda: link.connections > 1)

        asyncio.run(go())

    def test_what_is_not_a_relay(self, tmp_path: Path) -> None:
        async def go() -> None:
            async with scripted(tmp_path, b"HTTP/1.1 400 Bad Request\r\n" * 9) as path:
                link = RelayLink(LoopEndpoint(path), NAMED, Listener())
                async with running(link.run()):
                    await until(lambda: "not from a relay" in str(link.trouble))
                    assert link.connections == 0

        asyncio.run(go())

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (ConnectError(2, "no"), "No such file or directory"),
            (ConnectError(-2, "Name or service not known"), "Name or service not known"),
            (OSError("ca=x cannot be used"), "ca=x cannot be used"),
            (OSError(-3, "Try again"), "Try again"),
        ],
    )
    def test_why_there_is_none(self, error: Exception, told: str) -> None:
        class Endpoint:
            def connect(self, _factory: Any) -> Any:
                return fail(error)

        async def go() -> None:
            endpoint: Any = Endpoint()
            link = RelayLink(endpoint, NAMED, Listener())
            async with running(link.run()):
                await until(lambda: told in str(link.trouble))

        asyncio.run(go())

    def test_why_there_is_none_is_told_once(self, tmp_path: Path) -> None:
        class Endpoint(LoopEndpoint):
            attempts = 0

            def connect(self, protocolFactory: Any) -> Any:  # noqa: N803
                self.attempts += 1
                return super().connect(protocolFactory)

        async def go() -> None:
            endpoint = Endpoint(tmp_path / "none")
            async with running(RelayLink(endpoint, NAMED, Listener()).run()):
                await until(lambda: endpoint.attempts == 3)

        events = Events()
        globalLogPublisher.addObserver(events)
        try:
            asyncio.run(go())
        finally:
            globalLogPublisher.removeObserver(events)
        assert events.lines("no relay") == [
            "no relay: No such file or directory; it is tried again until there is one"
        ]

    def test_a_place_that_nobody_asks_for_any_more(self, tmp_path: Path) -> None:
        no = build_control(ErrorMessage(ErrorCode.NOT_KEPT, "no"), timestamp=1, source=1)

        async def go() -> None:
            async with scripted(tmp_path, sync(7, 0)) as path, a_link(path) as (link, listener):
                connection = link._connection
                assert connection is not None
                connection.dataReceived(no)
                link.listen(Bookmark(7, 5, 0, fingerprint(NAMED)))
                await until(lambda: link.connections == 2)
                assert not listener.refused

        asyncio.run(go())


def sync(epoch: int, position: int) -> bytes:
    return build_control(SequenceSync(epoch, position, SyncState.LIVE), timestamp=1, source=1)


@asynccontextmanager
async def scripted(directory: Path, answer: bytes) -> AsyncIterator[Path]:
    """Run a relay that answers whatever comes first, and says nothing more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1 << 16)
            writer.write(answer)
            await reader.read()
        except ConnectionError:
            pass
        writer.close()

    path = directory / "s.sock"
    async with await asyncio.start_unix_server(serve, path):
        yield path
        await asyncio.sleep(0.01)  # for the last connection's end


def test_runs_that_end_uniquely() -> None:
    one, two, other = message(20, 1), message(20, 2), message(21, 2)
    assert ends_uniquely(one + other + two, Header.unpack(two))
    assert not ends_uniquely(two + one + two, Header.unpack(two))
