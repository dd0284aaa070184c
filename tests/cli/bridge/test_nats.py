"""What is thought of what is at NATS."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats")

from nats.js.api import ClusterInfo, PeerInfo

from alphapulse_relay.bridge.check import View
from alphapulse_relay.cli.bridge import inward, nats
from alphapulse_relay.cli.words import Failure
from tests.cli.bridge.looking import MADE, SERVER, ends, last, remember, stream
from tests.cli.doctor.subjects import found, only

AWAY = replace(SERVER, url="nats://away:4222", trouble="no answer")
CREATED = str(MADE)
SUBJECTS = {"signals.desk": 4, "signals.b": 1, "signals.c.21": 1500, "signals.c.none": 1}
TOLD = (
    nats.check_jetstream,
    nats.check_stream,
    nats.check_room,
    nats.check_name,
    nats.check_relays,
    inward.check_inward,
)


class TestServers:
    def test_figures(self, tmp_path: Path) -> None:
        verdict, text = found(nats.check_servers, ends(tmp_path, View((SERVER,))))[0]
        assert verdict == "ok"
        assert text == (
            "nats://127.0.0.1:4222: version 2.15.1, not encrypted, round trip 1.0 ms, takes "
            "messages of 1.0 M"
        )

    def test_one_is_enough(self, tmp_path: Path) -> None:
        both = found(nats.check_servers, ends(tmp_path, View((AWAY, SERVER))))
        assert [verdict for verdict, _ in both] == ["note", "ok"]

    def test_none(self, tmp_path: Path) -> None:
        one = ends(tmp_path, View((AWAY,)))
        assert "no connection: no answer" in only(nats.check_servers, one).what
        assert found(nats.check_servers, one)[0][0] == "wrong"
        assert all(found(check, one) == [] for check in TOLD)

    @pytest.mark.parametrize(("encrypted", "verdict"), [(True, "ok"), (False, "note")])
    def test_what_leaves_the_host(self, tmp_path: Path, encrypted: bool, verdict: str) -> None:
        server = replace(SERVER, url="nats://nats1:4222", is_encrypted=encrypted)
        assert only(nats.check_servers, ends(tmp_path, View((server,)))).verdict == verdict

    def test_too_old_to_choose(self, tmp_path: Path) -> None:
        old = View((replace(SERVER, version=(2, 9, 25)),))
        assert only(nats.check_servers, ends(tmp_path, old)).verdict == "ok"
        one = ends(tmp_path, old, take_from=["other"])
        assert "too old for --take-from" in only(nats.check_servers, one).what

    def test_a_file_that_cannot_be_used(self, tmp_path: Path) -> None:
        one = ends(tmp_path, Failure("Permission denied"))
        assert "Permission denied" in only(nats.check_servers, one).what
        assert all(found(check, one) == [] for check in TOLD)

    def test_without_the_client(self, tmp_path: Path) -> None:
        one = ends(tmp_path, None)
        assert all(found(check, one) == [] for check in (nats.check_servers, *TOLD))


class TestStream:
    def test_jetstream(self, tmp_path: Path) -> None:
        assert only(nats.check_jetstream, ends(tmp_path, View((SERVER,)))).verdict == "ok"
        one = ends(tmp_path, View((SERVER,), trouble="JetStream is not enabled"))
        assert only(nats.check_jetstream, one).what == "JetStream is not enabled"
        assert found(nats.check_stream, one) == []

    def test_none(self, tmp_path: Path) -> None:
        one = only(nats.check_stream, ends(tmp_path, View((SERVER,))))
        assert (one.verdict, one.what) == ("wrong", "there is no stream SIGNALS")
        assert "--create-stream" in one.mend

    def test_it_would_be_made(self, tmp_path: Path) -> None:
        options = {"create_stream": "true", "max_age": "none", "replicas": "3"}
        one = only(nats.check_stream, ends(tmp_path, View((SERVER,)), **options))
        assert one.verdict == "ok"
        assert one.what.startswith(
            "stream SIGNALS would be made: signals.>, 10.0 G, for ever, on 3 servers"
        )

    def test_another_one_is_in_the_way(self, tmp_path: Path) -> None:
        view = View((SERVER,), taken_by="OTHER")
        one = only(nats.check_stream, ends(tmp_path, view, create_stream="true"))
        assert one.what == "there is no stream SIGNALS, and signals.> is of stream OTHER"

    def test_faults(self, tmp_path: Path) -> None:
        one = only(nats.check_stream, ends(tmp_path, stream(faults=("it is sealed",))))
        assert (one.verdict, one.what) == ("wrong", "stream SIGNALS: it is sealed")

    def test_replicas(self, tmp_path: Path) -> None:
        good = stream(config={"num_replicas": 3})
        text = only(nats.check_stream, ends(tmp_path, good)).what
        assert text == "stream SIGNALS is there, and fits: kept by 3 servers"
        good.info.cluster = ClusterInfo(
            replicas=[PeerInfo(name="n2", offline=True), PeerInfo(name="n3", offline=False)]
        )
        one = only(nats.check_stream, ends(tmp_path, good))
        assert (one.verdict, one.what.endswith("not all are there: n2")) == ("note", True)

    @pytest.mark.parametrize(
        ("size", "most", "words"),
        [
            (500, 1000, "5 NATS messages, 500 B of 1.0 K, the oldest of "),
            (950, 1000, ": the oldest make room for what comes"),
            (500, -1, "500 B without a limit"),
        ],
    )
    def test_room(self, tmp_path: Path, size: int, most: int, words: str) -> None:
        one = ends(tmp_path, stream(state={"bytes": size}, config={"max_bytes": most}))
        assert words in only(nats.check_room, one).what

    def test_an_empty_one_has_no_age(self, tmp_path: Path) -> None:
        one = ends(tmp_path, stream(oldest=None))
        assert only(nats.check_room, one).what == "5 NATS messages, 500 B of 1.0 K"


class TestName:
    def check(self, directory: Path, view: Any, **state: Any) -> Any:
        return only(nats.check_name, remember(ends(directory, view), **state))

    def test_nobody_has_it(self, tmp_path: Path) -> None:
        assert self.check(tmp_path, stream()).verdict == "ok"

    def test_it_is_ours(self, tmp_path: Path) -> None:
        one = self.check(tmp_path, stream(last=last(900)))
        assert one.what == "message 9 is the last of desk, and of this relay's journal"

    def test_it_is_another_relays(self, tmp_path: Path) -> None:
        one = self.check(tmp_path, stream(last=last(900, epoch=0xF)), outward="e:100:0:0")
        assert (one.verdict, "another journal, f" in one.what) == ("wrong", True)

    def test_it_was_ours(self, tmp_path: Path) -> None:
        one = self.check(tmp_path, stream(last=last(900, epoch=0xF)), outward="f:900:0:0")
        assert (one.verdict, "had before" in one.what) == ("note", True)

    def test_no_bridge_is_called_so(self, tmp_path: Path) -> None:
        one = self.check(tmp_path, stream(stranger="message 3: it has not the headers"))
        assert (one.verdict, "it has not the headers" in one.what) == ("wrong", True)

    def test_without_a_relay_it_is_not_known(self, tmp_path: Path) -> None:
        one = ends(tmp_path, stream(last=last(900)), Failure("no"))
        assert found(nats.check_name, one) == []


class TestRelays:
    def check(self, directory: Path, **options: Any) -> list[str]:
        view = stream(subjects=SUBJECTS)
        return [text for _, text in found(nats.check_relays, ends(directory, view, **options))]

    def test_all_come(self, tmp_path: Path) -> None:
        assert self.check(tmp_path) == [
            "would come here: b (1), c (1,501); of its own, 4, nothing would"
        ]

    def test_some_relays(self, tmp_path: Path) -> None:
        comes, stays, absent = self.check(tmp_path, take_from=["b", "nobody"])
        assert comes.startswith("would come here: b (1);")
        assert stays.endswith("--take-types: c (1,501)")
        assert absent == "--take-from: nothing in the stream is of nobody"

    def test_some_types(self, tmp_path: Path) -> None:
        (comes,) = self.check(tmp_path, take_types="21")
        assert comes.startswith("would come here: b (1), c (1,500);")
        comes, stays = self.check(tmp_path, take_types="22")
        assert comes.startswith("would come here: b (1);")
        assert stays.endswith(": c (1,501)")

    def test_nobody(self, tmp_path: Path) -> None:
        one = only(nats.check_relays, ends(tmp_path, stream()))
        assert one.what == "would come here: nothing yet; of its own, 0, nothing would"

    def test_many(self, tmp_path: Path) -> None:
        subjects = {f"signals.r{number:03}": 1 for number in range(nats.NAMED + 7)}
        text = only(nats.check_relays, ends(tmp_path, stream(subjects=subjects))).what
        assert "r019 (1) and 7 more; of its own" in text
