"""The program as a whole: its commands, what it imports, how it is cut short."""

import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from alphapulse_relay import __version__
from alphapulse_relay.cli.main import Program, cli
from tests.cli.conftest import PATIENCE, ROOT, read_until, run


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"signal-relay {__version__}\n".encode())


@pytest.mark.parametrize(
    "command",
    ["tail", "replay", "send", "status", "bench", "journal", "doctor", "config", "completion"],
)
def test_each_command_has_help(command):
    assert command in CliRunner().invoke(cli, ["-h"]).output
    shown = CliRunner().invoke(cli, [command, "--help"])
    assert shown.exit_code == 0
    assert f"signal-relay {command}" in shown.output or command == "completion"


def test_unknown_command_is_wrong_usage():
    assert run("tial").returncode == 2


def test_rooms_that_are_not_its_business_are_not_imported():
    code = (
        "import sys, alphapulse_relay.cli.main\n"
        "names = [n for n in sys.modules if n.startswith(('twisted', 'alphapulse_relay'))]\n"
        "print({'.'.join(n.split('.')[:2]) for n in names})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert set(eval(done.stdout)) == {
        "alphapulse_relay",
        "alphapulse_relay.cli",
        "alphapulse_relay.client",
        "alphapulse_relay.descriptors",
        "alphapulse_relay.journal",
        "alphapulse_relay.protocol_v2",
        "alphapulse_relay.safe_path",
        "alphapulse_relay.small_files",
    }


def test_interrupt_before_anything_came():
    program = Program(commands=[click.Command("stop", callback=interrupted)])
    assert CliRunner().invoke(program, ["stop"]).exit_code == 130


def interrupted() -> None:
    raise KeyboardInterrupt


def test_interrupt(relay):
    with relay.consumer() as tail:
        relay.run("send", "--type", "22")
        read_until(tail.stdout.fileno(), b"\n")
        tail.send_signal(signal.SIGINT)
        assert tail.communicate(timeout=PATIENCE) == (b"", b"")
        assert tail.returncode == 130


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["tail", "-h"]])
def test_help_to_a_full_disk(arguments):
    with Path("/dev/full").open("wb") as full:
        done = run(*arguments, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.stderr == b"signal-relay: cannot go on: No space left on device\n"
    assert done.returncode == 1


def test_error_names_its_file():
    def fail() -> None:
        Path("/nothing/there").read_bytes()

    program = Program(commands=[click.Command("fail", callback=fail)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alphapulse_relay.cli.main._discard_output", lambda: None)
        shown = CliRunner().invoke(program, ["fail"])
    told = "signal-relay: cannot go on: /nothing/there: No such file or directory\n"
    assert (shown.exit_code, shown.stderr) == (1, told)
