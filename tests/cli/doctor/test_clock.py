"""The clock, by the kernel, the relay and the newest messages."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from alphapulse_relay.cli.doctor import clock
from alphapulse_relay.protocol_v2.header import build_message
from alphapulse_relay.protocol_v2.tlv import build_tlv
from tests.cli.doctor.subjects import found, only, running, subject
from tests.cli.side_port import document
from tests.journal.writer import NEW_SEGMENT_NS, Segment, message, save


class TestSynchronised:
    def test_here(self, tmp_path: Path) -> None:
        assert only(clock.check_synchronised, subject(tmp_path)).verdict in {"ok", "note"}

    @pytest.mark.parametrize(("state", "verdict"), [(0, "ok"), (1, "ok"), (5, "note")])
    def test_by_the_kernel(self, tmp_path, monkeypatch, state: int, verdict: str) -> None:
        library = SimpleNamespace(adjtimex=lambda _: state)
        monkeypatch.setattr(clock.ctypes, "CDLL", lambda *_, **__: library)
        assert only(clock.check_synchronised, subject(tmp_path)).verdict == verdict

    def test_that_may_not_be_asked(self, tmp_path, monkeypatch) -> None:
        library = SimpleNamespace(adjtimex=lambda _: -1)
        monkeypatch.setattr(clock.ctypes, "CDLL", lambda *_, **__: library)
        with pytest.raises(OSError, match=r".*"):
            only(clock.check_synchronised, subject(tmp_path))

    def test_never_set(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr(time, "time", lambda: 86_400.0)
        assert only(clock.check_synchronised, subject(tmp_path)).verdict == "wrong"


class TestSteps:
    @pytest.mark.parametrize(("step", "verdict"), [(0, "ok"), (-1.5, "ok"), (60, "note")])
    def test_since_the_start(self, tmp_path: Path, step: float, verdict: str) -> None:
        answer = document() | {"started_at": time.time() - 100 - step, "uptime_seconds": 100.0}
        finding = only(clock.check_steps, running(tmp_path, os.getpid(), answer))
        assert finding.verdict == verdict
        assert ("by +60.0 s since" in finding.what) == (step == 60)

    def test_nobody_to_ask(self, tmp_path: Path) -> None:
        assert found(clock.check_steps, running(tmp_path, os.getpid())) == []


def stamped(ns: int, source: int = 20) -> bytes:
    return build_message(build_tlv(21, bytes(40)), source=source, sequence=1, timestamp=ns)


class TestMessages:
    def test_sound(self, tmp_path: Path) -> None:
        save(tmp_path / "journal", Segment().fill([message(1)]))
        finding = only(clock.check_messages, subject(tmp_path))
        assert finding.verdict == "ok"
        assert finding.what.startswith("the newest message came ")

    def test_that_came_in_the_future(self, tmp_path: Path, monkeypatch) -> None:
        save(tmp_path / "journal", Segment().fill([message(1)]))
        monkeypatch.setattr(time, "time_ns", lambda: NEW_SEGMENT_NS - 60_000_000_000)
        finding = only(clock.check_messages, subject(tmp_path))
        assert finding.what == "the newest message came 60.0 s from now: the clock was set back"
        assert finding.verdict == "wrong"

    def test_whose_publisher_is_ahead(self, tmp_path: Path) -> None:
        run = [stamped(NEW_SEGMENT_NS), stamped(NEW_SEGMENT_NS + 5_000_000_000, 30)]
        save(tmp_path / "journal", Segment().fill(run))
        finding = only(clock.check_messages, subject(tmp_path))
        assert finding.what == "publisher 30's messages are 5.0 s ahead of their receipt"
        assert finding.verdict == "note"

    @pytest.mark.parametrize("journal", ["none", "missing"])
    def test_no_journal(self, tmp_path: Path, journal: str) -> None:
        assert found(clock.check_messages, subject(tmp_path, journal=journal)) == []
