"""What all the commands that look into a journal have in common."""

import os

import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.main import cli
from alphapulse_relay.journal.format import Epoch
from tests.cli.conftest import run
from tests.cli.journal.looking import journal
from tests.journal.writer import EPOCH


@pytest.mark.parametrize("command", ["list", "verify", "export", "stats"])
class TestEach:
    def test_help(self, command):
        shown = CliRunner().invoke(cli, ["journal", command, "--help"])
        assert shown.exit_code == 0
        assert f"signal-relay journal {command}" in shown.output
        words = " ".join(shown.output.split())
        assert "beside the socket of SIGNAL_RELAY_SOCKET, or /tmp/alphapulse/signals.sock" in words

    def test_no_directory(self, command, tmp_path):
        shown = journal(command, directory=tmp_path / "none")
        assert (shown.exit_code, shown.stdout) == (1, "")
        told = (
            f"no journal: there is no directory {tmp_path}/none: name the directory with --journal"
        )
        assert shown.stderr == f"signal-relay: {told}\n"

    def test_empty_directory(self, command, tmp_path):
        shown = journal(command, directory=tmp_path)
        assert (shown.exit_code, shown.stdout) == (1, "")
        assert "holds no journal" in shown.stderr

    def test_another_epoch(self, command, tmp_path, written):
        Epoch(5, 1, "", True).write(tmp_path)
        shown = journal(command, directory=tmp_path)
        assert (shown.exit_code, shown.stdout) == (1, "")
        assert f"0000.v2: its messages are of epoch {EPOCH}" in shown.stderr

    def test_directory_by_the_environment(self, command, tmp_path, written):
        environment = {"SIGNAL_RELAY_JOURNAL": str(tmp_path)}
        assert CliRunner().invoke(cli, ["journal", command], env=environment).exit_code == 0

    @pytest.mark.parametrize("variable", [None, ""])
    def test_directory_beside_the_socket(self, command, tmp_path, written, variable):
        (tmp_path / "journal").symlink_to(tmp_path)
        socket = tmp_path / "signals.sock"
        environment = {"SIGNAL_RELAY_SOCKET": str(socket), "SIGNAL_RELAY_JOURNAL": variable}
        shown = CliRunner().invoke(cli, ["journal", command], env=environment)
        assert shown.exit_code == 0, shown.stderr

    def test_nothing_is_beside_an_abstract_socket(self, command):
        environment = {"SIGNAL_RELAY_SOCKET": "@relay", "SIGNAL_RELAY_JOURNAL": None}
        shown = CliRunner().invoke(cli, ["journal", command], env=environment)
        assert shown.exit_code == 2
        told = "There is no directory beside '@relay': name the directory with --journal."
        assert told in " ".join(shown.stderr.split())

    def test_an_argument_is_no_directory(self, command, tmp_path):
        shown = CliRunner().invoke(cli, ["journal", command, str(tmp_path)])
        assert shown.exit_code == 2
        told = " ".join(shown.stderr.replace("-\n", "-").split())
        assert "name the directory with --journal, or -j for short." in told

    def test_closed_output(self, command, tmp_path, written):
        done = run("journal", command, "-j", str(tmp_path), preexec_fn=lambda: os.close(1))
        assert (done.returncode, done.stderr) == (1, b"signal-relay: standard output is closed\n")
