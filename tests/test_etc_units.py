"""systemd and logrotate take what ``etc/`` has for them, and the relay lives with it."""

import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Self

import pytest

from alphapulse_relay.bridge.options import settings_from as bridge_settings
from alphapulse_relay.client.blocking import Client
from alphapulse_relay.descriptors import needed
from alphapulse_relay.options import Options, settings_from
from alphapulse_relay.protocol_v2.control import Start
from tests import sandbox
from tests.authority import SERVER, Authority
from tests.bridge.running import BridgeProcess, NATSServer, joining
from tests.programs import run, tool
from tests.support import PATIENCE, Relay, clean_environment, message
from tests.support import Client as RawClient

ETC = Path(__file__).parent.parent / "etc"
SERVICE = ETC / "systemd" / "signal-relay.service"
SOCKET = ETC / "systemd" / "signal-relay.socket"
REMOTE = ETC / "systemd" / "remote.conf"
BRIDGE = ETC / "systemd" / "signal-relay-bridge.service"
BRIDGE_USERS = ETC / "systemd" / "signal-relay-bridge.sysusers"
USERS = ETC / "systemd" / "signal-relay.sysusers"
LOGROTATE = ETC / "logrotate" / "signal-relay"
UNIT, BRIDGE_UNIT = SERVICE.read_text(), BRIDGE.read_text()
BIN, CONFIG = "/opt/signal-relay/bin", "/etc/signal-relay/signal-relay.toml"
"""Where the documents put the relay and its configuration."""
BRIDGE_CONFIG = "/etc/signal-relay/signal-relay-bridge.toml"


def setting(name: str, unit: str = UNIT) -> str:
    """Return the value of a service's one setting of that name."""
    (value,) = sandbox.settings(unit, name)
    return value


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units, as if the relay were installed in the place that they name."""
    scripts = sysconfig.get_path("scripts")
    for unit in (SERVICE, SOCKET, BRIDGE):
        (tmp_path / unit.name).write_text(unit.read_text().replace(BIN, scripts))
    return [tmp_path / unit.name for unit in (SERVICE, SOCKET, BRIDGE)]


class TestUnits:
    def test_systemd_has_nothing_to_complain_about(self, units: list[Path]) -> None:
        assert run(tool("systemd-analyze"), "verify", "--man=no", *units) == ""

    def test_systemd_takes_the_addition_for_remote_peers(self, units: list[Path]) -> None:
        additions = units[0].with_suffix(".service.d")
        additions.mkdir()
        shutil.copy(REMOTE, additions)
        assert run(tool("systemd-analyze"), "verify", "--man=no", *units) == ""

    @pytest.mark.parametrize("number", [0, 2], ids=["relay", "bridge"])
    def test_exposure_is_not_above_what_the_unit_says(self, units: list[Path], number: int) -> None:
        unit = units[number]
        said = re.search(r"rates its exposure ([\d.]+)", unit.read_text())
        assessed = run(tool("systemd-analyze"), "security", "--offline=yes", "--no-pager", unit)
        rated = re.search(r"exposure level .*: ([\d.]+)", assessed)
        assert said
        assert rated
        assert float(rated[1]) <= float(said[1])

    def test_the_users_can_be_made(self) -> None:
        said = run(tool("systemd-sysusers"), "--dry-run", USERS, BRIDGE_USERS)
        assert "ignoring" not in said

    def test_the_command_line_is_the_relays(self) -> None:
        _, _, flags = setting("ExecStart").partition(" signal-relay ")
        options = Options()
        options.parseOptions(flags.replace(CONFIG, str(ETC / "signal-relay.toml")).split())
        check, _ = sandbox.settings(UNIT, "ExecReload")
        assert check.partition(" config --check ")[2] == flags.removeprefix("--config ")
        assert f"ListenStream={options.settings.socket}\n" in SOCKET.read_text()
        assert options.settings.socket.parent == Path("/run", setting("RuntimeDirectory"))
        assert options.settings.journal
        assert options.settings.journal.parent == Path("/var/lib", setting("StateDirectory"))

    def test_the_command_line_is_the_bridges(self, tmp_path: Path) -> None:
        program, _, flags = setting("ExecStart", BRIDGE_UNIT).partition(" signal-relay-bridge ")
        config = ETC / "signal-relay-bridge.toml"
        given = flags.replace(BRIDGE_CONFIG, str(config)).split()
        names = [flag.removeprefix("--") for flag in given[::2]]
        settings = bridge_settings(dict(zip(names, given[1::2], strict=True)), {})
        assert program == f"{BIN}/twistd -n --pidfile="
        assert f"ListenStream={settings.relay}\n" in SOCKET.read_text()
        assert settings.state.parent == Path("/var/lib", setting("StateDirectory", BRIDGE_UNIT))

    def test_the_bridge_is_a_peer_of_the_relay(self) -> None:
        user = setting("User", BRIDGE_UNIT)
        assert user != setting("User")
        assert f"m {user} {setting('SocketGroup', SOCKET.read_text())}\n" in (
            BRIDGE_USERS.read_text()
        )

    def test_open_files_are_enough_for_the_default_of_peers(self) -> None:
        peers = settings_from({}, {}).max_peers
        assert int(setting("LimitNOFILE")) >= needed(peers)

    def test_the_relay_may_take_the_time_that_it_needs_to_leave(self) -> None:
        assert int(setting("TimeoutStopSec")) > 2 * settings_from({}, {}).drain


@pytest.fixture
def confined(tmp_path: Path) -> Path:
    """A Python that runs under the service's filters."""
    return confined_python(tmp_path, UNIT)


