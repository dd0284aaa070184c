"""Who a peer is, as the kernel says it, and names that cannot lie."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address, IPv6Address

from alphapulse_relay.hub import peer
from alphapulse_relay.hub.peer import (
    Ending,
    Identity,
    Miss,
    Refusal,
    State,
    certificate_names,
    groups_of,
    identify,
    program_of,
)
from alphapulse_relay.protocol_v2.errors import Rejection
from tests.authority import Authority

GROUPS_MAX = 65_536
"""What a process may be in, by Linux (NGROUPS_MAX, limits.h)."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_unix_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    identity = identify(7, pair[0], None)
    name = Path("/proc/self/comm").read_text().strip()
    gids = frozenset({os.getgid(), *os.getgroups()})
    expected = Identity(7, "unix", os.getpid(), os.getuid(), os.getgid(), name, gids=gids)
    assert identity == expected
    assert str(identity) == f"7 (unix pid={os.getpid()} uid={os.getuid()} {name})"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may be in other groups")
@pytest.mark.parametrize("number", [0, 1, 256, 257, GROUPS_MAX])
def test_all_groups_of_a_process(number: int) -> None:
    groups, before = range(100_000, 100_000 + number), os.getgroups()
    os.setgroups(groups)
    try:
        ours, theirs = socket.socketpair()
    finally:
        os.setgroups(before)
    with ours, theirs:
        assert groups_of(ours) == set(groups)
        assert identify(7, ours, None).gids == {os.getgid(), *groups}


def test_groups_that_the_kernel_does_not_tell(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "_SO_PEERGROUPS", 9999)
    assert groups_of(pair[0]) is None
    identity = identify(7, pair[0], None)
    assert (identity.gid, identity.gids) == (os.getgid(), None)


@pytest.mark.parametrize("handle", [None, object()])
def test_tcp_by_its_address(handle: object) -> None:
    identity = identify(3, handle, IPv4Address("TCP", "10.1.2.3", 4567))
    assert identity == Identity(3, "tcp", address="10.1.2.3:4567")
    assert str(identity) == "3 (tcp 10.1.2.3:4567)"


def test_a_tcp_socket_has_no_credentials() -> None:
    with socket.socket(socket.AF_INET) as handle:
        identity = identify(3, handle, IPv6Address("TCP", "::1", 99))
    assert (identity.transport, identity.pid, identity.address) == ("tcp", None, "::1:99")


def test_an_address_of_another_kind() -> None:
    identity = identify(3, None, "a pipe")
    assert (identity.transport, identity.address) == ("stream", "a pipe")


def test_names_of_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for names in ("a.example", "b.example", "10.0.0.1"), ("desk", "a.example"), ():
        found = certificate_names(authority.issue("desk", *names).x509)
        assert found == ("desk", *(name for name in names if name not in {"desk", "10.0.0.1"}))
    assert certificate_names(None) is None


def test_a_certificate_cannot_forge_a_log_line(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("desk\nroot\x1b[31m", stem="desk")
    assert certificate_names(issued.x509) == ("desk?root?[31m",)


def test_who_is_known_by_a_certificate() -> None:
    identity = Identity(3, "tls", address="10.0.0.1:5", certificate=("desk", "desk.example"))
    assert str(identity) == "3 (tls 10.0.0.1:5 desk)"
    assert identity.fields["certificate"] == "desk, desk.example"
    assert str(replace(identity, certificate=())) == "3 (tls 10.0.0.1:5)"


def comm(name: bytes) -> None:
    """Name this process; the kernel cuts it to 15 bytes (proc(5))."""
    Path("/proc/self/comm").write_bytes(name)


@pytest.fixture
def own_name() -> Iterator[None]:
    before = Path("/proc/self/comm").read_bytes()
    yield
    comm(before)


@pytest.mark.usefixtures("own_name")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"strategy-1", "strategy-1"),
        (b"a b(c)", "a b(c)"),
        (b"x\nroot: gone", "x?root: gone"),
        (b"\x1b[31mred\x07", "?[31mred?"),
        (b"tab\there\r", "tab?here?"),
        ("naïve".encode(), "naïve"),
        ("a\u2028b\u202ec".encode(), "a?b?c"),
        (b"a\xffb", "a\ufffdb"),
    ],
)
def test_a_program_cannot_forge_a_log_line(name: bytes, shown: str) -> None:
    comm(name)
    found = program_of(os.getpid())
    assert found == shown
    assert len(found.splitlines()) == 1


@pytest.mark.usefixtures("own_name")
def test_a_program_without_a_name() -> None:
    comm(b"\n")
    assert program_of(os.getpid()) == "?"


def test_a_process_that_is_gone() -> None:
    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)
    assert program_of(process) == "?"


def test_names_are_one_word_each() -> None:
    for names in (Ending, Refusal, Miss, State, Rejection):
        for each in names:
            assert each.value == each.name.lower() == str(each)


def test_a_stream_that_breaks_ends_by_the_same_name() -> None:
    assert Ending(Rejection.MAGIC.value) is Ending.MAGIC
    assert Ending(Rejection.SIZE.value) is Ending.SIZE
    assert Ending.OVERTAKEN.value == Miss.OVERTAKEN.value
