"""What a benchmark did to a relay, by the word of a side port."""

import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from alphapulse_relay.cli.bench.account import Account
from alphapulse_relay.cli.bench.crew import MemberFailure
from tests.cli.side_port import document, ok, side_port


@pytest.fixture
def connection() -> Iterator[socket.socket]:
    """One to a relay whose process is the test's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


def status(*peers: int, **counters: int) -> dict[str, object]:
    """A status with peers of these processes."""
    content = document(1.0, peers=len(peers)) | {"pid": os.getpid()}
    for peer, pid in zip(content["peers"], peers, strict=True):
        peer["pid"] = pid
    content["counters"]["missed"] |= counters
    return content


CREW = SimpleNamespace(pids=frozenset({71, 72}), messages=10)


def closed(account: Account) -> str:
    account.close(CREW)
    return "\n".join(account.lines())


def test_others(connection):
    answers = iter([status(os.getpid(), 5), status(71, 5, 6), status(5, 6)])
    with side_port(lambda: ok(next(answers))) as port:
        account = Account("/the/socket", port.url, connection, 216)
        assert account.others == 1
        shown = closed(account)
    assert account.others == 2
    assert shown.startswith(
        "published 10 messages, 2,160 bytes, to /the/socket "
        "(domain 2, source 255, TLV type 39)\n2 other peers were connected and got them, too\n"
    )
    assert shown.endswith("\nthe benchmark's own connections are gone from the relay")
    assert account.document()["gone"] is True


def test_nobody_else(connection):
    with side_port(lambda: ok(status())) as port:
        account = Account("/the/socket", port.url, connection, 216)
        shown = closed(account)
    assert account.others == 0
    assert "\nnobody else was connected\n" in shown
    assert "dropped or missed" not in shown


def test_what_the_journal_keeps(connection):
    kept = status() | {"log": {"head": 5000, "tail": 2000, "window": 1 << 26}}
    answers = iter([kept, kept | {"journal": None}, status()])
    with side_port(lambda: ok(next(answers))) as port:
        found = [Account("/the/socket", port.url, connection, 216).kept for _ in range(3)]
    assert found == [3000, 0, 0]


def test_what_was_lost_meanwhile(connection):
    answers = iter([status(5, overtaken=3), status(5, overtaken=1503)])
    with side_port(lambda: ok(next(answers))) as port:
        account = Account("/the/socket", port.url, connection, 216)
        shown = closed(account)
    assert "messages that were dropped or missed: overtaken 1,500\n" in shown
    assert account.document()["dropped_or_missed"] == {"overtaken": 1500}


def test_side_port_of_another_relay(connection):
    with side_port(lambda: ok(document())) as port:
        account = Account("/the/socket", port.url, connection, 216)
        assert account.others is None
        assert account.unknown == f"{port.url} is the side port of another relay: see --url"


def test_no_side_port(connection):
    with side_port(lambda: ok({})) as port:
        pass
    account = Account("/the/socket", port.url, connection, 216)
    assert account.others is None
    assert account.unknown.startswith(f"no answer from {port.url}: ")
    shown = closed(account)
    assert f"\nwho else was connected is not known: {account.unknown}\n" in shown
    assert shown.endswith("own connections are closed")
    assert account.document()["other_peers"] is None
    assert account.document()["gone"] is None


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("overtaken", "consumer 1: gone (the relay's reason: overtaken)"),
        ("reset", "consumer 1: gone"),
    ],
)
def test_reason_of_the_relay(connection, reason, told):
    content = status()
    content["departed"] = [
        {**content["departed"][0], "pid": 71, "number": 1, "reason": "closed"},
        {**content["departed"][0], "pid": 71, "number": 3, "reason": reason},
        {**content["departed"][0], "pid": 72, "number": 4, "reason": "shutdown"},
    ]
    with side_port(lambda: ok(content)) as port:
        account = Account("/the/socket", port.url, connection, 216)
        account.close(CREW)
    assert account.explained(MemberFailure("consumer 1", 71, "gone")).message == told
