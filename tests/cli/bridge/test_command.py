"""The command on a real relay, a real NATS server and bridges between them."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alphapulse_relay.bridge.option_table import BRIDGE
from alphapulse_relay.cli.main import cli
from alphapulse_relay.client.blocking import Client
from alphapulse_relay.client.core import NOTHING
from tests.bridge.joined import head, journal
from tests.bridge.running import BridgeProcess, joining
from tests.cli.conftest import ROOT, run
from tests.support import PATIENCE, Relay, message

NUMBERS = itertools.count()
WELL = ("relay", "NATS", "JetStream", "stream", "name", "outward", "relays", "inward")


def check(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(cli, ["bridge", "--check", *arguments], **options)


def publish(relay: Relay, *sent: bytes) -> None:
    """Send messages, and return when the relay has them in its journal."""
    with Client(relay.socket, types=NOTHING, acknowledge=True) as client:
        for each in sent:
            client.publish(each)


def findings(*arguments: str) -> dict[str, dict[str, str]]:
    """Return what is found, by check."""
    shown = check("--json", *arguments)
    document = json.loads(shown.stdout)
    assert shown.exit_code == (1 if document["counts"]["wrong"] else 0)
    return {each["check"]: each for each in document["findings"]}


class TestUsage:
    def test_help(self) -> None:
        shown = CliRunner().invoke(cli, ["bridge", "--help"])
        assert shown.exit_code == 0
        assert all(f"--{option.name}" in shown.output for option in BRIDGE.options)

    def test_it_does_not_run_the_bridge(self) -> None:
        shown = CliRunner().invoke(cli, ["bridge"])
        assert shown.exit_code == 2
        assert "twistd -n signal-relay-bridge" in shown.stderr

    @pytest.mark.parametrize("arguments", [["--hodl", "1"], ["more"]])
    def test_what_is_no_option(self, arguments: list[str]) -> None:
        assert check(*arguments).exit_code == 2

    def test_what_a_bridge_would_not_take(self) -> None:
        shown = check("--replicas", "9", "--create-stream")
        assert shown.exit_code == 1
        assert "a bridge would not start: --replicas: '9' is not a number" in shown.stdout

    def test_options_from_file_and_environment(self, tmp_path: Path) -> None:
        file = tmp_path / "bridge.toml"
        file.write_text('name = "all"\n')
        shown = check(env={"SIGNAL_RELAY_BRIDGE_CONFIG": str(file)})
        assert f"--name (from {file}): 'all' is not a name" in shown.stdout


def test_without_the_client_of_nats(short_path: Path) -> None:
    code = "import sys; sys.modules['nats'] = None; from alphapulse_relay.cli.main import main\n"
    command = [sys.executable, "-c", f"{code}main()", "bridge", "--check"]
    where = ["--relay", str(short_path / "s.sock"), "--name", "desk"]
    done = subprocess.run(
        [*command, *where], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "Python's package nats is missing" in done.stdout
    assert f"no relay at {short_path}/s.sock" in done.stdout
    assert "cannot be looked at" not in done.stdout


def test_completes_options_of_the_bridge() -> None:
    asked = {
        "_SIGNAL_RELAY_COMPLETE": "bash_complete",
        "COMP_WORDS": "signal-relay bridge --replicas ",
        "COMP_CWORD": "3",
    }
    assert run(env=os.environ | asked).stdout == b"plain,1\nplain,3\nplain,5\n"


@pytest.fixture(scope="module")
def relays() -> Iterator[tuple[Relay, Relay]]:
    pytest.importorskip("nats")
    with Relay() as one, Relay() as other:
        yield one, other


@pytest.fixture
def where(relays: tuple[Relay, Relay], nats_url: str) -> list[tuple[str, ...]]:
    """The options of two bridges, which have a stream of their own."""
    number = next(NUMBERS)
    own = ("--stream", f"B{number}", "--subject", f"b{number}", "--max-bytes", "1M")
    return [
        (*joining(relay.socket, nats_url, name), *own, "--state", f"{relay.directory}/{number}")
        for relay, name in zip(relays, ("one", "other"), strict=True)
    ]


class TestRunning:
    """Two relays, joined by a stream."""

    def test_before_the_first_start(self, where: Any, relays: tuple[Relay, Relay]) -> None:
        before = sorted(relays[0].directory.iterdir())
        first, again = findings(*where[0]), findings(*where[0])
        assert "would be made" in first["stream"]["what"]
        assert again["stream"] == first["stream"], "it was not made"
        assert first["state"]["verdict"] == "note"
        assert "first start" in first["outward"]["what"]
        assert sorted(relays[0].directory.iterdir()) == before
        assert all(each["verdict"] != "wrong" for each in first.values())

    def test_while_it_runs_and_after(self, where: Any, relays: tuple[Relay, Relay]) -> None:
        one, other = relays
        since = head(other.socket)
        with (
            BridgeProcess(one.directory, *where[0]) as first,
            BridgeProcess(other.directory, *where[1]) as second,
        ):
            for bridge in (first, second):
                bridge.wait_until(lambda status: bool(status["ready"]))
            publish(one, message(20, 1))
            second.wait_until(lambda status: status["inward"]["messages"] == 1)
            running = findings(*where[1])
            after = [bridge.wait_until(lambda _: True) for bridge in (first, second)]
        assert all(running[name]["verdict"] == "ok" for name in WELL)
        assert "asks for more just now" in running["inward"]["what"]
        assert "would come here: one (1)" in running["relays"]["what"]
        assert all(status["relay"]["connections"] <= 2 for status in after), "none was disturbed"
        assert all(status["ready"] for status in after)
        assert len(journal(other.socket, since)) == 1

    def test_what_waits(self, where: Any, relays: tuple[Relay, Relay]) -> None:
        """What is told before a start is what the bridge does then."""
        one, other = relays
        with (
            BridgeProcess(one.directory, *where[0]) as first,
            BridgeProcess(other.directory, *where[1]) as second,
        ):
            for bridge in (first, second):
                bridge.wait_until(lambda status: bool(status["ready"]))
        publish(one, message(20, 10))
        waits = findings(*where[0])["outward"]
        assert "before the head" in waits["what"]
        with BridgeProcess(one.directory, *where[0]) as bridge:
            bridge.wait_until(lambda status: status["outward"]["messages"] == 1)
        inward = findings(*where[1])["inward"]
        assert "1 NATS message to come" in inward["what"]
        assert findings(*where[1])["inward"] == inward, "none of it was taken"

    def test_two_relays_of_one_name(self, where: Any, relays: tuple[Relay, Relay]) -> None:
        one, other = relays
        with BridgeProcess(one.directory, *where[0]) as bridge:
            bridge.wait_until(lambda status: bool(status["ready"]))
            publish(one, message(20, 1))
            bridge.wait_until(lambda status: status["outward"]["messages"] == 1)
        found = findings(*where[0], "--relay", str(other.socket), "--state", where[1][-1])
        assert found["name"]["verdict"] == "wrong"
        assert "another relay is called so" in found["name"]["what"]

    def test_a_journal_that_has_not_kept_it(self, where: Any, tmp_path: Path) -> None:
        with Relay("--journal-size", "3M", "--max-message", "64K") as small:
            options = (*where[0], "--relay", str(small.socket), "--state", str(tmp_path / "s"))
            with BridgeProcess(tmp_path, *options) as bridge:
                bridge.wait_until(lambda status: bool(status["ready"]))
            big = [message(20, number, 65_000) for number in range(1, 80)]
            publish(small, *big)
            found = findings(*options)
        assert found["outward"]["verdict"] == "wrong"
        assert "would not cross (relay_gap: retention)" in found["outward"]["what"]


def test_looks_like_a_table(short_path: Path) -> None:
    pytest.importorskip("nats")
    where = ("--relay", str(short_path / "s.sock"), "--nats", "nats://127.0.0.1:1")
    shown = check(*where, "--name", "desk")
    assert shown.exit_code == 1
    lines = shown.stdout.splitlines()
    assert lines[0] == "ok     settings         a bridge would take these options"
    assert any(line.startswith("wrong  relay            no relay at ") for line in lines)
    assert lines[-1] == "2 wrong, 1 note, 2 in order"
    assert "\x1b" not in shown.stdout
