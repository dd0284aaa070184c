"""``signal-relay tail``: what is published, as it comes.

Knows how to follow a relay, live or from a place in its journal. Which
messages are wanted, ``filters`` knows, and ``output``, how they are written.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import click

from alphapulse_relay.cli.connection import (
    FROM_RELAY,
    Wait,
    closed,
    connect,
    not_a_relay,
    receive,
    relay_options,
    why_silent,
)
from alphapulse_relay.cli.filters import Filter, filter_options
from alphapulse_relay.cli.layouts import layouts_option, type_numbers
from alphapulse_relay.cli.numbers import WholeNumber
from alphapulse_relay.cli.output import Output, form_options, open_output
from alphapulse_relay.cli.subscriber import (
    REASONS,
    new_core,
    start_of,
    subscribed,
    tell_missing,
)
from alphapulse_relay.cli.times import since_option
from alphapulse_relay.cli.words import Failure, cannot_write, examples
from alphapulse_relay.client.bookmark import (
    Bookmark,
    fingerprint,
    load_bookmark,
    save_bookmark,
)
from alphapulse_relay.client.core import CLIENT_SOURCE, Core, Message, Missed, Synced
from alphapulse_relay.client.errors import from_relay
from alphapulse_relay.protocol_v2.control import (
    NO_WISH,
    ControlError,
    ErrorCode,
    ErrorMessage,
    SequenceSync,
    Subscribe,
    Wish,
    build_control,
    parse_control,
)
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import MessageReader
from alphapulse_relay.protocol_v2.header import Domain
from alphapulse_relay.protocol_v2.signals import SignalTable

NO_REASON = "it is gone, or this consumer did not keep up; the relay's log tells which"


class Arrival(NamedTuple):
    """A message, if it is one, and the place in the journal behind it, if that is known."""

    message: bytes | None
    behind: Bookmark | None = None


class Consumer:
    """A peer that only listens, to all. It asks for that, too: who may not is told so."""

    def __init__(self, path: str, wait_for: Wait) -> None:
        self._path = path
        self._wait_for = wait_for
        self._error: ErrorMessage | None = None  # the relay's, before it closed the connection

    def arrivals(self, wanted: Filter) -> Iterator[Arrival]:
        """Yield what is published; raises :class:`Failure` when the relay closes."""
        reader = MessageReader(FROM_RELAY)
        with connect(self._path) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have told why before
                connection.sendall(_ask())
            reason = why_silent(connection, NO_REASON)
            while chunk := receive(connection, self._wait_for):
                reason = NO_REASON
                for message in self._messages(reader, chunk):
                    if wanted.admits(message):
                        yield Arrival(message)
            raise closed(self._error, reason)

    def _messages(self, reader: MessageReader, chunk: bytes) -> Iterator[bytes]:
        try:
            for message in reader.feed(chunk):
                if message[4] != Domain.SYSTEM or not self._is_answer(message):
                    yield message
        except WireError as error:
            raise not_a_relay(chunk, f"what comes is not Protocol V2: {error}") from None

    def _is_answer(self, message: bytes) -> bool:
        """Keep apart what is the relay's own word, not published by anybody."""
        try:
            content = parse_control(message)
        except ControlError:
            return False
        if not isinstance(content, ErrorMessage):
            return isinstance(content, SequenceSync)
        if content.code == ErrorCode.FORBIDDEN:  # the connection may go on, without a message
            raise Failure(f"{self._path}: {from_relay(content)}")
        self._error = content
        return True


def _ask() -> bytes:
    return build_control(Subscribe(), timestamp=time.time_ns(), source=CLIENT_SOURCE)


