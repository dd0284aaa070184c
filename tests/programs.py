"""Other projects' programs, for tests that are skipped where they are not installed."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.support import PATIENCE


def tool(name: str) -> str:
    """Return the path of a program; skip the test where it is not installed."""
    places = os.pathsep.join([os.environ["PATH"], "/usr/sbin", sysconfig.get_path("scripts")])
    path = shutil.which(name, path=places)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command: str | Path, given: str = "") -> str:
    """Run a command that must succeed; return all that it says."""
    done = subprocess.run(
        command,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
