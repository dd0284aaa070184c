"""What a check finds: in order, worth to know, or wrong."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is. Only what is wrong counts in the exit status."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """What was found and where, and in one line how to mend it; empty if there is nothing to."""

    verdict: Verdict
    what: str
    mend: str = ""


def ok(what: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(Verdict.OK, what)


def note(what: str, mend: str = "") -> Finding:
    """Return what is worth to know, or could not be looked at."""
    return Finding(Verdict.NOTE, what, mend)


def wrong(what: str, mend: str) -> Finding:
    """Return what must be mended."""
    return Finding(Verdict.WRONG, what, mend)
