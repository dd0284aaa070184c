"""Two real relays, a real NATS server and bridges between them: everything once and in order."""

import asyncio
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard

pytest.importorskip("nats")

from nats.js.api import RawStreamMsg

from alphapulse_relay.bridge import outward
from alphapulse_relay.bridge.account import Loss
from alphapulse_relay.bridge.bridge import asked_of
from alphapulse_relay.bridge.compression import When
from alphapulse_relay.bridge.state import StateFile
from alphapulse_relay.client.blocking import Client as Publisher
from alphapulse_relay.client.errors import NoRelayError
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.bridge.bridges import settings
from tests.bridge.joined import END, Pair, a_bridge, arrived, described, head, journal, send, until
from tests.bridge.replaced import Replaced
from tests.bridge.running import BridgeProcess, joining
from tests.bridge.servers import NATS, connected
from tests.support import Relay, message, messages

pytestmark = pytest.mark.usefixtures("quickly")


def test_what_is_sent_to_one_goes_to_all_but_never_back(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    async def go() -> None:
        one, two = messages(20, 300), messages(21, 300, 700)
        async with Pair(tmp_path, relays, nats_url, **names) as pair:
            await pair.ready()
            send(relays[0], *one)
            await pair.arrived(one, one)
            send(relays[1], *two)
            await pair.arrived(one + two, one + two)
            await pair.idle()
            await pair.arrived(one + two, one + two)
            assert pair.a.account.outward.messages == pair.b.account.inward.messages == 300
            assert pair.a.account.own == pair.a.account.outward.runs
        # Nor does it when they come again.
        async with Pair(tmp_path, relays, nats_url, **names) as pair:
            await pair.ready()
            send(relays[0], *two)
            await pair.arrived(two, two)
            assert not pair.b.account.inward.repeated

    asyncio.run(go())


def test_what_was_sent_while_there_was_no_bridge(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    async def go() -> None:
        send(relays[0], message(19, 1))  # before there ever was one
        async with Pair(tmp_path, relays, nats_url, **names) as pair:
            await pair.ready()
        one, two = messages(20, 50), messages(21, 50)
        since = [head(relay) for relay in relays]
        send(relays[0], *one)
        send(relays[1], *two)
        async with Pair(tmp_path, relays, nats_url, **names) as pair:
            pair.since = since
            await pair.arrived(one + two, two + one)

    asyncio.run(go())


def test_a_state_that_has_gone(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    """The stream knows what has crossed, and NATS what has come."""

    async def go() -> None:
        one, two, three = messages(20, 5), messages(21, 10), messages(22, 2)
        async with Pair(tmp_path, relays, nats_url, **names) as pair:
            await pair.ready()
            since = pair.since[1]
            send(relays[0], *one)
            await pair.arrived(one, one)
            await pair.idle()
        send(relays[0], *two)
        for name in "ab":
            (tmp_path / f"{name}.state").unlink()
        async with Pair(tmp_path, relays, nats_url, **names) as pair:
            send(relays[0], *three)
            await arrived(relays[1], since, one + two + three)

    asyncio.run(go())


def test_a_first_start_takes_nothing_old(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    async def go() -> None:
        async with a_bridge(tmp_path, relays[0], nats_url, "a", **names) as a:
            await until(lambda: a.trouble is None)
            send(relays[0], *messages(20, 5))
            await until(lambda: a.account.outward.messages == 5)
            since = head(relays[1])
            async with a_bridge(tmp_path, relays[1], nats_url, "b", **names) as b:
                await until(lambda: b.trouble is None)
                new = message(20, 6)
                send(relays[0], new)
                await arrived(relays[1], since, [new])

    asyncio.run(go())


def test_nats_is_down_at_the_start(
    tmp_path: Path, relays: tuple[Path, Path], names: dict[str, str]
) -> None:
    with NATS(tmp_path) as nats_server:
        nats_server.stop()

        async def go() -> None:
            async with Pair(tmp_path, relays, nats_server.url, **names) as pair:
                await until(lambda: "no NATS: " in str(pair.a.trouble))
                await until(lambda: bool(pair.a.file.state.first and pair.b.file.state.first))
                one = messages(20, 100)
                send(relays[0], *one)
                nats_server.start()
                # The other is new to the stream, and may come to it later.
                await until(lambda: pair.a.trouble is None)
                await pair.ready()
                last = message(20, 999)
                send(relays[0], last)
                await until(lambda: journal(relays[1], pair.since[1])[-1:] == [last])
                await until(lambda: pair.a.account.outward.messages == 101)

        asyncio.run(go())


def test_the_stream_is_full_and_has_room_again(
    tmp_path: Path,
    relays: tuple[Path, Path],
    nats_url: str,
    names: dict[str, str],
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(outward, "WAITING_MAX", 100_000)

    async def go() -> None:
        async with (
            connected(settings(tmp_path, nats=nats_url)) as nats_server,
            Pair(tmp_path, relays, nats_url, compress="never", **names) as pair,
        ):
            await pair.ready()
            jetstream = nats_server.client.jetstream()
            config = (await jetstream.stream_info(names["stream"])).config
            await jetstream.update_stream(config.evolve(discard="new", max_bytes=200_000))
            one, two = messages(20, 1000, 1000), messages(21, 20)
            send(relays[0], *one)
            await until(lambda: "maximum bytes exceeded" in str(pair.a.trouble))
            # What comes from afar is acknowledged nevertheless, once its relay can store it.
            await until(lambda: not pair.a.link.listens)
            await jetstream.update_stream(config.evolve(discard="new", max_bytes=600_000))
            send(relays[1], *two)
            await arrived(relays[0], pair.since[0], one + two)
            await until(lambda: "maximum bytes exceeded" in str(pair.a.trouble))
            await jetstream.update_stream(config.evolve(max_bytes=10_000_000))
            await until(lambda: len(journal(relays[1], pair.since[1])) >= 1020)
            found = journal(relays[1], pair.since[1])
            assert [each for each in found if each not in two] == one
            assert [each for each in found if each in two] == two
            await pair.ready()

    asyncio.run(go())


def test_a_message_that_is_larger_than_nats_takes(
    tmp_path: Path, relays: tuple[Path, Path], names: dict[str, str]
) -> None:
    async def go(url: str) -> None:
        async with Pair(tmp_path, relays, url, **names) as pair:
            await pair.ready()
            sent = [message(20, 1), message(20, 2, 60_000), *messages(21, 40, 3000)]
            send(relays[0], *sent)
            await pair.arrived(sent, sent)

    with NATS(tmp_path, "max_payload: 4096") as nats_server:
        asyncio.run(go(nats_server.url))


def test_nats_takes_less_in_the_middle(
    tmp_path: Path, relays: tuple[Path, Path], names: dict[str, str]
) -> None:
    async def go(nats_server: NATS) -> None:
        async with Pair(tmp_path, relays, nats_server.url, **names) as pair:
            await pair.ready()
            nats_server.stop()
            sent = messages(20, 40, 3000)
            send(relays[0], *sent)
            nats_server.config = "max_payload: 4096"
            nats_server.start()
            await pair.arrived(sent, sent)

    with NATS(tmp_path) as server_:
        asyncio.run(go(server_))


def test_a_stream_that_is_made_later(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    async def go() -> None:
        given = {**names, "create_stream": "false", "max_bytes": "10G"}
        async with Pair(tmp_path, relays, nats_url, **given) as pair:
            stream = names["stream"]
            wanted = f": there is no stream {stream}: make one, or give --create-stream"
            await until(lambda: str(pair.a.trouble).endswith(wanted))
            send(relays[0], *messages(20, 10))
            async with connected(settings(tmp_path, nats=nats_url)) as nats_server:
                config = pair.a.stream.wanted.config.evolve(max_bytes=1 << 20)
                await nats_server.client.jetstream().add_stream(config)
            await until(lambda: pair.a.account.outward.messages == 10)
            await pair.ready()

    asyncio.run(go())


def test_two_relays_of_one_name(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    async def go() -> None:
        (tmp_path / "other").mkdir()
        async with a_bridge(tmp_path, relays[0], nats_url, "a", **names) as first:
            await until(lambda: first.trouble is None)
            send(relays[0], *messages(20, 5))
            await until(lambda: first.account.outward.messages == 5)
            async with a_bridge(tmp_path / "other", relays[1], nats_url, "a", **names) as second:
                await until(lambda: second.stream.created != "")
                send(relays[1], *messages(21, 5))
                await until(lambda: second.account.outward.messages >= 5)
                send(relays[0], message(20, 6))
                await until(lambda: "bridge is called a, too" in str(first.account.outward.trouble))
                told, crossed = second.account.outward, first.account.outward.messages
                before = told.messages
                await asyncio.sleep(0.5)  # neither sends its journal again
                assert (told.messages, first.account.outward.messages) == (before, crossed)
                send(relays[1], message(21, 6))
                await until(lambda: told.messages == before + 1)
        # Whoever is started again alone goes on where it was, and sends nothing old.
        async with a_bridge(tmp_path, relays[0], nats_url, "a", **names) as first:
            await until(lambda: first.trouble is None)
            send(relays[0], message(20, 7))
            await until(lambda: first.account.outward.messages >= 1)
            await until(lambda: not first.outward._waiting)
            assert first.account.outward.messages <= 2  # the last one may not have crossed before
            assert not first.account.lost[Loss.RELAY_GAP]

    asyncio.run(go())


def has_no_name(trouble: str | None) -> bool:
    return "has the name 'bridge'" in str(trouble)


def test_two_bridges_of_one_relay(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    """They would send each other's messages round in a circle."""

    async def go() -> None:
        async with a_bridge(tmp_path, relays[0], nats_url, "a", **names) as first:
            await until(lambda: first.trouble is None)
            async with a_bridge(tmp_path, relays[0], nats_url, "b", **names) as second:
                # Which one may stay is whose connection is there first: a bridge has several.
                both = (first, second)
                await until(lambda: sum(has_no_name(each.trouble) for each in both) == 1)
                await until(lambda: sum(each.trouble is None for each in both) == 1)

    asyncio.run(go())


def test_a_state_that_cannot_be_kept(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    async def go() -> None:
        async with Pair(tmp_path, relays, nats_url, **names) as pair:
            await pair.ready()
            kept = (tmp_path / "b.state").rename(tmp_path / "kept")
            (tmp_path / "b.state").symlink_to("/dev/full")
            one, two = messages(20, 10), messages(21, 10)
            send(relays[0], *one)
            await until(lambda: "b.state cannot be written" in str(pair.b.trouble))
            send(relays[1], *two)
            await arrived(relays[0], pair.since[0], one + two)
            assert journal(relays[1], pair.since[1]) == two
            kept.rename(tmp_path / "b.state")
            await arrived(relays[1], pair.since[1], two + one)

    asyncio.run(go())


def test_a_relay_whose_journal_is_gone(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    with Replaced(tmp_path / "r") as relay:

        async def go() -> None:
            async with Pair(tmp_path, (relay.socket, relays[1]), nats_url, **names) as pair:
                await pair.ready()
                one, two, three = messages(20, 10), messages(21, 10), messages(22, 10)
                send(relay.socket, *one)
                await arrived(relays[1], pair.since[1], one)
                relay.stop()
                relay.lose()
                relay.start()
                send(relay.socket, *two)
                await arrived(relays[1], pair.since[1], one + two)
                send(relays[1], *three)
                since = head(relay.socket)._replace(position=0)
                await until(lambda: journal(relay.socket, since) == two + three)
                assert pair.a.account.lost[Loss.RELAY_GAP] == 1

        asyncio.run(go())


def test_a_relay_whose_journal_has_lost_its_end(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    """What has come to it before the bridge sees that is not passed over, nor sent again."""
    with Replaced(tmp_path / "r") as relay:

        async def go() -> None:
            one, two, three = messages(20, 10), messages(21, 10), messages(22, 5)
            async with Pair(tmp_path, (relay.socket, relays[1]), nats_url, **names) as pair:
                await pair.ready()
                since = pair.since[1]
                send(relay.socket, *one)
                await arrived(relays[1], since, one)
                relay.stop()
                relay.back_up()
                relay.start()
                send(relay.socket, *two)
                await arrived(relays[1], since, one + two)
            relay.stop()
            relay.restore()
            relay.start()
            send(relay.socket, *three)
            async with a_bridge(tmp_path, relay.socket, nats_url, "a", **names) as a:
                async with a_bridge(tmp_path, relays[1], nats_url, "b", **names) as b:
                    await arrived(relays[1], since, one + two + three)
                    more = messages(23, 10)
                    send(relay.socket, *more)
                    await arrived(relays[1], since, one + two + three + more)
                    assert not b.account.lost[Loss.STREAM_GAP]
                assert a.account.lost[Loss.RELAY_GAP] == 1

        asyncio.run(go())


class Storm:
    """Real processes, all of which are killed in the middle."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nats = NATS(directory)
        for name in "ab":
            (directory / name).mkdir()

    def __enter__(self) -> "Storm":
        self.nats.start()
        self.relays = [Relay(directory=self.directory / name) for name in "ab"]
        for relay in self.relays:
            relay.__enter__()
        self.bridges = [self.bridge(number) for number in range(2)]
        for bridge in self.bridges:
            bridge.start()
        self.wait_until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (*self.bridges, *self.relays):
            each.process.kill()
            each.__exit__()
        self.nats.stop()

    def bridge(self, number: int) -> BridgeProcess:
        relay, name = self.relays[number].socket, "ab"[number]
        options = joining(relay, self.nats.url, name)
        return BridgeProcess(relay.parent, *options, "--web", "none")

    def wait_until_ready(self) -> None:
        states = [self.directory / name / f"bridge-{name}.state" for name in "ab"]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if all(map(has_a_stream, states)):
                return
            time.sleep(0.05)
        raise AssertionError("the bridges never came to the stream")

    def kill_bridge(self, number: int) -> None:
        again(self.bridges[number])

    def kill_relay(self, number: int) -> None:
        again(self.relays[number])


def has_a_stream(path: Path) -> bool:
    file = StateFile(path)
    file.load()
    return file.state.created != ""


def again(program: Relay) -> None:
    """Kill a process, and start it again."""
    program.process.kill()
    program.process.wait()
    assert program.process.stdout
    program.process.stdout.close()
    program.start()


def test_everything_is_killed(tmp_path: Path) -> None:
    with Storm(tmp_path) as storm:
        since = [head(relay.socket) for relay in storm.relays]
        kills = [
            lambda: storm.kill_bridge(0),
            lambda: storm.kill_bridge(1),
            storm.nats.restart,
            lambda: storm.kill_relay(1),
            lambda: (storm.kill_bridge(0), storm.kill_bridge(1), storm.nats.restart()),
            lambda: storm.kill_relay(0),
        ]
        sent: list[list[bytes]] = [[], []]
        for turn, kill in enumerate(kills):
            for way in range(2):
                more = messages(20 + 10 * turn + way, 2000, 300)
                publish(storm.relays[way].socket, more)
                sent[way] += more
            time.sleep(0.02 * turn)
            kill()
        for way, relay in enumerate(storm.relays):
            wait_for(relay.socket, since[way], len(sent[0]) + len(sent[1]))
            found = journal(relay.socket, since[way])
            for one in sent:
                own = frozenset(one)
                came = [each for each in found if each in own]
                assert came == one, described(came, one)
            assert len(found) == len(sent[0]) + len(sent[1])


def publish(relay: Path, more: list[bytes]) -> None:
    """Publish messages, and return when the relay has acknowledged them: they outlive it then."""
    with Publisher(relay, acknowledge=True, types={1}, name="storm", timeout=30) as publisher:
        for each in more:
            publisher.publish(each)
        publisher.flush()


def wait_for(relay: Path, since: Any, number: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(NoRelayError):
            if len(journal(relay, since)) >= number:
                return
        time.sleep(0.3)
    raise AssertionError(f"fewer than {number} messages came")


class TestItEndsSoon:
    """Whatever hangs, a bridge that is told to end does so."""

    @pytest.mark.parametrize("what", ["nats", "relay", "both"])
    def test_when_something_hangs(self, tmp_path: Path, what: str) -> None:
        (tmp_path / "r").mkdir()
        with NATS(tmp_path) as nats_server, Relay(directory=tmp_path / "r") as relay:
            options = joining(relay.socket, nats_server.url)
            with BridgeProcess(tmp_path / "r", *options, "--web", "none") as bridge:
                bridge.wait_for_log("goes inward")
                if what != "nats":
                    relay.process.send_signal(signal.SIGSTOP)
                if what != "relay":
                    nats_server.freeze()
                else:
                    send_to_stream(nats_server.url)
                time.sleep(0.3)
                began = time.monotonic()
                assert bridge.stop() == 0
                assert time.monotonic() - began < END
            relay.process.send_signal(signal.SIGCONT)

    def test_when_there_is_nothing(self, tmp_path: Path) -> None:
        options = joining(tmp_path / "none.sock", "nats://127.0.0.1:1")
        with BridgeProcess(tmp_path, *options, "--web", "none") as bridge:
            bridge.wait_for_log("no relay")
            began = time.monotonic()
            assert bridge.stop() == 0
            assert time.monotonic() - began < END


def send_to_stream(url: str) -> None:
    """Have something come from afar."""

    async def go() -> None:
        async with connected(settings(Path("/nonexistent"), nats=url)) as nats_server:
            await nats_server.client.jetstream().publish("signals.other", message(20, 1))

    asyncio.run(go())


@pytest.mark.parametrize(
    ("options", "subjects"),
    [
        ({}, ["signals.>"]),
        ({"take_from": ["b", "c"]}, ["signals.b", "signals.c", "signals.b.>", "signals.c.>"]),
        ({"take_types": "3,4"}, ["signals.*", "signals.*.3", "signals.*.4"]),
        ({"take_from": ["b"], "take_types": "3"}, ["signals.b", "signals.b.3"]),
    ],
)
def test_what_is_asked_for(tmp_path: Path, options: dict[str, Any], subjects: list[str]) -> None:
    assert sorted(asked_of(settings(tmp_path, **options)).subjects) == sorted(subjects)


@pytest.mark.parametrize("when", list(When))
def test_what_is_stored_for_other_readers(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str], when: When
) -> None:
    async def go() -> None:
        sent = messages(20, 400)
        async with Pair(tmp_path, relays, nats_url, compress=str(when), **names) as pair:
            await pair.ready()
            send(relays[0], *sent)
            await pair.arrived(sent, sent)
            stored = await pair.stored()
        whole = b"".join(map(plain, stored))
        assert whole == b"".join(sent)
        size = sum(len(each.data) for each in stored)
        assert size == len(whole) if when is When.NEVER else size < len(whole) / 2

    asyncio.run(go())


def test_some_shrink_and_some_do_not(
    tmp_path: Path, relays: tuple[Path, Path], nats_url: str, names: dict[str, str]
) -> None:
    async def go() -> None:
        sent: list[bytes] = []
        async with Pair(tmp_path, relays, nats_url, compress="always", **names) as pair:
            await pair.ready()
            for number in range(1, 5):
                noise = build_tlv(21, random.Random(number).randbytes(2000))
                unlike = build_message(noise, source=21, sequence=number, timestamp=number)
                for run in (messages(20, 20 * number)[-20:], [unlike]):
                    send(relays[0], *run)
                    sent += run
                    await pair.arrived(sent, sent)
            stored = await pair.stored()
        assert [bool((each.headers or {}).get("Content-Encoding")) for each in stored] == (
            [True, False] * 4
        )
        assert b"".join(map(plain, stored)) == b"".join(sent)

    asyncio.run(go())


def plain(stored: RawStreamMsg) -> bytes:
    """Return the payload as its headers say that it is to be read."""
    coding = (stored.headers or {}).get("Content-Encoding")
    assert coding in {None, "zstd"}
    data: bytes = stored.data
    return zstandard.decompress(data) if coding else data
