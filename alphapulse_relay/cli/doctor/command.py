"""``signal-relay doctor``: looks at all that a relay needs, and says what is wrong with it.

Knows how a relay is named; what is looked at, ``checks`` knows.
"""

import os

import click

from alphapulse_relay.cli.doctor.checks import examine
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import report
from alphapulse_relay.cli.relay_options import RelayCommand, forgiving_settings
from alphapulse_relay.cli.snapshot import url_option
from alphapulse_relay.cli.table_command import Flags
from alphapulse_relay.cli.words import examples


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
    ctx.exit(report(list(examine(_subject(flags, url))), as_json=as_json))


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
