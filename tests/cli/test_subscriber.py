"""Asking a relay, and what is told if it does not answer as one."""

import socket

import pytest

from alphapulse_relay.cli import subscriber
from alphapulse_relay.cli.subscriber import ask_head, new_core, start_of, subscribed, tell_missing
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.client.core import Synced
from alphapulse_relay.protocol_v2.control import (
    ErrorCode,
    ErrorMessage,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
)
from tests.client.journal import EPOCH, said
from tests.client.scripted import Connection, ScriptedRelay
from tests.support import Relay, message


@pytest.fixture
def path(short_path):
    return short_path / "s.sock"


def wait(_descriptor: int) -> None:
    """Leave the waiting to the socket."""


def answers(data: bytes):
    def script(connection: Connection) -> None:
        connection.subscribe()
        connection.send(data)

    return script


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ((5, None, None), (Start.TIME, 5)),
        ((0, None, None), (Start.TIME, 0)),
        ((None, 0, None), (Start.POSITION, 0)),
        ((None, None, 7), (Start.LAST, 7)),
        ((None, None, None), (Start.LIVE, 0)),
    ],
)
def test_start(places, expected):
    assert start_of(*places) == expected


class TestHead:
    def test_of_a_relay(self):
        with Relay("--journal", "none") as relay:
            before = ask_head(str(relay.socket))
            relay.connect(joined=False).send(message(20, 1))
            relay.wait_until(lambda status: status["counters"]["messages_received"] == 1)
            after = ask_head(str(relay.socket))
        assert (before.position, after.position) == (0, 216)
        assert before.epoch == after.epoch

    def test_it_only_looks(self, path):
        asked = []

        def script(connection: Connection) -> None:
            asked.append(connection.subscribe())
            connection.send(said(SequenceSync(EPOCH, 3, SyncState.LIVE)))

        with ScriptedRelay(path, script):
            assert ask_head(str(path))[:2] == (EPOCH, 3)
        assert asked == [Subscribe(Wish.STOP_AT_HEAD)]

    def test_who_never_answers(self, path, monkeypatch):
        monkeypatch.setattr(subscriber, "ANSWER_SECONDS", 0.01)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            with pytest.raises(Failure) as caught:
                ask_head(str(path))
        told = f"{path}: no answer for 0.01 s: what listens there keeps no messages"
        assert caught.value.message == told

    def test_who_closes(self, path):
        with ScriptedRelay(path, answers(b"")), pytest.raises(Failure) as caught:
            ask_head(str(path))
        assert caught.value.message == f"{path}: the relay closed the connection without an answer"


class TestErrors:
    def failure(self, path, data: bytes, advice: str = "") -> str:
        with ScriptedRelay(path, answers(data)), pytest.raises(Failure) as caught:
            list(subscribed(str(path), new_core(Subscribe()), wait, advice))
        return caught.value.message

    def test_refused(self, path):
        error = said(ErrorMessage(ErrorCode.TOO_MANY_PEERS, "no room"))
        told = f"{path}: the relay says: no room (error 2)"
        assert self.failure(path, error, ": remove it") == told

    def test_place_that_is_not_in_the_journal(self, path):
        error = said(ErrorMessage(ErrorCode.WRONG_EPOCH, "not mine"))
        told = f"{path}: the relay says: not mine (error 4): remove it"
        assert self.failure(path, error, ": remove it") == told

    def test_a_relay_that_leaves(self, path):
        error = said(ErrorMessage(ErrorCode.LEAVING, "connect again"))
        told = "the relay closed the connection: it leaves, and is as a rule back at once"
        assert self.failure(path, error) == told

    def test_not_a_relay(self, path):
        assert "what comes is not from a relay" in self.failure(path, b"HTTP/1.1 400 Bad Request")

    def test_refused_before_it_has_listened(self, path):
        def script(connection: Connection) -> None:
            connection.send(said(ErrorMessage(ErrorCode.TOO_MANY_PEERS, "no room")))

        with ScriptedRelay(path, script), pytest.raises(Failure, match="no room"):
            list(subscribed(str(path), new_core(Subscribe()), wait))

    def test_more_than_a_subscribe_has_room_for(self, path):
        core = new_core(Subscribe(sources=frozenset(range(256))))
        with pytest.raises(Failure, match="no relay can be asked for that: "):
            list(subscribed(str(path), core, wait))

    def test_no_relay(self, path):
        with pytest.raises(Failure, match="no relay: there is no socket"):
            list(subscribed(str(path), new_core(Subscribe()), wait))


def test_events_until_the_end(path):
    published = message(20, 1)
    data = said(SequenceSync(EPOCH, 3, SyncState.LIVE)) + published
    with ScriptedRelay(path, answers(data)):
        synced, one = subscribed(str(path), new_core(Subscribe()), wait)
    assert isinstance(synced, Synced)
    assert one.data == published


def test_missing(capsys):
    tell_missing(3, 9, "damaged")
    assert capsys.readouterr().err == "signal-relay: positions 3 to 9 are missing: damaged\n"
