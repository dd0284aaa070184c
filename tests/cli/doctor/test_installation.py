"""What is installed."""

import os
from pathlib import Path

import pytest

from alphapulse_relay import __version__
from alphapulse_relay.cli.doctor import installation
from alphapulse_relay.protocol_v2.native import SWITCH
from tests.cli.doctor.subjects import found, only, running, subject


def test_versions(tmp_path: Path) -> None:
    finding = only(installation.check_versions, subject(tmp_path))
    assert finding.verdict == "ok"
    assert finding.what.startswith(f"signal-relay {__version__}, Python 3.")
    assert ", Twisted " in finding.what


class TestBuild:
    def loads(self, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
        monkeypatch.delenv(SWITCH, raising=False)
        monkeypatch.setattr(installation, "load", lambda _: module)

    def test_compiled(self, tmp_path: Path, monkeypatch) -> None:
        self.loads(monkeypatch, os)
        assert only(installation.check_build, subject(tmp_path)).verdict == "ok"

    def test_no_compiler(self, tmp_path: Path, monkeypatch) -> None:
        self.loads(monkeypatch, None)
        finding = only(installation.check_build, subject(tmp_path))
        assert (finding.verdict, "C compiler" in finding.mend) == ("note", True)

    def test_switched_off(self, tmp_path: Path, monkeypatch) -> None:
        self.loads(monkeypatch, None)
        monkeypatch.setenv(SWITCH, "1")
        finding = only(installation.check_build, subject(tmp_path))
        assert (finding.verdict, finding.mend) == ("note", f"unset {SWITCH}")

    def test_built_for_another_machine(self, tmp_path: Path, monkeypatch) -> None:
        def load(_: str) -> None:
            raise ImportError("wrong ELF class")

        monkeypatch.setattr(installation, "load", load)
        assert only(installation.check_build, subject(tmp_path)).verdict == "wrong"

    def test_relay_that_runs_without(self, tmp_path: Path, monkeypatch) -> None:
        self.loads(monkeypatch, os)
        one = running(tmp_path, os.getpid(), {"build": "pure Python"})
        told = found(installation.check_build, one)
        assert told[1] == ("note", "the relay that runs is pure Python")
