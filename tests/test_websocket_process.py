"""WebSockets of a real relay, by a client that is not ours."""

import base64
import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from alphapulse_relay.protocol_v2.control import (
    Gap,
    GapReason,
    SequenceSync,
    Subscribe,
    Wish,
    build_control,
    parse_control,
)
from alphapulse_relay.protocol_v2.document import describe
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Domain
from alphapulse_relay.protocol_v2.signals import SignalTable
from tests.support import PATIENCE, Client, Relay, message, messages, random_cuts

TOKEN = "a-token_of.sixteen~characters"
SUBPROTOCOL = Subprotocol("signal-relay")


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with Relay() as relay:
        yield relay


@contextmanager
def browser(relay: Relay, query: str = "", **how: Any) -> Iterator[ClientConnection]:
    """Open a WebSocket that the relay has as a peer, and take its first word."""
    with opened(relay, query, **how) as connection:
        first = connection.recv(PATIENCE)
        if isinstance(first, bytes):
            assert isinstance(parse_control(first), SequenceSync)
        else:
            assert [each["control"] for each in json.loads(first)] == ["sequence_sync"]
        yield connection


def opened(relay: Relay, query: str = "", **how: Any) -> ClientConnection:
    settings = {"compression": None, "max_size": None, "open_timeout": PATIENCE, **how}
    return connect(f"ws://127.0.0.1:{relay.port}/signals?{query}", **settings)


def received(connection: ClientConnection, number: int) -> list[bytes]:
    """Return the next so many signals; each frame must have whole messages only."""
    found: list[bytes] = []
    while len(found) < number:
        frame = connection.recv(PATIENCE)
        assert isinstance(frame, bytes)
        found += [each for each in split(frame) if each[4] != Domain.SYSTEM]
    assert len(found) == number
    return found


