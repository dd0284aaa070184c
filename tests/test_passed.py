"""Sockets that the process was given: which are taken for what address, and how systemd's come."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.logger import globalLogPublisher

from alphapulse_relay import passed
from alphapulse_relay.passed import Passed, PassedSockets, from_parts, from_systemd


@pytest.fixture
def directory() -> Iterator[Path]:
    short = Path(tempfile.mkdtemp(prefix="relay-"))
    yield short
    shutil.rmtree(short)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listening(stack: ExitStack, family: int, address: object) -> socket.socket:
    found = stack.enter_context(socket.socket(family))
    found.bind(address)  # type: ignore[arg-type]
    found.listen()
    return found


def unix(stack: ExitStack, path: object) -> Passed:
    return Passed(listening(stack, socket.AF_UNIX, str(path)))


def tcp(stack: ExitStack, host: str = "127.0.0.1") -> tuple[Passed, int]:
    found = listening(stack, socket.AF_INET6 if ":" in host else socket.AF_INET, (host, 0))
    return Passed(found), found.getsockname()[1]


class TestPassedSockets:
    def test_a_path_is_taken_once(self, opened: ExitStack, directory: Path) -> None:
        given = unix(opened, directory / "s")
        sockets = PassedSockets([given])
        assert not sockets.has_unix(f"{directory}/t")
        assert sockets.take_unix(f"{directory}/t") is None
        assert sockets.has_unix(f"{directory}/s")
        assert sockets.take_unix(f"{directory}/s") is given
        assert sockets.take_unix(f"{directory}/s") is None
        assert sockets.rest() == []

    def test_links_on_the_way_to_a_path_do_not_matter(
        self, opened: ExitStack, directory: Path
    ) -> None:
        (directory / "real").mkdir()
        (directory / "link").symlink_to("real")
        sockets = PassedSockets([unix(opened, directory / "link" / "s")])
        assert sockets.take_unix(f"{directory}/real/../real/s")

    def test_an_abstract_name(self, opened: ExitStack) -> None:
        name = f"\0relay-test-{os.getpid()}"
        given = unix(opened, name)
        assert given.address == f"@{name[1:]}"
        assert PassedSockets([given]).take_unix(name[1:]) is None
        assert PassedSockets([given]).take_unix(name) is given

    def test_a_port_is_taken_on_its_interface_only(self, opened: ExitStack) -> None:
        given, port = tcp(opened)
        assert given.address == f"127.0.0.1:{port}"
        sockets = PassedSockets([given])
        for interface in ("", "127.0.0.2", "::1", "localhost"):
            assert sockets.take_tcp(interface, port) is None
        assert sockets.take_tcp("127.0.0.1", port ^ 1) is None
        assert sockets.take_tcp("127.0.0.1", port) is given

    def test_no_interface_is_all_of_them(self, opened: ExitStack) -> None:
        given, port = tcp(opened, "0.0.0.0")
        assert PassedSockets([given]).take_tcp("", port) is given

    def test_version_6(self, opened: ExitStack) -> None:
        try:
            given, port = tcp(opened, "::1")
        except OSError:
            pytest.skip("this machine has no IPv6")
        assert given.address == f"[::1]:{port}"
        assert PassedSockets([given]).take_tcp("0:0::1", port) is given

    def test_a_socket_that_comes_by_two_ways_is_there_once(
        self, opened: ExitStack, directory: Path
    ) -> None:
        given = unix(opened, directory / "s")
        again = Passed(opened.enter_context(given.socket.dup()))
        sockets = PassedSockets([given])
        sockets.add([again])
        assert again.socket.fileno() == -1
        assert sockets.rest() == [given]

    def test_a_descriptor(self, opened: ExitStack, directory: Path) -> None:
        given = unix(opened, directory / "s")
        sockets = PassedSockets([given])
        assert sockets.take_descriptor(given.socket.fileno() + 1) is None
        assert sockets.take_descriptor(given.socket.fileno()) is given

    def test_closing_closes_what_came_with_it(self, opened: ExitStack, directory: Path) -> None:
        lock, file = os.open(directory, os.O_RDONLY), os.open(directory, os.O_RDONLY)
        Passed(unix(opened, directory / "s").socket, lock, file).close()
        for descriptor in (lock, file):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)


class TestParts:
    def test_there_and_back(self, opened: ExitStack, directory: Path) -> None:
        lock, file = os.open(directory, os.O_RDONLY), os.open(directory, os.O_RDONLY)
        first = Passed(unix(opened, directory / "s").socket, lock, file)
        second, _ = tcp(opened)
        parts = [*first.parts(), *second.parts()]
        assert [name for name, _ in parts] == ["socket", "lock", "file", "socket"]
        found = from_parts((name, os.dup(descriptor)) for name, descriptor in parts)
        assert [each.address for each in found] == [first.address, second.address]
        assert [each.lock is None for each in found] == [False, True]
        for each in (*found, first):
            each.close()

    @pytest.mark.parametrize("names", [["lock"], ["file"], ["socket", "other"], ["socket"] * 2])
    def test_what_does_not_fit(self, opened: ExitStack, directory: Path, names: list[str]) -> None:
        """The descriptors stay the caller's."""
        descriptors = [unix(opened, directory / "s").socket.fileno(), os.open("/dev/null", 0)]
        with pytest.raises(ValueError, match=r"."):
            from_parts(zip(names, descriptors, strict=False))
        for descriptor in descriptors:
            os.fstat(descriptor)
        os.close(descriptors[1])


