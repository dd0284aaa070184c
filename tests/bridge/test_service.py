"""The bridge as a process: how it starts, what it tells its supervisor, and how it ends."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphapulse_relay.bridge.account import Loss
from tests.bridge.running import BridgeProcess, NATSServer, joining
from tests.support import FOREGROUND, TWISTD, Relay, message
from tests.test_systemd import Manager

pytest.importorskip("nats")

LEAVES_WITHIN = 3.0
"""Seconds that an end in order takes at most, whoever does not answer."""
NOBODY = "nats://127.0.0.1:1"
"""Where no server listens: a port that only root may have."""


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NATSServer]:
    with NATSServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with Relay() as relay:
        yield relay


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.chdir(tmp_path)  # an address has room for 107 bytes
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    manager = Manager("notify")
    yield manager
    manager.close()


def wait_until_ready(bridge: BridgeProcess) -> None:
    bridge.wait_until(lambda status: bool(status["ready"]))


def assert_leaves(bridge: BridgeProcess) -> None:
    began = time.monotonic()
    assert bridge.stop() == 0, bridge.log
    assert time.monotonic() - began < LEAVES_WITHIN
    assert not any("Traceback" in line or "Unhandled" in line for line in bridge.log), bridge.log


class TestRunning:
    def test_who_asks_is_told(self, relay: Relay, nats: NATSServer, tmp_path: Path) -> None:
        with BridgeProcess(tmp_path, *joining(relay.socket, nats.url)) as bridge:
            wait_until_ready(bridge)
            sender = relay.connect()
            sender.send(message(20, 1))
            bridge.wait_until(lambda status: status["outward"]["messages"] == 1)
            assert bridge.get("/healthz") == (200, "alive\n")
            assert bridge.get("/readyz") == (200, "ready\n")
            figures = bridge.metrics()
            assert figures["signal_relay_bridge_messages_total", "outward"] == 1
            assert figures["signal_relay_bridge_bytes_total", "outward"] == 216
            assert figures["signal_relay_bridge_ready", ""] == 1
            assert figures["signal_relay_bridge_publish_seconds", ""] > 0
            assert {reason for name, reason in figures if name.endswith("lost_total")} == set(Loss)
            sender.close()
            assert_leaves(bridge)

    def test_the_service_manager_is_told(
        self, relay: Relay, nats: NATSServer, tmp_path: Path, manager: Manager
    ) -> None:
        with BridgeProcess(tmp_path, *joining(relay.socket, nats.url)) as bridge:
            assert manager.hear() == "READY=1"
            assert manager.hear().startswith("STATUS=not ready: ")
            manager.wait_for("WATCHDOG=1")
            assert_leaves(bridge)
            assert "STOPPING=1" in manager.heard()

    @pytest.mark.parametrize(("options", "least"), [((), 10), (("--nice", "19"), 19)])
    def test_others_come_first(
        self, relay: Relay, tmp_path: Path, options: tuple[str, ...], least: int
    ) -> None:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        if own >= least:
            pytest.skip(f"the tests have a nice value of {own} themselves")
        with BridgeProcess(tmp_path, *joining(relay.socket, NOBODY), *options) as bridge:
            threads = [*Path(f"/proc/{bridge.process.pid}/task").iterdir()]
            found = {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads}
            assert found == {least}

    def test_unless_they_need_not(self, relay: Relay, tmp_path: Path) -> None:
        options = (*joining(relay.socket, NOBODY), "--nice", "0")
        with BridgeProcess(tmp_path, *options) as bridge:
            own = os.getpriority(os.PRIO_PROCESS, 0)
            assert os.getpriority(os.PRIO_PROCESS, bridge.process.pid) == own

    def test_a_hangup_has_the_log_opened_again(self, relay: Relay, tmp_path: Path) -> None:
        log = tmp_path / "bridge.log"
        python = (*FOREGROUND, f"--logfile={log}")
        options = joining(relay.socket, NOBODY)
        bridge = BridgeProcess(tmp_path, *options, python=python)
        bridge.start()
        wait_for(log, "joins")
        log.rename(tmp_path / "old.log")
        bridge.process.send_signal(signal.SIGHUP)
        wait_for(log, "SIGHUP: the log was opened again; settings need a restart")
        assert bridge.stop() == 0
        bridge.__exit__()

    def test_no_side_port(self, relay: Relay, tmp_path: Path) -> None:
        options = (*joining(relay.socket, NOBODY), "--web", "none")
        with BridgeProcess(tmp_path, *options) as bridge:
            assert_leaves(bridge)
            assert "QuietSite" not in "".join(bridge.log)


def wait_for(log: Path, text: str) -> None:
    """Wait until a file has a text: nobody tells when."""
    deadline = time.monotonic() + 30
    while not log.exists() or text not in log.read_text():
        assert time.monotonic() < deadline, log.exists() and log.read_text()
        time.sleep(0.02)


class TestEnd:
    def test_without_nats(self, relay: Relay, tmp_path: Path) -> None:
        with BridgeProcess(tmp_path, *joining(relay.socket, NOBODY)) as bridge:
            bridge.wait_until(lambda status: status["relay"]["trouble"] is None)
            status, body = bridge.get("/readyz")
            assert status == 503
            assert body.startswith("not ready: no NATS: ")
            assert_leaves(bridge)

    def test_without_a_relay(self, nats: NATSServer, tmp_path: Path) -> None:
        with BridgeProcess(tmp_path, *joining(tmp_path / "none.sock", nats.url)) as bridge:
            status, body = bridge.get("/readyz")
            assert status == 503
            assert body.startswith("not ready: no relay: ")
            assert bridge.get("/healthz")[0] == 200
            assert_leaves(bridge)

    def test_when_there_is_no_relay_yet(self, tmp_path: Path) -> None:
        """Nor the directory that the relay makes for its socket, where the state goes, too."""
        directory = tmp_path / "later"
        (tmp_path / "b").mkdir()
        options = joining(directory / "s.sock", NOBODY)
        with BridgeProcess(tmp_path / "b", *options) as bridge:
            bridge.wait_for_log("no relay yet: it makes the directory of its socket")
            directory.mkdir()
            with Relay(directory=directory):
                bridge.wait_for_log("connected to the relay")
            assert (directory / "bridge-desk.state").exists()

    def test_when_nats_has_gone(self, relay: Relay, tmp_path: Path) -> None:
        with (
            NATSServer(tmp_path) as server,
            BridgeProcess(tmp_path, *joining(relay.socket, server.url)) as bridge,
        ):
            wait_until_ready(bridge)
            server.stop()
            bridge.wait_until(lambda status: status["nats"]["trouble"] is not None)
            assert_leaves(bridge)

    def test_when_nats_does_not_answer(self, relay: Relay, tmp_path: Path) -> None:
        with (
            NATSServer(tmp_path) as server,
            BridgeProcess(tmp_path, *joining(relay.socket, server.url)) as bridge,
        ):
            wait_until_ready(bridge)
            server.freeze()
            sender = relay.connect()
            sender.send(message(20, 1))
            bridge.wait_until(lambda status: status["outward"]["waiting_messages"] == 1)
            assert_leaves(bridge)
            sender.close()

    def test_by_a_second_signal_nothing_changes(self, relay: Relay, tmp_path: Path) -> None:
        with BridgeProcess(tmp_path, *joining(relay.socket, NOBODY)) as bridge:
            bridge.process.send_signal(signal.SIGINT)
            assert_leaves(bridge)

    def test_when_the_state_cannot_be_kept_any_more(self, tmp_path: Path) -> None:
        place = tmp_path / "state"
        place.mkdir()
        options = (*joining(tmp_path / "s.sock", NOBODY), "--state", str(place / "desk.state"))
        with BridgeProcess(tmp_path, *options) as bridge:
            (place / "desk.state").unlink()
            place.rmdir()
            with Relay(directory=tmp_path):
                bridge.wait_for_log("cannot go on: .*desk.state cannot be written")
                assert bridge.process.wait(30) == os.EX_IOERR


class TestStart:
    """What is in the way is told in one line, with status 78: another start would not help."""

    def fail(self, bridge: BridgeProcess) -> str:
        """Return the line."""
        status, said = bridge.end()
        assert status == os.EX_CONFIG, said
        assert "Traceback" not in said
        (line,) = [line for line in said.splitlines() if line.startswith("signal-relay-bridge: ")]
        return line.removeprefix("signal-relay-bridge: ")

    def test_the_side_port_is_in_use(self, relay: Relay, tmp_path: Path) -> None:
        web = f"tcp:{relay.port}:interface=127.0.0.1"
        options = (*joining(relay.socket, NOBODY), "--web", web)
        line = self.fail(BridgeProcess(tmp_path, *options))
        assert line == f"--web {web}: cannot listen: Address already in use"

    def test_a_file_that_is_no_state_stays(self, relay: Relay, tmp_path: Path) -> None:
        state = tmp_path / "desk.state"
        state.write_text("precious")
        options = (*joining(relay.socket, NOBODY), "--state", str(state))
        line = self.fail(BridgeProcess(tmp_path, *options))
        assert line == f"--state: {state} is not a bridge's state: move it away"
        assert state.read_text() == "precious"

    def test_no_place_for_the_state(self, relay: Relay, tmp_path: Path) -> None:
        state = tmp_path / "nowhere" / "desk.state"
        options = (*joining(relay.socket, NOBODY), "--state", str(state))
        line = self.fail(BridgeProcess(tmp_path, *options))
        assert line.startswith(f"--state: {state} cannot be written: ")

    def test_the_client_of_nats_is_missing(self, relay: Relay, tmp_path: Path) -> None:
        without = f"import sys; sys.modules['nats'] = None; {TWISTD}"
        python = ("-c", without, *FOREGROUND[2:])
        options = joining(relay.socket, NOBODY)
        line = self.fail(BridgeProcess(tmp_path, *options, python=python))
        assert line.endswith("pip install 'alphapulse-signal-relay[bridge]'")

    def test_help_does_without_it(self, tmp_path: Path) -> None:
        without = f"import sys; sys.modules['nats'] = None; {TWISTD}"
        bridge = BridgeProcess(tmp_path, "--help", python=("-c", without, *FOREGROUND[2:]))
        status, said = bridge.end()
        assert status == 0
        assert "--create-stream" in said


def test_a_daemon_tells_its_caller(relay: Relay, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        web = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        python = ("-c", TWISTD, "--pidfile=", f"--logfile={tmp_path / 'log'}")
        options = (*joining(relay.socket, NOBODY), "--web", web)
        status, said = BridgeProcess(tmp_path, *options, python=python).end()
    assert status == 1
    assert f"--web {web}: cannot listen: " in said
