"""The checks of this machine, and how all are gone through."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nats")

from alphapulse_relay.cli.bridge import checks as module
from alphapulse_relay.cli.bridge.checks import check_packages, check_state, examine
from alphapulse_relay.cli.bridge.ends import Ends
from alphapulse_relay.cli.findings import Finding, ok
from tests.cli.bridge.looking import ends, remember
from tests.cli.doctor.subjects import only


class TestPackages:
    def test_they_are_there(self, tmp_path: Path) -> None:
        assert "nats-py 2." in only(check_packages, ends(tmp_path)).what

    def test_one_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("alphapulse_relay.cli.bridge.ends.PACKAGES", ("no_such_package",))
        one = only(check_packages, ends(tmp_path))
        assert one.verdict == "wrong"
        assert one.mend == "pip install 'alphapulse-signal-relay[bridge]'"


class TestState:
    def test_a_first_start(self, tmp_path: Path) -> None:
        one = only(check_state, ends(tmp_path))
        assert one.verdict == "note"
        assert one.what.startswith(f"there is no {tmp_path}/desk.state: a first start")

    def test_both_ways(self, tmp_path: Path) -> None:
        state = {"outward": "e:900:0:0", "created": "then", "done": 7}
        one = only(check_state, remember(ends(tmp_path), **state))
        assert one.verdict == "ok"
        assert one.what.endswith(" ago: outward up to position 900, inward up to message 7")

    def test_neither(self, tmp_path: Path) -> None:
        text = only(check_state, remember(ends(tmp_path))).what
        assert text.endswith("ago: nothing has crossed yet")

    def test_it_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "desk.state").write_text(json.dumps({"outwards": 5}))
        assert "is not a bridge's state" in only(check_state, ends(tmp_path)).what

    def test_no_directory(self, tmp_path: Path) -> None:
        one = ends(tmp_path, state=str(tmp_path / "none" / "desk.state"))
        assert only(check_state, one).verdict == "wrong"

    def test_it_cannot_be_replaced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        one = remember(ends(tmp_path))
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        finding = only(check_state, one)
        assert (finding.verdict, "cannot be replaced" in finding.what) == ("wrong", True)


class TestExamine:
    def test_settings_that_are_wrong(self) -> None:
        (one,) = examine({"replicas": "9"}, {})
        assert (one.check, one.finding.verdict) == ("settings", "wrong")
        assert one.finding.what.startswith("a bridge would not start: --replicas: '9' ")

    def test_where_they_are_from(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "CHECKS", ())
        file = tmp_path / "bridge.toml"
        file.write_text('name = "desk"\n')
        (one,) = examine({}, {"SIGNAL_RELAY_BRIDGE_CONFIG": str(file)})
        assert one.finding == ok(f"a bridge would take these options, and {file}")

    def test_one_that_fails_does_not_hide_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: Ends) -> Iterator[Finding]:
            raise ValueError("no\nway")

        checks = (("bad", fail), ("good", lambda _: iter([ok("fine")])))
        monkeypatch.setattr(module, "CHECKS", checks)
        _, bad, good = examine({}, {})
        assert (bad.check, bad.finding.verdict) == ("bad", "note")
        assert bad.finding.what == "cannot be looked at: ValueError: no?way"
        assert good.finding == ok("fine")