class TestSystemd:
    """``sd_listen_fds(3)``, with the sockets where this process has room for them."""

    @pytest.fixture
    def first(self, opened: ExitStack, monkeypatch: pytest.MonkeyPatch) -> int:
        """A number with nothing behind it for a while."""
        base = max(map(int, os.listdir("/proc/self/fd"))) + 10
        monkeypatch.setattr(passed, "FIRST_DESCRIPTOR", base)
        return base

    def variables(self, number: object, pid: object = None) -> dict[str, str]:
        return {
            "LISTEN_PID": str(pid or os.getpid()),
            "LISTEN_FDS": str(number),
        }

    def test_all_are_found(self, opened: ExitStack, directory: Path, first: int) -> None:
        unix_one, (tcp_one, _) = unix(opened, directory / "s"), tcp(opened)
        os.dup2(unix_one.socket.fileno(), first)
        os.dup2(tcp_one.socket.fileno(), first + 1)
        found = from_systemd(self.variables(2))
        assert [each.address for each in found] == [unix_one.address, tcp_one.address]
        for each in found:
            assert not each.socket.getblocking()
            assert not each.socket.get_inheritable()
            assert (each.lock, each.file) == (None, None)
            each.close()

    @pytest.mark.parametrize("pid", [1, os.getppid(), "", "x"])
    def test_what_is_for_another_process_is_not_touched(
        self, opened: ExitStack, directory: Path, first: int, pid: object
    ) -> None:
        os.dup2(unix(opened, directory / "s").socket.fileno(), first)
        assert from_systemd({**self.variables(1), "LISTEN_PID": str(pid)}) == []
        os.close(first)

    @pytest.mark.parametrize("number", ["", "x", "-1", "0", "\u0663", "9" * 5000])
    def test_no_number_is_none(self, number: str) -> None:
        assert from_systemd(self.variables(number)) == []

    def test_more_than_there_are(self, opened: ExitStack, directory: Path, first: int) -> None:
        os.dup2(unix(opened, directory / "s").socket.fileno(), first)
        (found,) = from_systemd(self.variables(10**9))
        found.close()

    def test_what_does_not_listen_is_left_alone(
        self, opened: ExitStack, first: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events: list[dict[str, object]] = []
        globalLogPublisher.addObserver(events.append)
        opened.callback(globalLogPublisher.removeObserver, events.append)
        datagrams = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        connected, _ = (opened.enter_context(each) for each in socket.socketpair())
        with open("/dev/null", "rb") as file:
            for number, each in enumerate((datagrams, connected, file)):
                os.dup2(each.fileno(), first + number)
        assert from_systemd(self.variables(3)) == []
        assert [event["descriptor"] for event in events] == [first, first + 1, first + 2]
        for number in range(3):
            os.close(first + number)


def test_the_environment_is_that_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although somebody has taken systemd's variables from ``os.environ`` before."""
    code = "import os\nfrom alphapulse_relay import passed\nimport twisted.internet.endpoints\n"
    code += "print(passed.environment()['LISTEN_FDS'], *(n for n in os.environ if 'LISTEN' in n))"
    variables = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
    command = [sys.executable, "-c", code]
    environ = {**os.environ, **variables}
    assert subprocess.check_output(command, env=environ, text=True) == "2\n"


def test_a_descriptor_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        passed.listening_socket(10**6)
    assert raised.value.errno == errno.EBADF