def mixed(number: int, seed: int) -> list[bytes]:
    """Return messages of several publishers and of sizes up to the largest that are plain."""
    chance = random.Random(seed)
    sizes = [chance.choice([44, 216, 216, 216, 5_000, 60_000]) for _ in range(number)]
    return [message(20 + place % 3, 1 + place // 3, size, seed) for place, size in enumerate(sizes)]


class TestBytes:
    def test_are_exact(self, relay: Relay) -> None:
        sent = mixed(600, 1)
        publisher = relay.connect(joined=False)
        with browser(relay, "behind=wait") as one, browser(relay, "behind=wait") as other:
            for piece in random_cuts(b"".join(sent), random.Random(2)):
                publisher.send(piece)
            assert received(one, len(sent)) == sent
            assert received(other, len(sent)) == sent
        publisher.close()

    def test_compressed_ones_are_too(self, relay: Relay) -> None:
        sent = messages(34, 100, 2000)
        publisher = relay.connect(joined=False)
        with browser(relay, "behind=wait", compression="deflate") as one:
            assert one.protocol.extensions
            for piece in random_cuts(b"".join(sent), random.Random(2)):
                publisher.send(piece)
            assert received(one, len(sent)) == sent
        publisher.close()

    def test_as_text(self, relay: Relay) -> None:
        sent = mixed(200, 3)
        table = SignalTable.builtin()
        publisher = relay.connect(joined=False)
        with browser(relay, "format=json&behind=wait") as one:
            publisher.send(b"".join(sent))
            documents: list[Any] = []
            while len(documents) < len(sent):
                documents += json.loads(one.recv(PATIENCE))
            assert documents == [json.loads(json.dumps(describe(each, table))) for each in sent]
        publisher.close()

    def test_a_filter(self, relay: Relay) -> None:
        sent = mixed(600, 4)
        publisher = relay.connect(joined=False)
        with browser(relay, "sources=21&types=21&behind=wait") as one:
            publisher.send(b"".join(sent))
            assert received(one, 200) == sent[1::3]
        publisher.close()

    def test_another_filter_by_control(self, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        with browser(relay) as one:
            asked = Subscribe(Wish.POSITIONS, sources=frozenset({22}))
            one.send(build_control(asked, timestamp=1))
            sync = parse_control(_bytes(one.recv(PATIENCE)))
            assert isinstance(sync, SequenceSync)
            sent = mixed(30, 5)
            publisher.send(b"".join(sent))
            assert received(one, 10) == sent[2::3]
        publisher.close()

    def test_the_past_then_live(self, relay: Relay) -> None:
        publisher, witness = relay.connect(joined=False), relay.connect(joined=False)
        sent = mixed(100, 6)
        publisher.send(b"".join(sent[:60]))
        witness.receive(len(b"".join(sent[:60])))
        with opened(relay, "last=50&behind=wait") as one:
            publisher.send(b"".join(sent[60:]))
            assert received(one, 90) == sent[10:]
        publisher.close()
        witness.close()

    def test_on_from_a_position(self, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        sent = messages(35, 60, 300)
        with opened(relay, "wishes=positions&behind=wait") as one:
            first = sync_of(one)
            publisher.send(b"".join(sent[:30]))
            position = first.position
            while position < first.position + 30 * 300:
                words = [each for each in split(_bytes(one.recv(PATIENCE))) if each[4] == 4]
                for word in map(parse_control, words):
                    assert isinstance(word, SequenceSync)
                    position = word.position
        publisher.send(b"".join(sent[30:]))
        with opened(relay, f"position={first.epoch}:{position}&behind=wait") as one:
            assert received(one, 30) == sent[30:]
        publisher.close()

    def test_since_a_time(self, relay: Relay) -> None:
        publisher, witness = relay.connect(joined=False), relay.connect(joined=False)
        sent = messages(36, 20)
        publisher.send(sent[0])
        witness.receive(216)
        moment = time.time()
        publisher.send(b"".join(sent[1:]))
        witness.receive(19 * 216)
        with opened(relay, f"since={moment}&wishes=stop-at-head") as one:
            assert received(one, 19) == sent[1:]
            assert [each[4] for frame in one for each in split(_bytes(frame))] == [Domain.SYSTEM]
            assert (one.close_code, one.close_reason) == (1000, "finished")
        publisher.close()
        witness.close()


def _bytes(frame: str | bytes) -> bytes:
    assert isinstance(frame, bytes)
    return frame


def sync_of(connection: ClientConnection) -> SequenceSync:
    word = parse_control(_bytes(connection.recv(PATIENCE)))
    assert isinstance(word, SequenceSync)
    return word


class TestPublishing:
    @pytest.fixture
    def options(self, tmp_path: Path) -> list[str]:
        file = tmp_path / "token"
        file.write_text(TOKEN + "\n")
        file.chmod(0o600)
        return ["--web-token-file", str(file), "--web-publish"]

    def test_takes_the_option_and_the_token(self, options: list[str]) -> None:
        sent = mixed(100, 7)
        with Relay(*options) as relay:
            consumer = relay.connect()
            offers = [SUBPROTOCOL, Subprotocol(f"bearer.{TOKEN}")]
            with browser(relay, subprotocols=offers) as one, browser(relay) as other:
                assert one.subprotocol == SUBPROTOCOL
                for each in sent:
                    one.send(each)
                assert consumer.receive(len(b"".join(sent))) == b"".join(sent)
                assert received(other, len(sent)) == sent
                other.send(sent[0])
                relay.wait_for_log("reason=read_only")
            header = {"Authorization": f"Bearer {TOKEN}"}
            with browser(relay, additional_headers=header) as one:
                one.send(sent[0])
                assert consumer.receive(len(sent[0])) == sent[0]

    def test_a_wrong_token_is_refused(self, options: list[str]) -> None:
        with Relay(*options) as relay:
            with pytest.raises(InvalidStatus) as caught:
                opened(relay, additional_headers={"Authorization": "Bearer guessed"})
            assert caught.value.response.status_code == 401
            assert relay.metrics()["signal_relay_connections_refused_total", "token"] == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "how", "status", "reason"),
        [
            ("types=x", {}, 400, "request"),
            ("", {"origin": "http://elsewhere.example"}, 403, "origin"),
            ("", {"additional_headers": {"Authorization": "Bearer x"}}, 403, "token"),
        ],
    )
    def test_is_named(
        self, relay: Relay, query: str, how: dict[str, Any], status: int, reason: str
    ) -> None:
        name = ("signal_relay_connections_refused_total", reason)
        before = relay.status()["counters"]["connections"]["refused"][name[1]]
        with pytest.raises(InvalidStatus) as caught:
            opened(relay, query, **how)
        assert caught.value.response.status_code == status
        assert caught.value.response.body.count(b"\n") == 1
        assert relay.status()["counters"]["connections"]["refused"][reason] == before + 1

    def test_a_page_of_the_relay_is_welcome(self, relay: Relay) -> None:
        with browser(relay, origin=f"http://127.0.0.1:{relay.port}"):
            pass

    def test_a_host_that_is_another_site(self, relay: Relay) -> None:
        with pytest.raises(InvalidStatus) as caught:
            connect(
                f"ws://evil.example:{relay.port}/signals",
                sock=socket.create_connection(("127.0.0.1", relay.port)),
            )
        assert caught.value.response.status_code == 403

    def test_who_asks_for_no_websocket(self, relay: Relay) -> None:
        status, body = relay.get("/signals")
        assert (status, body) == (400, "only a WebSocket is to be had\n")


def refused(status: dict[str, Any]) -> dict[str, int]:
    """Return how many connections were refused, by reason."""
    found: dict[str, int] = status["counters"]["connections"]["refused"]
    return found


def websocket_peer(relay: Relay) -> dict[str, Any]:
    """Return what the status tells of the only WebSocket."""
    peers = relay.status()["peers"]
    (found,) = (each for each in peers if each["transport"] == "websocket")
    assert isinstance(found, dict)
    return found


class TestOthersFeelNothing:
    """While one misbehaves, two peers on the socket exchange messages, and none is late."""

    def exchange(self, relay: Relay, one: Client, other: Client, number: int = 200) -> None:
        for sequence in range(number):
            sent = message(30, sequence + 1)
            one.send(sent)
            assert other.receive(len(sent)) == sent

    def test_a_thousand_that_say_half_a_request(self) -> None:
        with Relay() as relay, ExitStack() as halves:
            one, other = relay.connect(), relay.connect()
            half_open = []
            for _ in range(1000):
                half = halves.enter_context(socket.create_connection(("127.0.0.1", relay.port)))
                half.sendall(b"GET /signals HTTP/1.1\r\nHost: localhost\r\nUpgr")
                half.settimeout(PATIENCE)
                half_open.append(half)
            self.exchange(relay, one, other)
            assert relay.get("/healthz") == (200, "alive\n")
            for half in half_open:
                with suppress(ConnectionResetError):
                    assert half.recv(1000) == b""
            counted = refused(relay.status())
            assert counted["timeout"] + counted["too_many_web_connections"] == 1000

    def test_one_that_stops_reading(self) -> None:
        with Relay("--journal-size", "256M") as relay:
            one, other = relay.connect(), relay.connect()
            stalled = socket.socket()
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.connect(("127.0.0.1", relay.port))
            upgrade(stalled, relay.port)
            memory = relay.resident_bytes()
            data = b"".join(messages(31, 1000, 10_000))
            for _ in range(3):
                one.send(data)
                assert other.receive(len(data)) == data
            self.exchange(relay, one, other)
            (peer,) = (each for each in relay.status()["peers"] if each["transport"] == "websocket")
            assert peer["state"] == "behind"
            assert relay.resident_bytes() - memory < 8 << 20
            assert relay.status()["held"] == 0
            stalled.close()

    def test_one_that_is_moved_on_is_told(self, relay: Relay) -> None:
        publisher, other = relay.connect(joined=False), relay.connect(joined=False)
        with browser(relay, max_queue=1) as slow:
            data = b"".join(messages(32, 1000, 10_000))
            for _ in range(4):
                publisher.send(data)
                assert other.receive(len(data)) == data
            words: list[bytes] = []
            while websocket_peer(relay)["bytes_behind"]:
                with suppress(TimeoutError):
                    words += [each for each in split(_bytes(slow.recv(0.1))) if each[4] == 4]
            publisher.send(last := message(33, 1))
            found = b""
            while found != last:
                *_, found = split(_bytes(slow.recv(PATIENCE)))
                words += [found] if found[4] == Domain.SYSTEM else []
            gaps = [word for word in map(parse_control, words) if isinstance(word, Gap)]
            assert gaps
            assert {gap.reason for gap in gaps} == {GapReason.SKIPPED}
        publisher.close()
        other.close()

    def test_one_that_sends_too_much(self, relay: Relay) -> None:
        with browser(relay) as one:
            with suppress(ConnectionClosed):
                one.send(bytes(1 << 20))
                assert list(one) == []
            assert one.close_code == 1009
        relay.wait_for_log("reason=oversized")


def upgrade(connection: socket.socket, port: int) -> None:
    """Have a plain socket become a WebSocket, and take no more than the answer."""
    key = base64.b64encode(bytes(16)).decode()
    lines = [
        "GET /signals?behind=wait HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    assert connection.recv(12) == b"HTTP/1.1 101"


def test_a_relay_that_leaves_says_so() -> None:
    with Relay() as relay, browser(relay) as one:
        assert relay.stop() == 0
        with pytest.raises(ConnectionClosed) as caught:
            one.recv(PATIENCE)
        assert caught.value.rcvd == Close(1001, "shutdown")


def test_it_is_shown_as_a_peer(relay: Relay) -> None:
    with browser(relay, "types=21&name=wall", user_agent_header="Mozilla/5.0 Chrome/156.0"):
        (peer,) = (each for each in relay.status()["peers"] if each["client_name"] == "wall")
        assert (peer["transport"], peer["name"], peer["state"]) == (
            "websocket",
            "Chrome/156",
            "live",
        )
        assert peer["filter"] == {"types": [21], "sources": []}
        assert peer["replaying"] is False
