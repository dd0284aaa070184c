"""``signal-relay send``: publishes files, or messages that are built from fields.

Knows what the options mean, and keeps the account of what was sent. The bytes come from
``outgoing``, the connection is ``publisher``'s.
"""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, BinaryIO

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from alphapulse_relay.cli.connection import connect, relay_options
from alphapulse_relay.cli.layouts import TypeParameter, layouts_option, type_names, type_number
from alphapulse_relay.cli.numbers import FiniteRange, counted
from alphapulse_relay.cli.outgoing import Piece, Turn, blocks, built_pieces, file_pieces
from alphapulse_relay.cli.publisher import Publisher
from alphapulse_relay.cli.words import examples, say
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.protocol_v2.tlv import build_tlv

SHOW_INTERVAL = 0.1
"""Seconds between looks of the progress bar at the account: it costs more than a message."""
LEAST_RATE = 1e-5
"""Messages a second: about one a day."""
STRATEGY_SOURCE = 20
"""The first of the source numbers that are the strategies' (20-39)."""

Source = Callable[[Publisher], Iterator[Piece]]
"""What gives the pieces, once there is a connection to wait on."""


class Account:
    """What was sent so far."""

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        self.whole = True
        """Whether it ends where a message does."""
        self.failed = False
        """Whether something went wrong, so that the relay need not have taken all of it."""
        self._started = time.monotonic()

    def add(self, piece: Piece) -> None:
        """Count a piece."""
        self.messages += piece.messages
        self.bytes += len(piece.data)
        self.whole = piece.whole

    def __str__(self) -> str:
        seconds = time.monotonic() - self._started
        rate = self.messages / seconds if seconds else 0.0
        done = "wrote" if self.failed else "sent"
        return (
            f"{done} {counted(self.messages, 'message')}, {counted(self.bytes, 'byte')} "
            f"in {seconds:.3f} s ({rate:.0f} messages/s)"
        )


class InputFile(click.File):
    """A file to read, which is opened at once; "-" is standard input."""

    def __init__(self) -> None:
        super().__init__("rb", lazy=False)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> IO[Any]:
        """Open the file."""
        if value == "-" and sys.stdin is None:
            self.fail("standard input is closed", param, ctx)
        return super().convert(value, param, ctx)


class Pace:
    """Turns at a steady rate; each is due at its own time, so that being late does not add up."""

    def __init__(self, rate: float, wait_until: Callable[[float], None]) -> None:
        self._period = 1 / rate
        self._wait_until = wait_until
        self._start = time.monotonic()
        self._turns = 0

    def turn(self) -> None:
        """Wait for the next turn; the first is at once."""
        self._wait_until(self._start + self._turns * self._period)
        self._turns += 1


