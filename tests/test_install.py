"""Each kind of install makes the plugin, the command line and the data known."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support import TWISTD, can_compile, clean_environment

ROOT = Path(__file__).parent.parent
SOURCES = ("alphapulse_relay", "twisted", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(params=["regular", "editable", "without a compiler"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def python(kind: str, tmp_path: Path) -> Path:
    """An interpreter with the package installed, and with this one's packages beside it."""
    source, venv = tmp_path / "source", tmp_path / "venv"
    source.mkdir()
    leave_out = shutil.ignore_patterns("__pycache__", "*.so", "*.c", "dropin.cache")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=leave_out)
        else:
            shutil.copy(path, source / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    interpreter = venv / "bin" / "python"
    site = subprocess.run(
        [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(site, "tests-packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    editable = ["--editable"] if kind == "editable" else []
    compiler = {"CC": "false"} if kind == "without a compiler" else {}
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "--disable-pip-version-check"]
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run(
        [*pip, "install", *options, *editable, source],
        check=True,
        env=clean_environment(**compiler),
    )
    return interpreter


def run(python: Path, *arguments: str | Path) -> str:
    done = subprocess.run(
        [python, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=python.parent,  # not where the source lies
        env=clean_environment(),
    )
    return done.stdout


def test_an_install_is_complete(python: Path, kind: str) -> None:
    assert "signal-relay" in run(python, "-c", TWISTD, "--help")
    assert "--backlog" in run(python, "-c", TWISTD, "signal-relay", "--help")
    assert "tail" in run(python, python.parent / "signal-relay", "--help")
    where, name, compiled = run(
        python,
        "-c",
        "import alphapulse_relay as package\n"
        "from alphapulse_relay.protocol_v2.signals import SignalTable\n"
        "from alphapulse_relay.hub.factory import _fanout\n"
        "print(package.__file__, SignalTable.builtin().name(21), _fanout is not None)",
    ).split()
    assert Path(where).is_relative_to(python.parent.parent.parent)
    assert name == "ArbitrageSignal"
    assert compiled == str(can_compile() and kind != "without a compiler")
