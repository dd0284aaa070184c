"""``signal-relay journal list``: which files hold what.

Knows what is told of a segment, and rich.
"""

from pathlib import Path

import click
from rich.table import Table

from alphapulse_relay.cli.journal.files import JournalCommand, journal_option, open_journal
from alphapulse_relay.cli.journal.tables import console, empty_table, moment
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.words import examples
from alphapulse_relay.journal.headers import data_name
from alphapulse_relay.journal.reader import Journal, Part


@click.command(
    "list",
    cls=JournalCommand,
    epilog=examples(
        "signal-relay journal list",
        "signal-relay journal list --journal /var/lib/signal-relay/journal",
    ),
)
@journal_option
def segments(directory: Path) -> None:
    """List the journal's segments: their positions, messages, bytes and times (UTC).

    A position is the number of bytes before a message. A segment is "current" if a relay would
    append to it, "full" if not, and "damaged" where its index shows that; what is in the messages
    only "journal verify" compares. Positions that no file holds are listed, too: the relay kept
    these messages in memory only, or left out positions after a crash.
    """
    shown = console()
    found = open_journal(directory)
    shown.print(_table(found))
    parts = found.parts
    size = sum(part.stop - part.start for part in parts)
    click.echo(
        f"{counted(len(parts), 'segment')}, {counted(found.messages, 'message', ',')},"
        f" {counted(size, 'byte', ',')}, epoch {found.epoch}"
    )


def _table(found: Journal) -> Table:
    rows = empty_table(
        ("segment",), ("from", "to", "messages", "bytes"), ("first", "last", "state")
    )
    before = None
    for part in found.parts:
        if before is not None and before.stop < part.start:
            rows.add_row("-", str(before.stop), str(part.start), "", "", "", "", "in no file")
        rows.add_row(*_row(part, current=part is found.parts[-1]))
        before = part
    return rows


def _row(part: Part, *, current: bool) -> list[str]:
    size = part.stop - part.start
    numbers = [str(part.start), str(part.stop), f"{part.found.messages:,}", f"{size:,}"]
    state = "current" if current and part.found.intact else "full"
    if part.found.damage:
        state = "damaged"
    return [data_name(part.found.slot), *numbers, *map(moment, part.times()), state]