class Place:
    """How far the output has come in the relay's journal, kept in a file if there is one.

    A message counts as taken once it is flushed: the file is saved after that.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._saved = _load(file) if file is not None else None
        self.written = self._saved
        """Behind the last message that was written."""

    def check(self, asked: Subscribe) -> None:
        """Raise :class:`Failure` if the file was kept with other types or sources.

        What those passed over lies before its place, and would be missed without a word.
        """
        if self._saved is not None and self._saved.asked != fingerprint(asked):
            raise Failure(
                f"{self._file} was kept with other --type or --source than these: give the same"
                " ones, or name another file"
            )

    def save(self) -> None:
        """Note in the file that all that was written has been flushed; raises :class:`Failure`."""
        if self._file is not None and self.written is not None and self.written != self._saved:
            try:
                save_bookmark(self._file, self.written)
            except OSError as error:
                raise cannot_write(self._file, error) from None
            self._saved = self.written


def _load(file: Path) -> Bookmark | None:
    try:
        return load_bookmark(file)
    except UnicodeDecodeError:
        raise Failure(f"{file} is not a bookmark") from None
    except ValueError as error:
        raise Failure(str(error)) from None


def arrivals_from(path: str, core: Core, wait_for: Wait, file: Path | None) -> Iterator[Arrival]:
    """Yield what a subscription brings; raises :class:`Failure` when the relay closes.

    ``file`` is where its bookmark came from.
    """
    advice = f": remove {file} to begin anew, or name another file" if file else ""
    for event in subscribed(path, core, wait_for, advice):
        match event:
            case Message(data, bookmark):
                yield Arrival(data, bookmark)
            case Synced(bookmark):
                yield Arrival(None, bookmark)
            case Missed(gap, bookmark):
                tell_missing(gap.start, gap.stop, REASONS[gap.reason])
                yield Arrival(None, bookmark)
    raise closed(None, NO_REASON)


@click.command(
    epilog=examples(
        "signal-relay tail --type ArbitrageSignal,22 --source 20",
        "signal-relay tail --json | jq -c 'select(.publisher == 20) | .tlvs[].fields'",
        "signal-relay tail --raw --count 1000 > sample.v2",
        "signal-relay tail --layouts our-types.toml --hex --count 1",
        "signal-relay tail --since 10m",
        "while signal-relay tail --raw --bookmark day.bookmark >> day.v2; [ $? = 1 ]",
        "do sleep 1; done                      # goes on when the relay is started again",
    ),
)
@relay_options
@filter_options
@click.option("--count", "-n", type=WholeNumber(1), help="Exit after so many (matching) messages.")
@since_option
@click.option(
    "--last", type=WholeNumber(1), help="Begin with the last so many (matching) messages."
)
@click.option(
    "--bookmark",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Go on where the last run with this file stopped; it is made if missing. One"
    " bookmark, one filter: it is refused with other types or sources than it was kept with.",
)
@form_options
@layouts_option
def tail(
    path: str,
    types: tuple[str, ...],
    sources: frozenset[int],
    count: int | None,
    since: int | None,
    last: int | None,
    bookmark: Path | None,
    as_json: bool,
    with_hex: bool,
    raw: bool,
    table: SignalTable,
) -> None:
    """Print what is published, one line a message, as it comes.

    Listens as any consumer does, and publishes nothing. A line tells time (UTC), source, sequence
    and the fields of each TLV; what the table of layouts does not know is shown as hex. Where tail
    is the only consumer, publishers are held to its pace: --raw is the fastest.

    With --since, --last or --bookmark, tail asks the relay for what it has kept, and goes on live.
    What the relay no longer has is told on standard error, by its positions in the journal. With
    --bookmark, a message is taken once it has been written and flushed: after a crash some may
    come again, none is left out. A file that is there goes before --since and --last.

    With --json, a header's numbers are exact integers. Of a TLV's fields, the ones wider than 32
    bits are text, so that no reader rounds them, and "hex" is its whole value.

    Ends with status 1 when the relay closes the connection, as it does when it is restarted. With
    --bookmark it goes on where it stopped when it is started again: see the loop below.
    """
    if since is not None and last is not None:
        raise click.UsageError("--since and --last exclude each other.")
    numbers = type_numbers(types, table)
    place = Place(bookmark)
    output = open_output(table, as_json=as_json, with_hex=with_hex, raw=raw, flushed=place.save)
    if since is None and last is None and bookmark is None:
        arrivals = Consumer(path, output.wait_for).arrivals(Filter(numbers, sources))
    else:
        start, value = start_of(since, None, last)
        wishes = Wish.POSITIONS if bookmark is not None else NO_WISH
        asked = Subscribe(wishes, start, value, 0, numbers, sources)
        place.check(asked)
        core = new_core(asked, place.written)
        arrivals = arrivals_from(path, core, output.wait_for, bookmark)
    _follow(arrivals, output, place, count)


def _follow(arrivals: Iterator[Arrival], output: Output, place: Place, count: int | None) -> None:
    """Write the messages until there were ``count``; however it ends, what came is flushed."""
    shown = 0
    try:
        for message, behind in arrivals:
            if message is not None:
                output.send(message)
                shown += 1
            place.written = behind
            if shown == count:
                return
    finally:
        output.finish()
