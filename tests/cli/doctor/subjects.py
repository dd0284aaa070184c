"""Relays to look at, as they would be set up, and what checks find of them."""

from pathlib import Path
from typing import Any

from alphapulse_relay.cli.doctor.checks import Check
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import Finding, Verdict
from alphapulse_relay.cli.relay_options import forgiving_settings
from alphapulse_relay.option_sources import config_path, sources
from alphapulse_relay.option_table import RELAY


def subject(directory: Path, *, url: str | None = None, **flags: str | list[str]) -> Subject:
    """Return a relay in a directory; ``flags`` are its options, with ``_`` for ``-``."""
    given = {"socket": str(directory / "s.sock"), "web": "none"}
    given |= {name.replace("_", "-"): value for name, value in flags.items()}
    settings, problems = forgiving_settings(given, {})
    found = sources(RELAY, given, {}, lambda _: None)
    config = config_path(RELAY, given, {})
    return Subject(settings, problems=problems, given=found, config=config, url=url)


def running(directory: Path, pid: int, answer: Any = None, **flags: str | list[str]) -> Subject:
    """Return one that runs, as a process, and says of itself what ``answer`` is."""
    one = subject(directory, **flags)
    vars(one).update(pid=pid, answer=answer)
    return one


def found(check: Check, one: Subject) -> list[tuple[str, str]]:
    """Return the verdicts of a check, and what it found."""
    return [(each.verdict.value, each.what) for each in check(one)]


def only(check: Check, one: Subject) -> Finding:
    """Return the one finding of a check; what is wrong comes with how to mend it."""
    (finding,) = check(one)
    assert finding.mend or finding.verdict is not Verdict.WRONG
    return finding
