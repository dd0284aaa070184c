"""What a service manager hears: words at the right time, and from a real relay."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from alphapulse_relay.systemd import STATUS_SECONDS, Notifier, watchdog_seconds
from tests.hub.fakes import Events
from tests.support import PATIENCE, Relay

SILENCE = 1.0
"""Seconds in which a watchdog that is fed every tenth of one must have been fed."""


class Manager:
    """The socket of a service manager."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        self._socket.close()

    def hear(self, timeout: float = PATIENCE) -> str:
        """Return the next words. Raises ``TimeoutError``."""
        self._socket.settimeout(timeout)
        return self._socket.recv(4096).decode()

    def heard(self) -> list[str]:
        """Return all that was said by now."""
        words = []
        self._socket.setblocking(False)
        try:
            while True:
                words.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return words

    def wait_for(self, pattern: str) -> str:
        while not re.fullmatch(pattern, words := self.hear()):
            pass
        return words


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.chdir(tmp_path)  # an address has room for 107 bytes
    manager = Manager("notify")
    yield manager
    manager.close()


def notifier(clock: Any, address: str, summary: str = "well", **environ: str) -> Notifier:
    return Notifier(clock, {"NOTIFY_SOCKET": address, **environ}, lambda: summary)


class TestNotifier:
    def test_says_that_it_serves_and_now_and_then_how(self, manager: Manager) -> None:
        clock = Clock()
        told = notifier(clock, manager.name)
        assert manager.heard() == []
        told.ready()
        assert manager.heard() == ["READY=1", "STATUS=well"]
        clock.advance(STATUS_SECONDS)
        assert manager.heard() == ["STATUS=well"]
        told.stop()
        assert not clock.getDelayedCalls()

    def test_says_that_it_reloads(self, manager: Manager) -> None:
        told = notifier(Clock(), manager.name)
        told.ready()
        manager.heard()
        told.reloading()
        told.ready()
        reloading, ready = manager.heard()
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=[0-9]+", reloading)
        assert ready == "READY=1"

    def test_feeds_the_watchdog_until_it_has_left(self, manager: Manager) -> None:
        clock = Clock()
        told = notifier(clock, manager.name, WATCHDOG_USEC="3000000", WATCHDOG_PID=str(os.getpid()))
        told.ready()
        assert manager.heard()[-1] == "WATCHDOG=1"
        clock.advance(1.4)
        assert manager.heard() == []
        clock.advance(0.1)
        assert manager.heard() == ["WATCHDOG=1"]
        told.stopping()
        clock.advance(1.5)
        assert manager.heard() == ["STOPPING=1", "WATCHDOG=1"]
        told.stop()
        clock.advance(10)
        assert manager.heard() == []

    def test_an_abstract_socket(self) -> None:
        manager = Manager(f"@signal-relay-test-{os.getpid()}")
        notifier(Clock(), manager.name).stopping()
        assert manager.heard() == ["STOPPING=1"]
        manager.close()

    def test_without_a_manager(self) -> None:
        clock = Clock()
        told = Notifier(clock, {"WATCHDOG_USEC": "1000"}, lambda: "well")
        told.ready()
        told.stopping()
        assert not clock.getDelayedCalls()

    def test_a_state_that_finds_no_room_comes_with_what_is_said_next(
        self, manager: Manager
    ) -> None:
        clock = Clock()
        told = notifier(clock, manager.name, summary="x" * 1000)
        told.ready()
        clock.pump([STATUS_SECONDS] * 1000)  # net.unix.max_dgram_qlen is 10, or some hundreds
        told.reloading()
        told.ready()
        assert not any(words.startswith("READY=1") for words in manager.heard()[1:])
        clock.advance(STATUS_SECONDS)
        assert manager.heard() == ["READY=1\nSTATUS=" + "x" * 1000]
        told.stop()

    def test_a_manager_that_is_gone_is_one_line_in_the_log(self) -> None:
        logged, clock, path = Events(), Clock(), "/nonexistent/notify"
        globalLogPublisher.addObserver(logged)
        told = notifier(clock, path, WATCHDOG_USEC="1000000")
        told.ready()
        clock.pump([STATUS_SECONDS] * 5)
        told.stop()
        globalLogPublisher.removeObserver(logged)
        (line,) = logged.lines(f"the service manager at {path} cannot be told")
        assert line.endswith("No such file or directory")

    def test_another_line_if_it_goes_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        logged, clock, path = Events(), Clock(), "notify"
        globalLogPublisher.addObserver(logged)
        told = notifier(clock, path)
        told.ready()
        back = Manager(path)
        clock.advance(STATUS_SECONDS)
        assert back.heard() == ["STATUS=well"]
        back.close()
        (tmp_path / path).unlink()
        clock.pump([STATUS_SECONDS] * 3)
        told.stop()
        globalLogPublisher.removeObserver(logged)
        assert len(logged.lines("cannot be told")) == 2


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getppid())}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "9" * 20}, (10**20 - 1) / 1e6),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
        ({"WATCHDOG_USEC": "\u0663"}, None),
    ],
)
def test_what_the_watchdog_allows(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environ) == seconds


class TestRelay:
    def test_from_its_start_to_its_end(
        self, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / manager.name))
        with Relay() as relay:
            assert manager.hear() == "READY=1"
            assert relay.connect(), "it serves by then"
            assert re.match("STATUS=[01] peers?, ", manager.hear())
            relay.process.send_signal(signal.SIGHUP)
            assert manager.hear().startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert manager.hear() == "READY=1"
            relay.stop()
            assert "STOPPING=1" in manager.heard()

    def test_one_that_hangs_feeds_the_watchdog_no_more(
        self, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / manager.name))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        with Relay() as relay:
            for _ in range(3):
                manager.wait_for("WATCHDOG=1")
            relay.process.send_signal(signal.SIGSTOP)
            os.waitpid(relay.process.pid, os.WUNTRACED)  # until it stands still
            manager.heard()
            with pytest.raises(TimeoutError):
                manager.hear(SILENCE)
            relay.process.send_signal(signal.SIGCONT)
            manager.wait_for("WATCHDOG=1")
