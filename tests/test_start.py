"""What a start waits for, and what is told when it fails."""

import atexit
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from alphapulse_relay.start import (
    FREE_INTERVAL,
    FREE_SECONDS,
    check_writable,
    exit_at_once,
    exit_with,
    give_up,
    listen,
    open_when_free,
)
from alphapulse_relay.unix_socket import StartError


class Log:
    """A log that is in use until some attempt, and is opened once."""

    def __init__(self, *errors: StartError) -> None:
        self.clock, self.leaving = Clock(), False
        self.attempts, self._errors = 0, list(errors)
        done = open_when_free(self._open, self.clock, lambda: self.leaving)
        self.results: list[Any] = []
        Deferred.fromCoroutine(done).addBoth(self.results.append)

    def _open(self) -> None:
        self.attempts += 1
        if self._errors:
            raise self._errors.pop(0)


IN_USE = StartError("in use", os.EX_TEMPFAIL)


class TestOpenWhenFree:
    def test_at_once(self) -> None:
        assert Log().results == [True]

    def test_when_the_other_is_gone(self) -> None:
        log = Log(IN_USE, IN_USE)
        assert not log.results
        log.clock.pump([FREE_INTERVAL] * 2)
        assert (log.results, log.attempts) == ([True], 3)

    def test_not_for_ever(self) -> None:
        log = Log(*[IN_USE] * 10)
        log.clock.advance(FREE_SECONDS)
        (failure,) = log.results
        assert failure.value is IN_USE

    def test_not_for_what_will_not_pass(self) -> None:
        log = Log(StartError("no directory"))
        (failure,) = log.results
        assert str(failure.value) == "no directory"

    def test_not_for_one_that_leaves(self) -> None:
        log = Log(IN_USE)
        log.leaving = True
        log.clock.advance(FREE_INTERVAL)
        assert (log.results, log.attempts) == ([False], 1)


class TestListen:
    @pytest.mark.parametrize(
        "error",
        [
            CannotListenError("127.0.0.1", 1, OSError(98, "Address already in use")),
            OSError(98, "Address already in use"),
        ],
    )
    def test_names_the_option(self, error: Exception) -> None:
        class Part(Service):
            def privilegedStartService(self) -> None:
                raise error

        with pytest.raises(StartError) as raised:
            listen(Part(), "--web tcp:1")  # type: ignore[arg-type]
        assert str(raised.value) == "--web tcp:1: cannot listen: Address already in use"
        assert raised.value.status == os.EX_CONFIG


class TestCheckWritable:
    def test_makes_the_directory_and_leaves_nothing(self, tmp_path: Path) -> None:
        check_writable(None)
        check_writable(tmp_path / "a" / "journal")
        assert not list((tmp_path / "a" / "journal").iterdir())

    def test_no_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StartError, match=f"^--journal: {tmp_path}/file is not a directory$"):
            check_writable(tmp_path / "file")

    def test_what_the_kernel_says(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StartError, match=f"^--journal: {tmp_path}: No space left on device$"):
            check_writable(tmp_path)


class TestGiveUp:
    @pytest.fixture
    def ends(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        monkeypatch.setattr(atexit, "register", lambda *call: found.append(call))
        return found

    @pytest.mark.parametrize(
        ("error", "status"), [(IN_USE, os.EX_TEMPFAIL), (ValueError("in use"), os.EX_SOFTWARE)]
    )
    def test_ends_the_process(
        self,
        ends: list[tuple[object, ...]],
        capfd: pytest.CaptureFixture[str],
        error: Exception,
        status: int,
    ) -> None:
        reactor = MemoryReactorClock()
        give_up(Failure(error), reactor)
        reactor.run()
        assert reactor.hasStopped
        assert ends == [(exit_at_once, status)]
        assert capfd.readouterr().err.endswith("signal-relay: in use\n")

    def test_not_when_it_was_told_to(self, ends: list[tuple[object, ...]]) -> None:
        give_up(Failure(CancelledError()), None)
        assert not ends


def test_exit_with(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        exit_with("no", 75)
    assert raised.value.code == 75
    assert capfd.readouterr().err == "signal-relay: no\n"
