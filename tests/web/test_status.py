"""The status document: its shape, and every figure of known traffic."""

import json
import os
import pwd
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alphapulse_relay import __version__
from alphapulse_relay.hub.journal import RETRY_SECONDS
from alphapulse_relay.hub.peer import Ending, Miss, Refusal
from alphapulse_relay.protocol_v2.control import Start, Subscribe
from alphapulse_relay.protocol_v2.errors import Rejection
from alphapulse_relay.protocol_v2.framing import Rules
from alphapulse_relay.web.status import SettingsRead, Status
from tests.hub.fakes import WINDOW, Hub, Ordinary, message
from tests.web.journaled import SIZE, JournaledHub, say
from tests.web.traffic import Traffic

IDENTITY = {
    "number": int,
    "transport": str,
    "pid": int | None,
    "uid": int | None,
    "gid": int | None,
    "user": str | None,
    "name": str | None,
    "address": str | None,
    "certificate": list | None,
}
PEER = IDENTITY | {
    "client_name": str | None,
    "rule": str | None,
    "limited": bool,
    "state": str,
    "replaying": bool,
    "filter": dict | None,
    "connected_seconds": float,
    "messages_in": int,
    "bytes_in": int,
    "messages_out": int,
    "bytes_out": int,
    "position": int | None,
    "bytes_behind": int,
    "queued_bytes": int | None,
    "messages_missed": int,
}
LOG = {"epoch": str, "head": int, "tail": int, "window": int, "segments": dict}
JOURNAL = {
    "directory": str,
    "size": int,
    "bytes": int,
    "failure": str | None,
    "failures": int,
    "damages": int,
    "fsync": str,
    "synced": int,
    "sync_failures": int,
}
DEPARTURE = IDENTITY | {"reason": str, "at": float, "messages_in": int, "messages_out": int}
SHAPE = {
    "version": str,
    "build": str,
    "pid": int,
    "started_at": float,
    "uptime_seconds": float,
    "ready": bool,
    "settings": dict,
    "counters": dict,
    "log": dict,
    "journal": dict | None,
    "held": int,
    "limited": int,
    "peers": list,
    "departed": list,
}
COUNTERS = {
    "messages_received": int,
    "bytes_received": int,
    "messages_delivered": int,
    "bytes_delivered": int,
    "messages_replayed": int,
    "dropped": dict,
    "last_dropped": dict,
    "missed": dict,
    "connections": dict,
    "tlv_messages": dict,
    "malformed": int,
    "held_seconds": float,
    "limited": dict,
    "sources": dict,
    "sequences": dict,
}


def describe(status: Status, *, ready: bool = True) -> dict[str, Any]:
    """Return the document as who asks for it gets it."""
    found = json.loads(json.dumps(status.describe(ready=ready)))
    assert isinstance(found, dict)
    return found


def assert_shape(value: dict[str, Any], shape: dict[str, Any]) -> None:
    assert list(value) == list(shape)
    for key, kind in shape.items():
        assert isinstance(value[key], kind), key


@pytest.fixture
def status(hub: Hub) -> Status:
    return Status(hub.factory, SettingsRead())


@pytest.fixture
def traffic(hub: Hub, clock: Any, status: Status) -> Traffic:
    return Traffic(hub, clock)


@pytest.fixture
def document(status: Status, traffic: Traffic) -> dict[str, Any]:
    return describe(status)


class TestShape:
    def test_of_the_document(self, document: dict[str, Any]) -> None:
        assert_shape(document, SHAPE)
        assert_shape(document["settings"], {"read_at": float, "restart": list})
        assert_shape(document["counters"], COUNTERS)
        assert_shape(document["log"], LOG)
        for peer in document["peers"]:
            assert_shape(peer, PEER)
        for departure in document["departed"]:
            assert_shape(departure, DEPARTURE)

    def test_of_an_empty_hub(self, status: Status) -> None:
        document = describe(status)
        assert_shape(document, SHAPE)
        assert (document["peers"], document["departed"], document["log"]["head"]) == ([], [], 0)

    def test_names_are_those_of_the_enums(self, status: Status) -> None:
        counters = describe(status)["counters"]
        assert counters["dropped"] == dict.fromkeys(map(str, Rejection), 0)
        assert counters["missed"] == dict.fromkeys(map(str, Miss), 0)
        assert counters["connections"]["refused"] == dict.fromkeys(map(str, Refusal), 0)
        assert counters["connections"]["ended"] == dict.fromkeys(map(str, Ending), 0)

    def test_is_the_same_after_a_round_trip(self, status: Status, traffic: Traffic) -> None:
        assert describe(status) == status.describe(ready=True)


