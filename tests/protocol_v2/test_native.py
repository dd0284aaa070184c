"""The choice between compiled and pure Python: compiled wherever it can be, and is wanted."""

import subprocess
import sys
from pathlib import Path

import pytest

from alphapulse_relay.protocol_v2.native import SWITCH, load
from tests.support import can_compile, clean_environment

MODULES = ("alphapulse_relay.protocol_v2._scan", "alphapulse_relay.hub._fanout")


@pytest.mark.parametrize("module", MODULES)
def test_is_compiled_where_there_is_a_compiler(module: str) -> None:
    assert load(module) is not None or not can_compile()


@pytest.mark.parametrize(("value", "aside"), [("1", True), ("0", False), ("", False)])
def test_the_switch_leaves_it_aside(
    value: str, aside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    is_built = load(MODULES[0]) is not None
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
    assert done.stdout.split() == [str(is_built and not aside)] * 2


def test_a_module_that_is_not_there() -> None:
    assert load("alphapulse_relay.protocol_v2._no_such_module") is None


def test_a_module_that_needs_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is a fault, and not a build without it."""
    monkeypatch.delenv(SWITCH, raising=False)
    (tmp_path / "needs_more.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load("needs_more")
