"""The choice between compiled and pure Python: compiled wherever it can be, and is wanted."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from alphapulse_relay.protocol_v2.native import SWITCH, load
from tests.support import clean_environment

MODULES = ("alphapulse_relay.protocol_v2._scan", "alphapulse_relay.hub._fanout")
PURE = os.environ.get(SWITCH, "") not in {"", "0"}
BUILDS = bool(
    (shutil.which("cc") or shutil.which("gcc"))
    and Path(sysconfig.get_path("include"), "Python.h").exists()
)
"""Whether there is what it takes to compile: then a build that failed is a failure here."""


@pytest.mark.parametrize("module", MODULES)
def test_is_compiled_where_there_is_a_compiler(module: str) -> None:
    assert (load(module) is not None) == (BUILDS and not PURE)


@pytest.mark.parametrize(("value", "loaded"), [("1", False), ("0", BUILDS), ("", BUILDS)])
def test_the_switch_leaves_it_aside(value: str, loaded: bool) -> None:
    code = (
        "from alphapulse_relay.protocol_v2 import framing; from alphapulse_relay.hub import factory"
        "; print(framing._scan is not None, factory._fanout is not None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment(**{SWITCH: value}),
    )
    assert done.stdout.split() == [str(loaded)] * 2


def test_a_module_that_is_not_there() -> None:
    assert load("alphapulse_relay.protocol_v2._no_such_module") is None
