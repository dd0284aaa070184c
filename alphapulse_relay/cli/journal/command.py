"""``signal-relay journal``: the group of its commands."""

import click

from alphapulse_relay.cli.journal.export import export
from alphapulse_relay.cli.journal.segments import segments
from alphapulse_relay.cli.journal.stats import stats
from alphapulse_relay.cli.journal.verify import verify
from alphapulse_relay.cli.words import examples


@click.group(
    epilog=examples(
        "signal-relay journal list                       what is kept, by file",
        "signal-relay journal verify                     look for damage, byte by byte",
        "signal-relay journal export --since 2h > 2h.v2  what came in the last two hours",
        "signal-relay journal stats                      how much of which type and source",
    ),
)
def journal() -> None:
    """Look into a relay's journal: the messages that it keeps in files.

    Only reads; a relay may run meanwhile, or not.
    """


for command in (segments, verify, export, stats):
    journal.add_command(command)
