"""Limits of the machine, and that the relay has the figures that are counted with."""

import os
import resource
from pathlib import Path

import pytest

from alphapulse_relay.cli.doctor import limits, system
from alphapulse_relay.hub.ports import LISTEN_BACKLOG
from tests.cli.doctor.subjects import found, only, running, subject


def test_the_figure_is_the_relays() -> None:
    assert limits.LISTEN_BACKLOG == LISTEN_BACKLOG


class TestDescriptors:
    @pytest.mark.parametrize(
        ("limit", "fit"), [(2256, 1436), (5000, 3744), (400, 44), (100, 0), (1256 + 10_000, 10_000)]
    )
    def test_of_the_relay(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, fit: int
    ) -> None:
        monkeypatch.setattr(system, "open_files_limits", lambda _: (limit, 1 << 20))
        if fit:
            one = running(tmp_path, os.getpid(), max_peers=str(fit))
            assert only(limits.check_descriptors, one).verdict == "ok"
        finding = only(
            limits.check_descriptors, running(tmp_path, os.getpid(), max_peers=str(fit + 1))
        )
        assert finding.verdict == "wrong"
        assert finding.what.endswith(f": {fit} peers fit, --max-peers is {fit + 1}")

    def test_what_the_kernel_says(self, tmp_path: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        told = system.open_files_limits(os.getpid())
        assert told == tuple(
            system.UNLIMITED if each == resource.RLIM_INFINITY else each for each in (soft, hard)
        )

    @pytest.mark.parametrize(("uid", "verdict"), [(0, "ok"), (1000, "wrong")])
    def test_before_the_start(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, verdict: str
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
        assert only(limits.check_descriptors, subject(tmp_path)).verdict == verdict

    def test_no_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
        finding = only(limits.check_descriptors, subject(tmp_path))
        assert (finding.verdict, "any number of files" in finding.what) == ("ok", True)


@pytest.mark.parametrize(
    ("check", "least", "mend"),
    [
        (limits.check_waiting, 4096, "sysctl -w net.core.somaxconn=4096"),
        (limits.check_buffers, 212_992, "sysctl -w net.core.wmem_default=212992"),
    ],
)
def test_kernel_parameters(tmp_path, monkeypatch, check, least, mend) -> None:
    monkeypatch.setattr(system, "kernel_number", lambda _: least)
    assert only(check, subject(tmp_path)).verdict == "ok"
    monkeypatch.setattr(system, "kernel_number", lambda _: least - 1)
    finding = only(check, subject(tmp_path))
    assert (finding.verdict, finding.mend) == ("note", mend)


def test_few_peers_need_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "kernel_number", lambda _: 128)
    assert only(limits.check_waiting, subject(tmp_path, max_peers="128")).verdict == "ok"
    assert only(limits.check_waiting, subject(tmp_path, max_peers="129")).verdict == "note"


class TestCores:
    def test_not_running(self, tmp_path: Path) -> None:
        assert found(limits.check_cores, subject(tmp_path, journal="none")) == []

    @pytest.mark.parametrize(
        ("cores", "cpu", "verdict", "what"),
        [
            ({0, 1}, "none", "ok", "the relay may run on 2 cores"),
            ({0}, "none", "ok", "the relay runs on core 0 only"),
            ({0}, "0", "ok", "the relay runs on core 0 only"),
            ({0, 1}, "0", "note", "the relay is not pinned to core 0"),
        ],
    )
    def test_pinning(self, tmp_path, monkeypatch, cores, cpu, verdict, what) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
        finding = only(limits.check_cores, running(tmp_path, os.getpid(), cpu=cpu))
        assert (finding.verdict, finding.what) == (verdict, what)
