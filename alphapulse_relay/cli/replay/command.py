"""``signal-relay replay``: what the options mean, and the way from a journal to where it goes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from click.core import ParameterSource

from alphapulse_relay.cli.connection import address_of, connect, relay_options
from alphapulse_relay.cli.filters import Filter, filter_options
from alphapulse_relay.cli.layouts import layouts_option, type_numbers
from alphapulse_relay.cli.numbers import WholeNumber
from alphapulse_relay.cli.output import form_options, open_output
from alphapulse_relay.cli.replay.account import Account, progress_bar
from alphapulse_relay.cli.replay.sources import (
    Asked,
    JournalSource,
    Reached,
    RelaySource,
    Source,
)
from alphapulse_relay.cli.replay.target import Destination, Target
from alphapulse_relay.cli.replay.timing import AT_ONCE, SpeedParameter, Timing
from alphapulse_relay.cli.subscriber import ask_head
from alphapulse_relay.cli.times import since_option
from alphapulse_relay.cli.words import Failure, examples, say
from alphapulse_relay.journal.reader import Lost
from alphapulse_relay.protocol_v2.header import Header
from alphapulse_relay.protocol_v2.signals import SignalTable


@click.command(
    epilog=examples(
        "signal-relay replay --since 10m",
        "signal-relay replay --last 1000 --type ArbitrageSignal --json",
        "signal-relay replay --since 2026-05-04T12:30 --speed 10x --follow",
        "signal-relay replay --since 1d --to test.sock",
        "signal-relay replay --journal /var/lib/signal-relay/journal --raw > all.v2",
    ),
)
@relay_options
@click.option(
    "--journal",
    "-j",
    "directory",
    type=click.Path(path_type=Path),
    help="Read the files of a journal instead: the relay may be stopped.",
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
@click.option(
    "--speed",
    type=SpeedParameter(),
    default=AT_ONCE,
    show_default=True,
    metavar=f"NUMBERx|{AT_ONCE}",
    help="Keep the time between messages (1x), shorten (10x) or stretch it (0.5x).",
)
@click.option("--follow", "-f", is_flag=True, help="Go on live, without an end.")
@click.option(
    "--to",
    metavar="ADDRESS",
    type=address_of,
    help="Publish the messages into the relay of this socket, or address as for --connect.",
)
@form_options
@layouts_option
@click.pass_context
def replay(
    ctx: click.Context,
    path: str,
    directory: Path | None,
    since: int | None,
    position: int | None,
    last: int | None,
    types: tuple[str, ...],
    sources: frozenset[int],
    speed: float,
    follow: bool,
    to: str | None,
    as_json: bool,
    with_hex: bool,
    raw: bool,
    table: SignalTable,
) -> None:
    """Replay the messages that a relay has kept: all, or those from one place on.

    They are printed as by "tail", or go into another relay (--to), byte for byte and in order. The
    relay is asked by its socket; how far it goes back is up to its journal.

    With a --speed, messages are due by the times in their headers. Times that are 0, or do not fit
    those around them, are passed over; longer silences than a minute are cut short, and told.
    With --follow that ends where the replay has come to what is live.

    What can no longer be had is told on standard error, by its positions in the journal. The exit
    status is 1 if nothing else came, if the relay went away before all was replayed, or if one of
    the two relays refuses.
    """
    if [since, position, last].count(None) < 2:
        raise click.UsageError("--since, --from-position and --last exclude each other.")
    if to is not None and (as_json or with_hex or raw):
        raise click.UsageError("--to publishes: it does not go with --json, --hex and --raw.")
    given = map(ctx.get_parameter_source, ("path", "connect"))
    if directory is not None and (follow or ParameterSource.COMMANDLINE in given):
        raise click.UsageError(
            "--journal reads files: it does not go with --socket, --connect and --follow."
        )
    timing = None if speed == math.inf else Timing(speed)
    asked = Asked(Filter(type_numbers(types, table), sources), since, position, last)
    if to is None:
        output = open_output(table, as_json=as_json, with_hex=with_hex, raw=raw)
        source = _source(path, directory, asked, follow=follow)
        replay_items(source, output, timing, shown=not output.is_terminal)
    else:
        source = _source(path, directory, asked, follow=follow)
        with _target(to, source.epoch) as target:
            replay_items(source, target, timing, shown=True)


def _source(path: str, directory: Path | None, asked: Asked, *, follow: bool) -> Source:
    if directory is not None:
        return JournalSource(directory, asked)
    return RelaySource(path, asked, follow=follow)


@contextmanager
def _target(path: str, epoch: int) -> Iterator[Target]:
    """Connect to the relay that is to have the messages: another one than the epoch's."""
    if ask_head(path).epoch == epoch:
        raise Failure(f"{path} is the relay of this very journal: name another one with --to")
    with connect(path) as connection:
        yield Target(path, connection)


def replay_items(
    source: Source, destination: Destination, timing: Timing | None, *, shown: bool
) -> None:
    """Bring all items to the destination, and give account in any case."""
    account = Account()
    try:
        with progress_bar(account, source.head, shown=shown) as look:
            for item in source.items(destination.wait_for):
                match item:
                    case Reached(position, live):
                        account.reached(position)
                        timing = None if live else timing
                    case Lost():
                        account.miss(item)
                    case message:
                        if timing is not None:
                            destination.wait_until(timing.due(Header.unpack(message)))
                        destination.send(message)
                        account.add(message)
                look()
            destination.finish()
    finally:
        say(str(account))
    if account.missed and not account.messages:
        raise Failure("nothing could be replayed")
