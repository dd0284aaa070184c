"""SIGHUP: what changes, what needs a restart, and that what is wrong changes nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alphapulse_relay.option_sources import OptionError
from alphapulse_relay.option_table import OPTIONS
from alphapulse_relay.options import settings_from
from alphapulse_relay.protocol_v2.control import ErrorCode, parse_error
from alphapulse_relay.reload import Reload, read_again
from tests.support import FOREGROUND, PATIENCE, TWISTD, Relay, clean_environment, message

TOKEN = "0123456789abcdef"


class File:
    """A configuration file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write()

    def write(self, **values: object) -> None:
        lines = [f"{name.replace('_', '-')} = {json.dumps(v)}" for name, v in values.items()]
        self.path.write_text("\n".join(lines))

    def read_again(self, before: Any) -> Reload:
        return read_again(before, {"config": str(self.path)}, {})

    def settings(self) -> Any:
        return settings_from({"config": str(self.path)}, {})


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "relay.toml")


class TestReadAgain:
    def test_nothing_new(self, file: File) -> None:
        before = file.settings()
        assert file.read_again(before) == Reload(before, [], [])

    def test_what_a_running_relay_can_take(self, file: File) -> None:
        before = file.settings()
        file.write(hold=3, log_level="debug")
        settings, changed, restart = file.read_again(before)
        assert (settings.hold, settings.log_level) == (3.0, "debug")
        assert (changed, restart) == (["--hold", "--log-level"], [])

    def test_what_needs_a_restart_stays_and_is_named_each_time(self, file: File) -> None:
        before = file.settings()
        file.write(socket="/tmp/other.sock", journal="none", hold=3)
        settings, changed, restart = file.read_again(before)
        assert (settings.socket, settings.journal) == (before.socket, before.journal)
        assert (changed, restart) == (["--hold"], ["--socket", "--journal"])
        assert file.read_again(settings)[1:] == ([], ["--socket", "--journal"])

    def test_a_flag_still_wins(self, file: File) -> None:
        flags: dict[str, str | list[str]] = {"config": str(file.path), "hold": "2"}
        before = settings_from(flags, {})
        file.write(hold=3)
        assert read_again(before, flags, {}).settings.hold == 2.0

    def test_a_token_that_was_renewed(self, file: File) -> None:
        token = file.path.with_name("token")
        token.write_text(TOKEN)
        token.chmod(0o600)
        file.write(web_token_file=str(token))
        before = file.settings()
        token.write_text(TOKEN[::-1])
        settings, changed, _ = file.read_again(before)
        assert settings.web_token_file == TOKEN[::-1]
        assert changed == ["--web-token-file"]

    def test_a_wrong_value_of_what_needs_a_restart(self, file: File) -> None:
        before = file.settings()
        file.write(backlog="1K")
        with pytest.raises(OptionError, match="--backlog"):
            file.read_again(before)

    def test_rules_that_the_socket_of_now_needs(self, file: File) -> None:
        """An abstract one has no permissions, whatever socket there is after a restart."""
        rules = '[[access]]\nname = "own"\nuid = [0]\n'
        file.path.write_text(f'socket = "@relay"\njournal = "none"\n{rules}')
        before = file.settings()
        file.path.write_text('socket = "/tmp/other.sock"\n')
        with pytest.raises(OptionError, match=r"--socket \(until a restart\): '@relay' is an abst"):
            file.read_again(before)
        file.path.write_text(f'socket = "/tmp/other.sock"\n{rules}')
        assert file.read_again(before) == Reload(before, [], ["--socket", "--journal"])


def test_which_options_are_read_again() -> None:
    """As docs/operations.md lists them."""
    document = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
    (table,) = re.findall(r"^\| read again \|.*\n((?:\|.*\n)+)", document, re.M)
    cells = "".join(line.split("|")[1] for line in table.splitlines())
    listed = re.findall(r"`--([a-z-]+)`", cells)
    assert sorted(listed) == sorted(option.name for option in OPTIONS if option.reload)


@pytest.fixture
def running(file: File) -> Iterator[Relay]:
    with Relay("--config", str(file.path)) as relay:
        yield relay


def reload(relay: Relay) -> str:
    """Send SIGHUP; return the last line that the relay writes about it."""
    relay.process.send_signal(signal.SIGHUP)
    return relay.wait_for_log("SIGHUP: (nothing was changed|settings and certificates)")


HASTY = """
import os, signal
from alphapulse_relay import service
make = service.makeService
def make_and_hang_up(options):
    relay = make(options)
    os.kill(os.getpid(), signal.SIGHUP)
    return relay
service.makeService = make_and_hang_up
"""
"""Sends SIGHUP to itself once there is a relay, long before that serves."""


