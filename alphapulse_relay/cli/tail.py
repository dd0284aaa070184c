"""``signal-relay tail``: what is published, as it comes.

Knows how to follow a relay as a consumer that says nothing, and which messages are wanted; how a
message looks, ``render`` knows.
"""

import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import click
from rich.console import Console

from alphapulse_relay.cli import render
from alphapulse_relay.cli.connection import (
    FROM_RELAY,
    RECEIVE_SIZE,
    closed,
    connect,
    socket_option,
)
from alphapulse_relay.cli.layouts import (
    TypeParameter,
    layouts_option,
    source_numbers,
    type_numbers,
)
from alphapulse_relay.cli.words import Failure, examples, standard_output
from alphapulse_relay.protocol_v2.control import ErrorMessage, parse_error
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import MessageReader
from alphapulse_relay.protocol_v2.header import Domain, Header
from alphapulse_relay.protocol_v2.signals import SignalTable

NO_REASON = "it is gone, or this consumer did not keep up; the relay's log tells which"

Show = Callable[[bytes], bytes]
"""Makes of a message the bytes to write."""


@dataclass(frozen=True)
class Filter:
    """Which messages are wanted; an empty set stands for all."""

    types: frozenset[int]
    sources: frozenset[int]

    def admits(self, message: bytes) -> bool:
        """Whether the message is from one of the sources and holds a TLV of one of the types."""
        if not self.types and not self.sources:
            return True
        header = Header.unpack(message)
        if self.sources and header.publisher not in self.sources:
            return False
        if not self.types:
            return True
        tlvs = render.read_contents(message, header).tlvs
        return any(tlv.type in self.types for tlv in tlvs)


class Consumer:
    """A peer that only listens. ``out`` is where its messages go, in the end."""

    def __init__(self, connection: socket.socket, out: BinaryIO) -> None:
        self.error: ErrorMessage | None = None
        """What the relay had to say before it closed the connection."""
        self._connection = connection
        self._out = out
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._poll.register(out, 0)  # tells only that its reader is gone

    def messages(self) -> Iterator[bytes]:
        """Yield what is published until the relay closes; ``out`` is flushed before each wait."""
        reader = MessageReader(FROM_RELAY)
        while chunk := self._receive():
            try:
                for message in reader.feed(chunk):
                    if not self._is_error(message):
                        yield message
            except WireError as error:
                raise Failure(f"what comes is not Protocol V2: {error}") from None

    def _is_error(self, message: bytes) -> bool:
        """Keep an Error apart: it is the relay's own word, not published by anybody."""
        if message[4] != Domain.SYSTEM:
            return False
        error = parse_error(message)
        self.error = error or self.error
        return error is not None

    def _receive(self) -> bytes:
        """Return the next bytes; none at the end."""
        ready = self._poll.poll(0)
        if not ready:
            self._out.flush()
            ready = self._poll.poll()
        if any(descriptor == self._out.fileno() for descriptor, _ in ready):
            raise BrokenPipeError
        try:
            return self._connection.recv(RECEIVE_SIZE)
        except ConnectionResetError:
            return b""


@click.command(
    epilog=examples(
        "signal-relay tail --type ArbitrageSignal,22 --source 20",
        "signal-relay tail --json | jq -c 'select(.publisher == 20) | .tlvs[].fields'",
        "signal-relay tail --raw --count 1000 > sample.v2",
        "signal-relay tail --layouts our-types.toml --hex --count 1",
    ),
)
@socket_option
@click.option(
    "--type",
    "-t",
    "types",
    type=TypeParameter(),
    multiple=True,
    help="Only messages with a TLV of these types: numbers or names, separated by commas.",
)
@click.option(
    "--source",
    "sources",
    metavar="NUMBER",
    multiple=True,
    callback=source_numbers,
    help="Only messages of these sources, separated by commas.",
)
@click.option(
    "--count", "-n", type=click.IntRange(min=1), help="Exit after so many (matching) messages."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--hex", "with_hex", is_flag=True, help="Also dump the bytes of each message.")
@click.option("--raw", is_flag=True, help="The messages' bytes as they came, for a file or a pipe.")
@layouts_option
def tail(
    path: str,
    types: tuple[str, ...],
    sources: frozenset[int],
    count: int | None,
    as_json: bool,
    with_hex: bool,
    raw: bool,
    table: SignalTable,
) -> None:
    """Print what is published, one line a message, as it comes.

    Listens as any consumer does and sends nothing. A line tells time (UTC), source, sequence and
    the fields of each TLV; what the table of layouts does not know is shown as hex. Where tail is
    the only consumer, publishers are held to its pace: --raw is the fastest.

    With --json, a header's numbers are exact integers. Of a TLV's fields, the ones wider than 32
    bits are text, so that no reader rounds them, and "hex" is its whole value.

    Ends with status 1 when the relay closes the connection.
    """
    if sum((as_json, with_hex, raw)) > 1:
        raise click.UsageError("--json, --hex and --raw exclude each other.")
    out = standard_output().buffer
    if raw and out.isatty():
        raise click.UsageError("--raw writes bytes that are not for a terminal: redirect them.")
    show = _renderer(table, as_json, with_hex, raw)
    wanted = Filter(type_numbers(types, table), sources)
    with connect(path) as connection:
        _follow(Consumer(connection, out), out, wanted, count, show)


def _follow(
    consumer: Consumer, out: BinaryIO, wanted: Filter, count: int | None, show: Show
) -> None:
    """Write the wanted messages until there were ``count``."""
    at_once, shown = out.isatty(), 0
    for message in consumer.messages():
        if not wanted.admits(message):
            continue
        out.write(show(message))
        if at_once:
            out.flush()
        shown += 1
        if shown == count:
            out.flush()
            return
    out.flush()
    raise closed(consumer.error, NO_REASON)


def _renderer(table: SignalTable, as_json: bool, with_hex: bool, raw: bool) -> Show:
    """Return how a message becomes the bytes to write."""
    if raw:
        return bytes
    console = Console()
    colour = console.color_system is not None and not console.no_color

    def text(message: bytes) -> bytes:
        header = Header.unpack(message)
        contents = render.read_contents(message, header)
        if as_json:
            shown = render.json_line(message, header, contents, table)
        else:
            shown = render.line(header, contents, table, colour=colour)
        dump = f"\n{render.dump(message)}" if with_hex else ""
        return f"{shown}{dump}\n".encode()

    return text