@click.command(
    epilog=examples(
        "signal-relay send recorded.v2 --rate 1000",
        "zcat day.v2.gz | signal-relay send -",
        "signal-relay send --type 21 --field net_profit_usd_q8=12.5 --field priority=1",
        "signal-relay send --type SignalIdentity --source 21 --rate 10",
    ),
)
@click.argument("files", nargs=-1, type=InputFile(), metavar="[FILE]...")
@relay_options
@click.option("--rate", type=FiniteRange(min=LEAST_RATE), help="Messages a second, at most.")
@click.option(
    "--type", "-t", "type_text", type=TypeParameter(), help="Build messages of this type."
)
@click.option(
    "--field",
    "-f",
    "fields",
    metavar="NAME=VALUE",
    multiple=True,
    help="A field of the built message, as tail shows it; those not given are 0.",
)
@click.option(
    "--count",
    "-n",
    type=click.IntRange(min=0),
    show_default="1, with --rate 0",
    help="How many to build; 0: until Ctrl-C.",
)
@click.option(
    "--source",
    type=click.IntRange(0, 255),
    show_default=str(STRATEGY_SOURCE),
    help="Source of built messages.",
)
@layouts_option
def send(
    files: tuple[BinaryIO, ...],
    path: str,
    rate: float | None,
    type_text: str | None,
    fields: tuple[str, ...],
    count: int | None,
    source: int | None,
    table: SignalTable,
) -> None:
    """Publish FILEs of Protocol V2 bytes ("-": standard input), or messages built from fields.

    Files are sent byte for byte, also what is wrong in them: a warning tells of bytes that do not
    frame. A built message has a checksum, the time it is sent at, and a sequence from 1 on.

    Ends when the relay has read everything. Ends with status 1 when the relay closes the connection
    early, or drops a message (of the wrong checksum, say, or one that its access rules forbid), and
    tells the relay's reason. Its "at byte" counts 56 bytes more, by which send has asked for that.
    """
    if type_text is not None and not files:
        payload = _payload(type_text, fields, table)
        wanted = count if count is not None else int(rate is None)
        number = wanted or None
        chosen = STRATEGY_SOURCE if source is None else source

        def built(publisher: Publisher) -> Iterator[Piece]:
            turn = _turn(rate, publisher)
            return built_pieces(payload, source=chosen, count=number, turn=turn)

        _publish(path, built, MofNCompleteColumn(), number, lambda account: account.messages)
    elif files and (type_text, fields, count, source) == (None, (), None, None):

        def read(publisher: Publisher) -> Iterator[Piece]:
            return _read(files, publisher, _turn(rate, publisher))

        _publish(path, read, DownloadColumn(), _size(files), lambda account: account.bytes)
    else:
        raise click.UsageError(
            "Either FILE (- for standard input), or --type, which takes --field, --count and "
            "--source."
        )


def _payload(type_text: str, fields: Iterable[str], table: SignalTable) -> bytes:
    """Return the TLV that the options describe."""
    values: dict[str, str] = {}
    for text in fields:
        name, equals, value = text.partition("=")
        if not equals or name in values:
            wrong = "is given twice" if equals else "is not NAME=VALUE"
            raise click.BadParameter(f"{text!r} {wrong}", param_hint="'--field'")
        values[name] = value
    number = type_number(type_text, type_names(table))
    try:
        return build_tlv(number, table.encode(number, values))
    except ValueError as error:
        hint = "'--field'" if values else "'--type'"
        raise click.BadParameter(str(error), param_hint=hint) from None


def _turn(rate: float | None, publisher: Publisher) -> Turn | None:
    return Pace(rate, publisher.wait_until).turn if rate else None


def _read(files: Iterable[BinaryIO], publisher: Publisher, turn: Turn | None) -> Iterator[Piece]:
    for file in files:
        content = blocks(file.fileno(), publisher.wait_for)
        yield from file_pieces(file.name, content, turn)


def _size(files: Iterable[BinaryIO]) -> int | None:
    """Return the bytes of all files; None if one of them is a pipe or a terminal."""
    found = [os.fstat(file.fileno()) for file in files]
    if all(stat.S_ISREG(status.st_mode) for status in found):
        return sum(status.st_size for status in found)
    return None


def _publish(
    path: str,
    source: Source,
    column: ProgressColumn,
    total: int | None,
    done: Callable[[Account], int],
) -> None:
    """Send all pieces, wait for the relay to have read them, and give account in any case."""
    with connect(path) as connection:
        publisher, account = Publisher(connection), Account()
        try:
            publisher.ask_for_errors()
            with _progress(column, total) as show:
                for piece in source(publisher):
                    publisher.send(piece.data)
                    account.add(piece)
                    show(done(account))
                publisher.finish(whole=account.whole)
        except Exception:
            account.failed = True
            raise
        finally:
            say(str(account))


@contextmanager
def _progress(column: ProgressColumn, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal's standard error; yield what is to be told how far."""
    console = Console(stderr=True)
    columns = (TextColumn("sending"), BarColumn(), column, TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("sending", total=total)
        next_show = 0.0

        def show(completed: int) -> None:
            nonlocal next_show
            now = time.monotonic()
            if now >= next_show:
                next_show = now + SHOW_INTERVAL
                progress.update(task, completed=completed)

        yield show
        if total is not None:
            progress.update(task, completed=total)
