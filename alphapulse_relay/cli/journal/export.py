"""``signal-relay journal export``: messages of the journal, as they came on the wire.

Knows which messages are wanted and where they go.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click

from alphapulse_relay.cli.filters import Filter, filter_options
from alphapulse_relay.cli.journal.files import (
    JournalCommand,
    entries_from,
    journal_option,
    open_journal,
    tell_lost,
)
from alphapulse_relay.cli.layouts import layouts_option, type_numbers
from alphapulse_relay.cli.numbers import WholeNumber
from alphapulse_relay.cli.times import since_option
from alphapulse_relay.cli.words import cannot_write, examples, say, standard_output
from alphapulse_relay.journal.reader import Journal
from alphapulse_relay.protocol_v2.signals import SignalTable


@click.command(
    cls=JournalCommand,
    epilog=examples(
        "signal-relay journal export --output all.v2",
        "signal-relay journal export --since 2h --type ArbitrageSignal > arbitrage.v2",
        "signal-relay journal export --last 1000 | signal-relay send - --socket other.sock",
    ),
)
@journal_option
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file, which appears when it is whole; without it to standard output.",
)
@since_option
@click.option(
    "--from-position",
    "position",
    type=WholeNumber(0),
    help="Only messages at this position of the journal or behind it.",
)
@click.option("--last", type=WholeNumber(1), help="Only the last so many that match.")
@filter_options
@layouts_option
def export(
    directory: Path,
    output: Path | None,
    since: int | None,
    position: int | None,
    last: int | None,
    types: tuple[str, ...],
    sources: frozenset[int],
    table: SignalTable,
) -> None:
    """Write the journal's messages as they came on the wire, in order.

    What comes out can be sent again by "signal-relay send". What is damaged is left out and told;
    then the exit status is 1.
    """
    wanted = Filter(type_numbers(types, table), sources)
    if output is None and standard_output().isatty():
        raise click.UsageError(
            "what comes out is not for a terminal: redirect it, or give --output."
        )
    found = open_journal(directory)
    _warn_of_start(found, position)
    with _destination(output) as out:
        for entry in entries_from(found, wanted, since=since, position=position, last=last):
            if wanted.admits(entry.message):
                out.write(entry.message)
    tell_lost(found.lost)


def _warn_of_start(found: Journal, position: int | None) -> None:
    if found.parts and position is not None and position < found.parts[0].start:
        say(f"warning: the journal no longer holds what is before {found.parts[0].start}")


@contextmanager
def _destination(output: Path | None) -> Iterator[BinaryIO]:
    """Open what is written to: a file appears under its name when all is in it."""
    if output is None:
        out = standard_output().buffer
        yield out
        out.flush()
        return
    new = output.with_name(f".{output.name}.{os.getpid()}.new")
    try:
        with new.open("xb") as file:
            yield file
        new.replace(output)
    except BaseException as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(new):
            raise cannot_write(output, error) from None
        raise