def confined_python(directory: Path, unit: str) -> Path:
    tool("systemd-analyze")
    if not sandbox.is_available():
        pytest.skip(f"{sandbox.LIBRARY} is not installed")
    (directory / "unit").write_text(unit)
    path = directory / "python"
    given_way = re.search(r"^Nice=(\d+)$", unit, re.M)
    nice = f"nice -n {given_way[1]} " if given_way else ""
    confine = f"{nice}{sys.executable} {sandbox.__file__} {directory}/unit"
    path.write_text(f'#!/bin/sh\nexec {confine} {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


class TestSandbox:
    """The relay under ``MemoryDenyWriteExecute=``, ``SystemCallFilter=`` and address families."""

    @pytest.mark.parametrize(
        "act",
        [
            "mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
            "socket.socket(socket.AF_NETLINK)",
            "os.chown('.', 0, 0)",
            "os.setpriority(os.PRIO_PROCESS, 0, 10)",
        ],
    )
    def test_what_is_forbidden_fails(self, confined: Path, act: str) -> None:
        code = f"import mmap, os, socket\ntry: {act}\nexcept PermissionError: print('denied')"
        assert run(confined, "-c", code) == "denied\n"

    def test_the_relay_does_without(self, confined: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", str(confined))  # which Relay runs
        listen = ("--listen", "tcp:0:interface=127.0.0.1")
        with Relay(*listen, "--cpu", "0", "--fsync", "always") as relay:
            status = Path(f"/proc/{relay.process.pid}/status").read_text()
            assert re.search(r"^Seccomp:\t2$", status, re.M)
            reader, remote, sender = relay.connect(), relay.connect_tcp(), relay.connect()
            sender.send(sent := message(20, 1))
            assert reader.receive(len(sent)) == remote.receive(len(sent)) == sent
            assert relay.get("/readyz")[0] == relay.get("/metrics")[0] == 200
            assert relay.stop() == 0
            assert not re.search("Traceback|not permitted", "".join(relay.log))

    def test_the_bridge_does_without(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("nats")
        with Relay() as relay, NATSServer(tmp_path) as nats:
            python = confined_python(tmp_path, BRIDGE_UNIT)
            monkeypatch.setattr(sys, "executable", str(python))
            with BridgeProcess(tmp_path, *joining(relay.socket, nats.url)) as bridge:
                status = Path(f"/proc/{bridge.process.pid}/status").read_text()
                assert re.search(r"^Seccomp:\t2$", status, re.M)
                bridge.wait_until(lambda now: bool(now["ready"]))
                relay.connect().send(message(20, 1))
                bridge.wait_until(lambda now: now["outward"]["messages"] == 1)
                assert bridge.get("/readyz")[0] == bridge.get("/metrics")[0] == 200
                assert bridge.stop() == 0
                assert not re.search("Traceback|not permitted", "".join(bridge.log))

    def test_tls_works_with_the_addition_for_remote_peers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        python = confined_python(tmp_path, UNIT + REMOTE.read_text())
        monkeypatch.setattr(sys, "executable", str(python))
        authority = Authority(tmp_path)
        shown = authority.issue("relay", "relay.example", usage=SERVER)
        desk = authority.issue("desk.example")
        listen = (
            f"mtls:0:certKey={shown.certificate}:privateKey={shown.key}:clientCA={authority.file}"
            ":interface=127.0.0.1"
        )
        with Relay("--listen", listen) as relay:
            port = re.search(r"\(TLS\) starting on (\d+)", "".join(relay.log))
            assert port
            address = (
                f"tls:127.0.0.1:{port[1]}:name=relay.example:ca={authority.file}"
                f":cert={desk.certificate}:key={desk.key}"
            )
            relay.connect().send(sent := message(20, 1))
            with Client(address, start=Start.LAST, start_value=1) as remote:
                assert remote.receive(PATIENCE).data == sent


LAUNCH = """if True:
    import os, sys
    os.dup2(int(sys.argv[1]), 3)
    os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
    os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes a command that has a socket where systemd puts it (sd_listen_fds(3))."""


class Service(Relay):
    """The relay as systemd runs the unit: its command, with a socket and an ear.

    It is in a test's directories, and in Python as ``python`` runs it.
    """

    def __init__(self, listening: socket.socket, python: Path, directory: Path) -> None:
        super().__init__(directory=directory)
        self._listening = listening
        self._python = python
        self._notify = directory / "notify"
        self._notify.unlink(missing_ok=True)
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(self._notify))
        self._words: Queue[str] = Queue()
        # All the time: few words may wait at a socket, and the relay does not wait to say one.
        self._ear = Thread(target=self._hear)
        self._ear.start()

    def command(self, line: str) -> list[str]:
        """Return a command of the unit, for this directory."""
        for installed, own in (
            (CONFIG, ETC / "signal-relay.toml"),
            ("/run/signal-relay/signals.sock", self.socket),
            ("/var/lib/signal-relay", self.directory),
        ):
            line = line.replace(installed, str(own))
        return f"{self._python} {line.replace(BIN, sysconfig.get_path('scripts'))}".split()

    def __enter__(self) -> Self:
        given = self._listening.fileno()
        (name,) = sandbox.settings(SOCKET.read_text(), "FileDescriptorName")
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(given), *self.command(setting("ExecStart"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            pass_fds=[given],
            env=clean_environment(
                LISTEN_FDS="1",
                LISTEN_FDNAMES=name,
                NOTIFY_SOCKET=str(self._notify),
                WATCHDOG_USEC="200000",
                SIGNAL_RELAY_WEB="tcp:0:interface=127.0.0.1",
            ),
        )
        try:
            self.wait_for_log("signal relay .* serves")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *others: object) -> None:
        super().__exit__(*others)
        self._told.shutdown(socket.SHUT_RD)
        self._ear.join(PATIENCE)
        self._told.close()

    def _hear(self) -> None:
        while words := self._told.recv(4096):
            self._words.put(words.decode())

    def wait_to_be_told(self, wanted: str) -> str:
        """Return the next notification that has such a line."""
        deadline = time.monotonic() + PATIENCE
        words = ""
        while not re.search(f"^{wanted}", words, re.M):
            words = self._words.get(timeout=max(deadline - time.monotonic(), 0.001))
        return words


class TestService:
    @pytest.fixture
    def start(self, confined: Path) -> Iterator[Callable[[], Service]]:
        """Make a service on the socket of the test, under the unit's filters."""
        with (
            tempfile.TemporaryDirectory(prefix="relay-") as name,
            socket.socket(socket.AF_UNIX) as listening,
        ):
            listening.bind(f"{name}/s.sock")
            listening.listen()
            yield lambda: Service(listening, confined, Path(name))

    def test_who_comes_while_it_restarts_waits(self, start: Callable[[], Service]) -> None:
        with start() as first:
            assert first.stop() == 0
        waiting = RawClient(first.socket)
        waiting.send(message(20, 1))
        with start() as second:
            second.wait_until(lambda now: now["counters"]["messages_received"] == 1)
        waiting.close()
        assert second.socket.is_socket()

    def test_systemd_is_told(self, start: Callable[[], Service]) -> None:
        with start() as service:
            service.wait_to_be_told("READY=1")
            service.wait_to_be_told("STATUS=0 peers")
            service.wait_to_be_told("WATCHDOG=1")
            check, reload = sandbox.settings(UNIT, "ExecReload")
            assert "is in order" in run(*service.command(check))
            run(*reload.replace("$MAINPID", str(service.process.pid)).split())
            assert "MONOTONIC_USEC=" in service.wait_to_be_told("RELOADING=1")
            service.wait_to_be_told("READY=1")
            service.process.terminate()
            service.wait_to_be_told("STOPPING=1")
            assert service.process.wait(PATIENCE) == 0


class TestLogRotation:
    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        return tmp_path / "relay.log"

    @pytest.fixture
    def rotation(self, log: Path, tmp_path: Path) -> list[str | Path]:
        """The arguments by which logrotate takes the log of the test."""
        path = tmp_path / "logrotate"
        path.write_text(LOGROTATE.read_text().replace("/var/log/signal-relay", str(log.parent)))
        path.chmod(0o644)
        return ["--state", tmp_path / "state", path]

    def test_logrotate_has_nothing_to_complain_about(
        self, log: Path, rotation: list[str | Path]
    ) -> None:
        log.write_text("a line\n")
        said = run(tool("logrotate"), "--debug", *rotation)
        assert f"considering log {log}" in said
        assert not re.search(r"error|warning(?!: logrotate in debug mode)", said)

    def test_what_is_logged_later_is_in_the_new_file(
        self, log: Path, rotation: list[str | Path]
    ) -> None:
        """As the relay's standard output is where systemd, or a shell, has it appended."""
        with log.open("a") as out:
            out.write("old\n")
            out.flush()
            run(tool("logrotate"), "--force", *rotation)
            out.write("new\n")
        assert log.read_text() == "new\n"
        assert Path(f"{log}.1").read_text() == "old\n"