class TestFigures:
    def test_of_the_process(self, status: Status, clock: Any) -> None:
        clock.advance(12.5)
        document = describe(status)
        assert document["version"] == __version__
        assert document["pid"] == os.getpid()
        assert document["uptime_seconds"] == 12.5
        assert 0 <= time.time() - document["started_at"] < 60

    @pytest.mark.parametrize("ready", [True, False])
    def test_ready(self, status: Status, ready: bool) -> None:
        assert describe(status, ready=ready)["ready"] is ready

    def test_counters(self, document: dict[str, Any], traffic: Traffic) -> None:
        counters = document["counters"]
        assert counters["messages_received"] == 5
        assert counters["bytes_received"] == traffic.bytes
        assert counters["messages_delivered"] == 6
        assert counters["bytes_delivered"] == traffic.bytes + 50
        assert {k: n for k, n in counters["dropped"].items() if n} == {
            "checksum": 2,
            "domain": 1,
            "magic": 1,
            "torn": 1,
        }
        assert set(counters["last_dropped"]) == {"checksum", "domain", "magic", "torn"}
        last = counters["last_dropped"]["checksum"]
        assert last.keys() == {"at", "peer", "detail"}
        assert "pid=" in last["peer"] or "tcp" in last["peer"]
        assert last["detail"].startswith("byte ")
        assert counters["connections"]["accepted"] == 7
        assert counters["connections"]["refused"]["too_many_peers"] == 1
        ended = {k: n for k, n in counters["connections"]["ended"].items() if n}
        assert ended == {"closed": 2, "magic": 1}
        assert (counters["tlv_messages"], counters["malformed"]) == ({"21": 2, "22": 2}, 1)
        assert (counters["sources"], counters["sequences"]) == ({"20": 5}, {})

    def test_log(self, document: dict[str, Any], traffic: Traffic) -> None:
        assert document["log"] == {
            "epoch": str(traffic.hub.factory.log.epoch),
            "head": traffic.bytes,
            "tail": 0,
            "window": WINDOW,
            "segments": {"files": 0, "memory": 1},
        }
        assert document["journal"] is None

    def test_peers(self, document: dict[str, Any], traffic: Traffic) -> None:
        keys = ("number", "state", "messages_in", "bytes_in", "messages_out", "bytes_out")
        assert [tuple(peer[key] for key in keys) for peer in document["peers"]] == [
            (1, "live", 5, traffic.bytes, 0, 0),
            (2, "live", 0, 0, 5, traffic.bytes),
            (3, "behind", 0, 0, 1, 50),
            (4, "muted", 0, 0, 0, 0),
        ]
        behind = [peer["bytes_behind"] for peer in document["peers"]]
        assert behind == [0, 0, traffic.bytes - 50, 0]
        positions = [peer["position"] for peer in document["peers"]]
        assert positions == [traffic.bytes, traffic.bytes, 50, None]
        for key, value in (("client_name", None), ("replaying", False), ("filter", None)):
            assert [peer[key] for peer in document["peers"]] == [value] * 4
        assert [peer["queued_bytes"] for peer in document["peers"]] == [0, 0, 50, 0]
        assert {peer["connected_seconds"] for peer in document["peers"]} == {7.0}
        assert {peer["address"] for peer in document["peers"]} == {"192.168.1.1:54321"}

    def test_sequences(self, hub: Hub, status: Status) -> None:
        sender = hub.connect()
        for source, numbers in ((20, (5, 9, 9)), (21, (1, 2)), (22, (7, 6, 6))):
            sender.send(*(message(number=number, source=source) for number in numbers))
        counters = describe(status)["counters"]
        assert counters["sources"] == {"20": 3, "21": 2, "22": 3}
        assert counters["sequences"] == {
            "20": {"missing": 3, "repeated": 1},
            "22": {"missing": 0, "repeated": 2},
        }

    def test_a_queue_of_which_only_a_bound_is_known(
        self, make_hub: Callable[..., Hub], clock: Any
    ) -> None:
        hub = make_hub(transport=Ordinary)
        hub.connect()
        (peer,) = describe(Status(hub.factory, SettingsRead()))["peers"]
        assert peer["queued_bytes"] is None

    @pytest.mark.parametrize(
        ("uid", "user"),
        [(os.getuid(), pwd.getpwuid(os.getuid()).pw_name), (2**31 - 2, None), (-1, None)],
    )
    def test_user(self, hub: Hub, status: Status, uid: int, user: str | None) -> None:
        client = hub.connect()
        client.protocol.identity = replace(client.protocol.identity, uid=uid)
        assert [peer["user"] for peer in describe(status)["peers"]] == [user]
        client.lose()
        assert [each["user"] for each in describe(status)["departed"]] == [user]

    def test_departed(self, document: dict[str, Any]) -> None:
        found = [(each["number"], each["reason"]) for each in document["departed"]]
        assert found == [(5, "closed"), (6, "closed"), (7, "magic")]
        assert all(0 <= time.time() - each["at"] < 60 for each in document["departed"])

    def test_held(self, hub: Hub, status: Status, clock: Any) -> None:
        sender, _ = hub.connect(), hub.connect(room=10)
        hub.fill(sender, WINDOW // 2)
        clock.advance(0.5)
        document = describe(status)
        assert (document["held"], document["counters"]["held_seconds"]) == (1, 0.5)

    def test_what_a_departed_one_had(self, hub: Hub, status: Status) -> None:
        sender, consumer = hub.connect(), hub.connect()
        sender.send(message(), message())
        sender.lose()
        consumer.lose()
        document = describe(status)
        figures = [(each["messages_in"], each["messages_out"]) for each in document["departed"]]
        assert figures == [(2, 0), (0, 2)]


class TestSubscriptions:
    @pytest.fixture
    def hub(self, make_hub: Callable[..., Hub]) -> Hub:
        """A hub that understands control messages."""
        return make_hub(rules=Rules(aside=True))

    def test_name_and_filter(self, hub: Hub, status: Status) -> None:
        consumer = hub.connect()
        say(consumer, Subscribe(types=frozenset({22, 21}), sources=frozenset({3}), name="risk"))
        (peer,) = describe(status)["peers"]
        assert peer["client_name"] == "risk"
        assert peer["filter"] == {"types": [21, 22], "sources": [3]}

    def test_who_is_in_the_past(self, hub: Hub, status: Status) -> None:
        publisher, consumer = hub.connect(), hub.connect(room=0)
        each = message()
        publisher.send(each * 3)
        consumer.take(0)
        say(consumer, Subscribe(start=Start.LAST, start_value=2))
        peer = describe(status)["peers"][1]
        assert (peer["replaying"], peer["position"]) == (True, len(each))
        assert peer["bytes_behind"] == 2 * len(each)
        consumer.take()
        document = describe(status)
        peer = document["peers"][1]
        assert (peer["replaying"], peer["position"]) == (False, 3 * len(each))
        assert document["counters"]["messages_replayed"] == 2


class TestJournal:
    def test_in_order(self, journaled: JournaledHub, clock: Any, tmp_path: Path) -> None:
        status = Status(journaled.factory, SettingsRead())
        journaled.connect().send(message(64))
        document = describe(status)
        assert_shape(document["journal"], JOURNAL)
        assert document["journal"] == {
            "directory": str(tmp_path / "journal"),
            "size": SIZE,
            "bytes": journaled.bytes_in_directory(),
            "failure": None,
            "failures": 0,
            "damages": 0,
            "fsync": "1",
            "synced": 0,
            "sync_failures": 0,
        }
        clock.advance(1)
        assert describe(status)["journal"]["synced"] == 64
        assert document["log"]["segments"] == {"files": 1, "memory": 0}

    def test_failing(self, journaled: JournaledHub, clock: Any) -> None:
        status = Status(journaled.factory, SettingsRead())
        publisher = journaled.connect()
        journaled.disk.broken = True
        publisher.send(message(64))
        clock.advance(1)
        publisher.send(message(64))
        document = describe(status)
        assert document["journal"]["failure"].endswith("sync failed: Input/output error")
        assert (document["journal"]["sync_failures"], document["journal"]["failures"]) == (1, 1)
        assert document["log"]["segments"] == {"files": 1, "memory": 1}
        journaled.disk.broken = False
        clock.advance(RETRY_SECONDS)
        assert describe(status)["journal"]["failure"] is None

    @pytest.mark.parametrize(("every", "text"), [(None, "never"), (0.0, "always"), (2.5, "2.5")])
    def test_fsync(self, clock: Any, tmp_path: Path, every: float | None, text: str) -> None:
        hub = JournaledHub(clock, tmp_path, every)
        assert describe(Status(hub.factory, SettingsRead()))["journal"]["fsync"] == text
        hub.finish()
