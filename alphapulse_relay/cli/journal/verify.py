"""``signal-relay journal verify``: whether all of the journal is what was written."""

from pathlib import Path

import click

from alphapulse_relay.cli.journal.files import (
    JournalCommand,
    journal_option,
    open_journal,
    progress_bar,
)
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.words import Failure, examples, standard_output
from alphapulse_relay.journal.recovery import Damage


@click.command(
    cls=JournalCommand,
    epilog=examples(
        "signal-relay journal verify",
        "signal-relay journal verify || echo 'look at the disk'",
    ),
)
@journal_option
def verify(directory: Path) -> None:
    """Compare all of the journal with the checksums that were written with it.

    Prints one line for each place that is damaged: the file, the positions, and what is lost. A
    relay serves all else. Ends with status 1 if there is any damage, be it of what can be mended.
    """
    standard_output()
    with progress_bar("verifying") as progress:
        found = open_journal(directory, verify="all", progress=progress)
    for damage in found.damage:
        click.echo(_line(damage))
    if found.damage:
        lost = sum(each.stop - each.start for each in found.damage)
        places = counted(len(found.damage), "place")
        raise Failure(f"the journal is damaged: {places}, {counted(lost, 'byte', ',')} lost")
    segments = counted(len(found.parts), "segment")
    click.echo(f"sound: {segments}, {counted(found.messages, 'message', ',')}")


def _line(damage: Damage) -> str:
    if damage.start == damage.stop:
        return f"{damage.file}: at position {damage.start}, nothing lost: {damage.detail}"
    lost = counted(damage.stop - damage.start, "byte", ",")
    return f"{damage.file}: positions {damage.start} to {damage.stop}, {lost} lost: {damage.detail}"
