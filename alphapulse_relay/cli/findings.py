"""What checks find: in order, worth to know, or wrong; and how that is told.

Knows neither what is looked at nor how.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TextIO

import click
from rich.console import Console
from rich.text import Text

from alphapulse_relay import __version__
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.words import standard_output

WRONG_STATUS = 1
"""Exit status where anything is wrong."""
NAME_WIDTH = 15
"""Columns for the name of a check: the longest is "journal content"."""


class Verdict(StrEnum):
    """How bad it is. Only what is wrong counts in the exit status."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


_STYLES = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.WRONG: "bold red"}
_VERDICT_WIDTH = max(map(len, Verdict))


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


class Result(NamedTuple):
    """A finding, and the name of the check that has it."""

    check: str
    finding: Finding


def report(results: Sequence[Result], *, as_json: bool) -> int:
    """Print what was found; return the exit status."""
    out = standard_output()
    if as_json:
        click.echo(json.dumps(_document(results), indent=2), file=out)
    else:
        _show(results, out)
    return WRONG_STATUS if _counts(results)[Verdict.WRONG] else 0


def _document(results: Sequence[Result]) -> dict[str, object]:
    return {
        "version": __version__,
        "counts": _counts(results),
        "findings": [
            {
                "check": each.check,
                "verdict": each.finding.verdict,
                "what": each.finding.what,
                "mend": each.finding.mend or None,
            }
            for each in results
        ],
    }


def _counts(results: Sequence[Result]) -> dict[Verdict, int]:
    found = Counter(each.finding.verdict for each in results)
    return {verdict: found[verdict] for verdict in Verdict}


def _show(results: Sequence[Result], out: TextIO) -> None:
    console = Console(file=out, highlight=False, soft_wrap=True)
    for check, finding in results:
        verdict = (f"{finding.verdict:{_VERDICT_WIDTH}}", _STYLES[finding.verdict])
        line = Text.assemble(verdict, f"  {check:{NAME_WIDTH}}  {finding.what}")
        if finding.mend:
            line.append(f"\n{'':{_VERDICT_WIDTH + NAME_WIDTH + 4}}{finding.mend}", "dim")
        console.print(line)
    counts = _counts(results)
    notes = counted(counts[Verdict.NOTE], "note")
    console.print(f"{counts[Verdict.WRONG]} wrong, {notes}, {counts[Verdict.OK]} in order")
