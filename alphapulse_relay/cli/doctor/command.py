"""``signal-relay doctor``: looks at all that a relay needs, and says what is wrong with it.

Knows how findings are shown; what is looked at, ``checks`` knows.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from typing import TextIO

import click
from rich.console import Console
from rich.text import Text

from alphapulse_relay import __version__
from alphapulse_relay.cli.doctor.checks import CHECKS, Result, examine
from alphapulse_relay.cli.doctor.finding import Verdict
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.relay_options import Flags, RelayCommand, forgiving_settings
from alphapulse_relay.cli.snapshot import url_option
from alphapulse_relay.cli.words import examples, standard_output

WRONG_STATUS = 1
"""Exit status where anything is wrong."""
_STYLES = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.WRONG: "bold red"}
_NAMES = max(len(name) for name, _ in CHECKS)
_VERDICTS = max(map(len, Verdict))


@click.command(
    cls=RelayCommand,
    epilog=examples(
        "signal-relay doctor",
        "signal-relay doctor --config relay.toml --socket /run/signal-relay/signals.sock",
        "sudo -u relay signal-relay doctor --socket /run/relay/signals.sock --journal none",
        "signal-relay doctor --json | jq '.findings[] | select(.verdict == \"wrong\")'",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@url_option("The relay's side port, if not where --web says.", default=None)
@click.pass_context
def doctor(ctx: click.Context, flags: Flags, as_json: bool, url: str | None) -> None:
    """Look at a relay and at what it needs, and say what is wrong and how to mend it.

    Give it the options that the relay has; it reads the same environment and file. It only looks:
    nothing is changed, and the relay's peers get nothing from it. What it may not look at as this
    user is a note; as the relay's user, or root, it sees most.

    Exit status: 0 nothing is wrong, 1 something is, 2 wrong usage.
    """
    out = standard_output()
    results = list(examine(_subject(flags, url)))
    if as_json:
        click.echo(json.dumps(_document(results), indent=2), file=out)
    else:
        _show(results, out)
    if any(each.finding.verdict is Verdict.WRONG for each in results):
        ctx.exit(WRONG_STATUS)


def _subject(flags: Flags, url: str | None) -> Subject:
    from alphapulse_relay.option_sources import config_path, sources  # noqa: PLC0415
    from alphapulse_relay.option_table import RELAY  # noqa: PLC0415

    settings, problems = forgiving_settings(flags, os.environ)
    # What is wrong is among the problems.
    given = sources(RELAY, flags, os.environ, lambda _: None)
    return Subject(
        settings,
        problems=problems,
        given=given,
        config=config_path(RELAY, flags, os.environ),
        url=url,
    )


def _document(results: Iterable[Result]) -> dict[str, object]:
    results = list(results)
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


def _counts(results: Iterable[Result]) -> dict[str, int]:
    found = Counter(each.finding.verdict for each in results)
    return {verdict: found[verdict] for verdict in Verdict}


def _show(results: list[Result], out: TextIO) -> None:
    console = Console(file=out, highlight=False, soft_wrap=True)
    for check, finding in results:
        verdict = (f"{finding.verdict:{_VERDICTS}}", _STYLES[finding.verdict])
        line = Text.assemble(verdict, f"  {check:{_NAMES}}  {finding.what}")
        if finding.mend:
            line.append(f"\n{'':{_VERDICTS + _NAMES + 4}}{finding.mend}", "dim")
        console.print(line)
    counts = _counts(results)
    notes = counted(counts[Verdict.NOTE], "note")
    console.print(f"{counts[Verdict.WRONG]} wrong, {notes}, {counts[Verdict.OK]} in order")
