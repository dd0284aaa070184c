"""How a process ends: its status, and what it says."""

import subprocess
import sys

import pytest

from tests.support import PATIENCE


def end(code: str) -> tuple[int, str, str]:
    """Run code; return the status, standard output and standard error of its process."""
    head = "from alphapulse_relay.bridge.start import *; import sys; "
    command = [sys.executable, "-c", head + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("before", ["", "sys.stderr = None; "])
def test_one_line_and_a_status(before: str) -> None:
    assert end(f"{before}exit_with('no way')") == (78, "", "signal-relay-bridge: no way\n")


def test_a_status_for_later() -> None:
    assert end("end_with(74); print('done', end='')") == (74, "done", "")
