"""What a check finds."""

from alphapulse_relay.cli.doctor.finding import Finding, Verdict, note, ok, wrong


def test_verdicts() -> None:
    assert ok("a") == Finding(Verdict.OK, "a", "")
    assert note("a", "b") == Finding(Verdict.NOTE, "a", "b")
    assert wrong("a", "b") == Finding(Verdict.WRONG, "a", "b")
