"""All checks together, on machines that lack what they look at."""

from pathlib import Path

import pytest

from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.checks import CHECKS, examine
from alphapulse_relay.cli.words import Failure
from tests.cli.doctor.subjects import subject


def test_names_are_unique() -> None:
    assert len({name for name, _ in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "/proc/1/fd"), "/proc/1/fd: Permission denied"),
        (OSError("no such thing"), "OSError: no such thing"),
        (Failure("no answer"), "no answer"),
        (KeyError("peers"), "KeyError: 'peers'"),
    ],
)
def test_check_that_cannot_be_made(tmp_path: Path, error: Exception, told: str) -> None:
    def check(_: object) -> None:
        raise error

    (result,) = examine(subject(tmp_path), (("a", check),))
    assert (result.check, result.finding.verdict) == ("a", "note")
    assert result.finding.what == f"cannot be looked at: {told}"


def test_no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "PROC", tmp_path / "proc")
    results = {each.check: each.finding for each in examine(subject(tmp_path))}
    assert {name for name, finding in results.items() if finding.verdict == "wrong"} == {"socket"}
    assert results["listener"].what == (
        f"cannot be looked at: {tmp_path}/proc/net/unix: No such file or directory"
    )
