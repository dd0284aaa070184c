"""What of the process can be seen without one: its words, and files that it cannot use."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("nats")

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs

from alphapulse_relay.bridge.process import BridgeService
from alphapulse_relay.bridge.start import StartError
from tests.bridge.bridges import make_ready, make_service, settings


class TestSummary:
    def test_why_it_is_not_ready(self, tmp_path: Path) -> None:
        assert make_service(tmp_path).summary() == "not ready: no relay: not connected yet"

    def test_what_has_crossed(self, tmp_path: Path) -> None:
        service = make_service(tmp_path)
        make_ready(service.bridge)
        service.bridge.account.outward.messages = 1234
        assert service.summary() == "1,234 messages outward, 0 inward"


class TestCheck:
    def test_a_state_is_made(self, tmp_path: Path) -> None:
        make_service(tmp_path).check()
        assert (tmp_path / "desk.state").exists()

    def test_a_directory_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(StartError, match=r"--state: .*desk\.state cannot be written"):
            make_service(tmp_path / "nowhere").check()

    @pytest.mark.parametrize("option", ["tls_ca", "credentials"])
    def test_a_file_that_has_gone(self, tmp_path: Path, option: str) -> None:
        changed = replace(settings(tmp_path), **{option: tmp_path / "gone"})
        service = BridgeService(changed, {}, MemoryReactorClock())
        name = option.replace("_", "-")
        with pytest.raises(StartError, match=rf"--{name}.* cannot be used: No such file"):
            service.check()


class TestNiceness:
    def test_where_it_may_not_be_set(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: int) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "setpriority", refuse)
        service = make_service(tmp_path, web="none", nice="19")
        with capturedLogs() as logs:
            service.startService()
        assert [(e["nice"], e["error"]) for e in logs if "nice" in e] == [
            (19, "Operation not permitted")
        ]
        assert service.running

    def test_it_is_not_raised(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "getpriority", lambda *_: 15)
        monkeypatch.setattr(os, "setpriority", lambda *_: pytest.fail("it has given way already"))
        make_service(tmp_path, web="none").startService()


def test_it_listens_where_it_is_told(tmp_path: Path) -> None:
    reactor = MemoryReactorClock()
    service = make_service(tmp_path, reactor, web="tcp:1234:interface=127.0.0.1")
    service.privilegedStartService()
    ((port, _, _, interface),) = reactor.tcpServers
    assert (port, interface) == (1234, "127.0.0.1")


def test_it_need_not_listen(tmp_path: Path) -> None:
    reactor = MemoryReactorClock()
    make_service(tmp_path, reactor, web="none").privilegedStartService()
    assert not reactor.tcpServers
