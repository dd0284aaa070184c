"""Scripts for shells, and what they are given."""

import os
import shutil
import subprocess

import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.main import cli
from tests.cli.conftest import COMMAND, ROOT, run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script(shell):
    done = run("completion", shell)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert f"_SIGNAL_RELAY_COMPLETE={shell}_complete" in done.stdout.decode()
    assert lines[-1].startswith("# To install: ")
    assert f"signal-relay completion {shell}" in lines[-1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_accepts_the_script(shell):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    script = run("completion", shell).stdout
    subprocess.run([program, "-n"], input=script, check=True)


def test_unknown_shell():
    shown = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert shown.exit_code == 2


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("signal-relay st", {"status"}),
        ("signal-relay be", {"bench"}),
        ("signal-relay tail --lay", {"--layouts"}),
        ("signal-relay send --type Arb", {"ArbitrageSignal"}),
        ("signal-relay completion z", {"zsh"}),
        ("signal-relay do", {"doctor"}),
        ("signal-relay doctor --js", {"--json"}),
        ("signal-relay doctor --journal-s", {"--journal-size"}),
        ("signal-relay config --validate s", {"strict"}),
        ("signal-relay br", {"bridge"}),
        ("signal-relay bridge --take-f", {"--take-from"}),
        ("signal-relay bridge --replicas 3", {"3"}),
    ],
)
def test_completes(words, offered):
    asked = {
        "_SIGNAL_RELAY_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    environment = os.environ | asked
    done = subprocess.run(COMMAND, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert {line.split(",")[1] for line in done.stdout.decode().splitlines()} == offered