class TestRelay:
    def test_before_it_has_started(self) -> None:
        with Relay(
            "--web", "none", program=(sys.executable, "-c", HASTY + TWISTD, *FOREGROUND[2:])
        ) as relay:
            relay.wait_for_log("SIGHUP: settings and certificates were read again")
            relay.connect()

    def test_the_log_level(self, running: Relay, file: File) -> None:
        reader, sender = running.connect(), running.connect()
        file.write(log_level="debug")
        assert reload(running).endswith("changed: --log-level\n")
        sender.send(message(20, 1))
        running.wait_for_log("forwarded message: sender 2")
        file.write(log_level="warn", backlog="128M")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_log("needs a restart: --backlog")
        sender.send(message(20, 2))
        reader.receive(2 * 216)
        running.stop()
        log = "".join(running.log)
        assert log.count("forwarded message") == 1
        assert "SIGTERM: leaving" not in log

    def test_peers(self, running: Relay, file: File) -> None:
        one, two = running.connect(), running.connect()
        file.write(max_peers=1)
        assert reload(running).endswith("changed: --max-peers\n")
        told = parse_error(running.connect(joined=False).receive_all())
        assert told
        assert told.code == ErrorCode.TOO_MANY_PEERS
        one.send(message(20, 1))
        assert two.receive(216), "who is connected stays"
        file.write(max_peers=3)
        reload(running)
        running.connect()

    def test_the_side_port(self, running: Relay, file: File) -> None:
        token = file.path.with_name("token")
        token.write_text(TOKEN)
        token.chmod(0o600)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        host = {"Host": "desk.example"}
        assert running.get("/api/status", **bearer)[0] == 403
        assert running.get("/api/status", **host)[0] == 403
        file.write(web_token_file=str(token), web_origin=["https://desk.example"])
        assert reload(running).endswith("changed: --web-origin, --web-token-file\n")
        assert running.get("/api/status", **bearer)[0] == 200
        assert running.get("/api/status", **host)[0] == 200

    def test_access(self, running: Relay, file: File) -> None:
        assert ", no access rules, " in "".join(running.log)
        running.connect()
        file.path.write_text('[[access]]\nname = "another"\nuid = [4294967294]')
        assert reload(running).endswith("changed: access\n")
        assert "peer disconnected: 1 " in "".join(running.log)
        file.path.write_text('[[access]]\nname = "all"\n')
        reload(running)
        running.connect()

    def test_drain(self, running: Relay, file: File) -> None:
        stalled, sender = running.connect(), running.connect()
        sender.send(b"".join(message(20, number, 60_000) for number in range(1, 17)))
        running.wait_until(lambda now: now["peers"][0]["state"] == "behind")
        file.write(drain=0)
        reload(running)
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_log("peer disconnected: 1 .* reason=cut")
        assert running.stop(0) == 0
        assert len(stalled.receive_all()) < 16 * 60_000

    def test_the_core(self, file: File) -> None:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            pytest.skip("this machine has one core")
        file.write(cpu=cores[0])
        with Relay("--config", str(file.path), "--web", "none") as relay:
            file.write(cpu=cores[1], hold=3)
            relay.process.send_signal(signal.SIGHUP)
            assert relay.wait_for_log("needs a restart").endswith("restart: --cpu\n")
            assert relay.wait_for_log("SIGHUP: settings").endswith("changed: --hold\n")

    def test_what_needs_a_restart_is_one_line(self, running: Relay, file: File) -> None:
        file.write(validate="strict", cpu="none", backlog="128M")
        running.process.send_signal(signal.SIGHUP)
        line = running.wait_for_log("SIGHUP: needs a restart")
        assert line.endswith("restart: --validate, --backlog\n")
        assert running.wait_for_log("SIGHUP: settings").endswith("changed: nothing else\n")
        assert running.status()["settings"]["restart"] == ["--validate", "--backlog"]

    def test_the_status_tells_when_they_were_read(self, running: Relay, file: File) -> None:
        def read_at() -> float:
            at = running.status()["settings"]["read_at"]
            assert isinstance(at, float)
            return at

        started = read_at()
        assert started <= time.time()
        file.write(max_peers=0)
        reload(running)
        assert read_at() == started, "nothing was changed"
        file.write(max_peers=7)
        reload(running)
        assert started < read_at() <= time.time()

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("hold = 3\nmax-peers = 0", "--max-peers"),
            ("hold = [", "is not TOML"),
            ("held = 3", "unknown key 'held'"),
            (None, "cannot read"),
        ],
    )
    def test_a_wrong_file_changes_nothing(
        self, running: Relay, file: File, content: str | None, told: str
    ) -> None:
        if content is None:
            file.path.unlink()
        else:
            file.path.write_text(content)
        line = reload(running)
        assert "SIGHUP: nothing was changed: " in line
        assert told in line
        file.write(hold=1)
        assert reload(running).endswith("changed: nothing\n")


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline


def test_a_log_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    with Relay() as other:  # for a short directory
        log, moved = tmp_path / "relay.log", tmp_path / "relay.log.old"
        twistd = ["-n", "--pidfile=", "--logfile", str(log), "signal-relay"]
        options = ["--socket", str(other.directory / "o.sock"), "--web=none", "--journal=none"]
        process = subprocess.Popen(
            [sys.executable, "-c", TWISTD, *twistd, *options], env=clean_environment()
        )
        wait_for(lambda: log.exists() and " serves " in log.read_text())
        log.rename(moved)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: log.exists() and "SIGHUP: settings" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert "SIGTERM: leaving" in log.read_text()
        assert "SIGHUP" not in moved.read_text()
