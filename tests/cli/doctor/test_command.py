"""The command on real relays: one that is well, then one broken thing at a time."""

import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alphapulse_relay.cli.main import cli
from tests.cli.conftest import run
from tests.support import Relay, messages

OTHER = 54321
"""A user, and a group, that nobody has."""


def doctor(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(cli, ["doctor", *arguments], **options)


def wrong(relay: Relay, *arguments: str) -> dict[str, str]:
    """Return what is wrong with a relay, by the check that has found it."""
    where = ["--socket", str(relay.socket), "--url", f"http://127.0.0.1:{relay.port}"]
    shown = doctor(*where, "--json", *arguments)
    findings = json.loads(shown.stdout)["findings"]
    found = {each["check"]: each["what"] for each in findings if each["verdict"] == "wrong"}
    assert shown.exit_code == (1 if found else 0), shown.stderr
    assert all(each["mend"] for each in findings if each["verdict"] == "wrong")
    return found


@pytest.fixture(scope="module")
def shared() -> Iterator[Relay]:
    """A relay that must be left as it was found."""
    with Relay() as relay:
        publisher, consumer = relay.connect(), relay.connect()
        sent = messages(20, 5)
        publisher.send(b"".join(sent))
        assert consumer.messages(5) == sent
        yield relay


class TestRunning:
    def test_well(self, shared: Relay) -> None:
        assert wrong(shared) == {}

    def test_looks_like_a_table(self, shared: Relay) -> None:
        where = ["--socket", str(shared.socket), "--url", f"127.0.0.1:{shared.port}"]
        shown = doctor(*where)
        assert shown.exit_code == 0
        assert f"ok     listener         pid {shared.process.pid} of " in shown.stdout
        assert "2 peers, all keep up" in shown.stdout
        assert shown.stdout.splitlines()[-1].startswith("0 wrong, ")
        assert "\x1b" not in shown.stdout

    def test_is_no_peer(self, shared: Relay) -> None:
        before = shared.status()["counters"]["connections"]["accepted"]
        assert wrong(shared) == {}
        assert shared.status()["counters"]["connections"]["accepted"] == before

    def test_directory_that_others_can_write_to(self, shared: Relay) -> None:
        shared.directory.chmod(0o777)
        try:
            assert set(wrong(shared)) == {"directory", "journal"}, "the journal lies in it"
        finally:
            shared.directory.chmod(0o700)

    def test_few_descriptors(self, shared: Relay) -> None:
        which = shared.process.pid, resource.RLIMIT_NOFILE
        before = resource.prlimit(*which, (400, resource.prlimit(*which)[1]))
        try:
            assert "44 peers fit, --max-peers is 10000" in wrong(shared)["open files"]
        finally:
            resource.prlimit(*which, before)

    def test_another_side_port(self, shared: Relay) -> None:
        found = wrong(shared, "--url", "http://127.0.0.1:1")
        assert found["side port"].startswith("no answer from http://127.0.0.1:1/api/status")

    def test_another_journal(self, shared: Relay, tmp_path: Path) -> None:
        assert "is not there, but" in wrong(shared, "--journal", str(tmp_path / "x"))["journal"]

    def test_open_token(self, shared: Relay, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("a-token.of_sixteen~or-more\n")
        token.chmod(0o644)
        assert set(wrong(shared, "--web-token-file", str(token))) == {"settings", "token"}

    @pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
    def test_another_user(self, shared: Relay) -> None:
        """What this user may not look at is a note; that it may not connect is wrong."""
        shared.directory.chmod(0o755)
        assert wrong(shared) == {}  # all that is to be imported is
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(OTHER)
        os.seteuid(OTHER)
        try:
            found = wrong(shared)
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)
            shared.directory.chmod(0o700)
        assert set(found) == {"permission"}

    def test_file_that_is_wrong(self, shared: Relay, tmp_path: Path) -> None:
        config = tmp_path / "relay.toml"
        config.write_text("hodl = 1\n")
        found = wrong(shared, "--config", str(config))
        assert found == {"settings": f"--config: {config}: unknown key 'hodl': did you mean hold?"}


class TestFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "relay.toml"
        path.write_text('socket-mode = "666"\n')
        return path

    @pytest.fixture
    def running(self, file: Path) -> Iterator[Relay]:
        with Relay("--config", str(file)) as relay:
            yield relay

    def notes(self, relay: Relay, file: Path) -> dict[str, str]:
        where = ["--socket", str(relay.socket), "--url", f"http://127.0.0.1:{relay.port}"]
        shown = json.loads(doctor(*where, "--config", str(file), "--json").stdout)
        return {each["check"]: each["what"] for each in shown["findings"]}

    def test_only_what_is_wrong_is_called_wrong(self, running: Relay, file: Path) -> None:
        with file.open("a") as more:
            more.write('[[access]]\nname = "desk"\nuid = ["nobody-has-this"]\n')
        assert set(wrong(running, "--config", str(file))) == {"settings"}
        assert "mode 666" in self.notes(running, file)["socket"]

    def test_changed_and_not_read(self, running: Relay, file: Path) -> None:
        assert self.notes(running, file)["file in force"] == f"the relay goes by {file}"
        file.write_text('socket-mode = "666"\nfsync = "never"\n')
        assert "was changed since" in self.notes(running, file)["file in force"]
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_log("SIGHUP: settings")
        assert self.notes(running, file)["file in force"].endswith("--fsync")

    def test_a_socket_that_was_removed(self, running: Relay, file: Path) -> None:
        running.socket.unlink()
        told = wrong(running, "--config", str(file))
        assert f"while pid {running.process.pid} listens there" in told["socket"]

    def test_stopped(self, running: Relay, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("alphapulse_relay.cli.snapshot.TIMEOUT", 0.2)
        running.process.send_signal(signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, running.process.pid, os.WSTOPPED | os.WNOWAIT)
            told = wrong(running, "--config", str(file))
        finally:
            running.process.send_signal(signal.SIGCONT)
        assert set(told) == {"listener", "side port"}
        assert all("is stopped" in what for what in told.values())


class TestKilled:
    def test_socket_and_journal_stay(self) -> None:
        with Relay() as relay:
            publisher, consumer = relay.connect(), relay.connect()
            sent = messages(20, 5)
            publisher.send(b"".join(sent))
            assert consumer.messages(5) == sent
            relay.stop(signal.SIGKILL)
            found = wrong(relay)
            assert set(found) == {"listener"}
            assert found["listener"].startswith(f"nobody listens on {relay.socket}")
            index = relay.directory / "journal" / "0000.index"
            data = index.with_suffix(".v2")
            for path in (index, data):
                content = bytearray(path.read_bytes())
                content[:64] = bytes(64)
                if path is data:
                    content[-4096:] = bytes([1]) * 4096
                path.write_bytes(content)
            assert set(wrong(relay)) == {"listener", "journal content"}


def test_no_relay(short_path: Path) -> None:
    shown = doctor("--socket", str(short_path / "s.sock"), "--web", "none")
    assert shown.exit_code == 1
    assert (
        f"wrong  socket           no relay: there is no socket {short_path}/s.sock" in shown.stdout
    )


@pytest.mark.parametrize("arguments", [["--hodl", "1"], ["--url", "ftp://x"], ["more"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert doctor(*arguments).exit_code == 2


def test_options_from_the_environment(short_path: Path) -> None:
    environment = {"SIGNAL_RELAY_SOCKET": str(short_path / "x.sock"), "SIGNAL_RELAY_WEB": "none"}
    shown = doctor("--json", env=environment)
    assert f"there is no socket {short_path}/x.sock" in shown.stdout


def test_completes_options_of_the_relay() -> None:
    asked = {
        "_SIGNAL_RELAY_COMPLETE": "bash_complete",
        "COMP_WORDS": "signal-relay doctor --validate s",
        "COMP_CWORD": "3",
    }
    done = run(env=os.environ | asked)
    assert done.stdout == b"plain,strict\n"
