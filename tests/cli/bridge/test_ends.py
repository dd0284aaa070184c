"""Both ends, looked at: a real relay that gives what is asked for, or does not."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alphapulse_relay.bridge.state import StateFile
from alphapulse_relay.cli.bridge import ends as module
from alphapulse_relay.cli.bridge.ends import Ends, Refusal
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.client.core import Message, Synced
from tests.bridge.bridges import settings
from tests.bridge.joined import head, send
from tests.support import Relay, message

NO_MESSAGES = f'[[access]]\nname = "own"\nuid = [{os.getuid()}]\nsubscribe = false\n'


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with Relay() as relay:
        yield relay


def ends(directory: Path, relay: Path, **options: str) -> Ends:
    return Ends(settings(directory, relay=str(relay), **options))


class TestRelay:
    def test_head(self, relay: Relay, tmp_path: Path) -> None:
        send(relay.socket, message(20, 1))
        found, expected = ends(tmp_path, relay.socket).head, head(relay.socket)
        assert not isinstance(found, Failure)
        assert found[:2] == expected[:2]

    def test_what_comes_behind_a_place(self, relay: Relay, tmp_path: Path) -> None:
        since = head(relay.socket)
        send(relay.socket, message(20, 2), message(21, 3))
        one = ends(tmp_path, relay.socket, sources="21")
        events = list(one.behind(since.position, since.epoch))
        assert [event.data[6] for event in events if isinstance(event, Message)] == [21]
        assert isinstance(events[-1], Synced)

    def test_it_has_no_name_there(self, relay: Relay, tmp_path: Path) -> None:
        """The bridge may have its own just now."""
        assert not isinstance(ends(tmp_path, relay.socket).head, Failure)
        line = relay.wait_for_log("peer (left|closed|disconnected|.*finished)")
        assert "bridge" not in line

    def test_none(self, tmp_path: Path) -> None:
        failure = ends(tmp_path, tmp_path / "s.sock").head
        assert isinstance(failure, Failure)
        assert failure.message == "No such file or directory"

    def test_silence(self, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.05)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(short_path / "s.sock"))
            listener.listen()
            failure = ends(short_path, short_path / "s.sock").head
        assert isinstance(failure, Failure)
        assert failure.message == "no answer for 0.05 s"

    def test_it_does_not_let_us_listen(self, tmp_path: Path) -> None:
        file = tmp_path / "relay.toml"
        file.write_text(NO_MESSAGES)
        with Relay("--config", str(file)) as relay:
            refusal = ends(tmp_path, relay.socket).head
        assert isinstance(refusal, Refusal)
        assert refusal.is_forbidden
        assert "the access rules give you no messages" in refusal.message

    def test_something_else_listens(self, short_path: Path) -> None:
        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.sendall(bytes(100))

        with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor() as threads:
            listener.bind(str(short_path / "s.sock"))
            listener.listen()
            threads.submit(answer)
            failure = ends(short_path, short_path / "s.sock").head
        assert isinstance(failure, Failure)
        assert "what comes is not from a relay" in failure.message


class TestState:
    def test_none_yet(self, tmp_path: Path) -> None:
        file = ends(tmp_path, tmp_path / "s.sock").file
        assert isinstance(file, StateFile)
        assert file.state.outward == ""
        assert list(tmp_path.iterdir()) == []

    def test_no_state(self, tmp_path: Path) -> None:
        (tmp_path / "desk.state").write_text("{]")
        file = ends(tmp_path, tmp_path / "s.sock").file
        assert isinstance(file, Failure)
        assert "is not a bridge's state" in file.message


class TestNATS:
    def test_without_its_client(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "PACKAGES", ("nats", "no_such_package"))
        one = ends(tmp_path, tmp_path / "s.sock")
        assert (one.missing, one.nats) == (["no_such_package"], None)

    def test_what_is_there(self, tmp_path: Path) -> None:
        pytest.importorskip("nats")
        one = ends(tmp_path, tmp_path / "s.sock", nats=["nats://127.0.0.1:1"])
        assert one.nats is not None
        assert one.nats is one.nats, "it is asked once"
        assert not isinstance(one.nats, Failure)
        assert not one.nats.is_reached
