"""Where messages are written: in which form, and when they are flushed.

Knows standard output; how a message looks, ``render`` knows.
"""

import math
import select
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import click
from rich.console import Console

from alphapulse_relay.cli import render
from alphapulse_relay.cli.words import standard_output
from alphapulse_relay.protocol_v2.signals import SignalTable

FLUSH_SECONDS = 1.0
"""For how long messages may wait to be flushed while others come without a pause."""

Show = Callable[[bytes], bytes]
"""Makes of a message the bytes to write."""


def _nothing() -> None:
    """Do nothing about what has been flushed."""


class Output:
    """A file that messages are written to. ``flushed`` is called whenever all of them have been.

    All methods raise ``BrokenPipeError`` once the file's reader is gone.
    """

    def __init__(self, out: BinaryIO, show: Show, flushed: Callable[[], None] = _nothing) -> None:
        self.is_terminal = out.isatty()
        self._out = out
        self._show = show
        self._flushed = flushed
        self._next_flush = time.monotonic() + FLUSH_SECONDS
        self._reader_gone = select.poll()
        self._reader_gone.register(out, 0)

    def send(self, message: bytes) -> None:
        """Write a message; a terminal gets it at once."""
        self._out.write(self._show(message))
        if self.is_terminal:
            self._out.flush()

    def wait_for(self, descriptor: int) -> None:
        """Wait for another file to be readable; what was written is flushed before that."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._out, 0)  # tells only that its reader is gone
        ready = poll.poll(0)
        if not ready or time.monotonic() >= self._next_flush:
            self.finish()
        if any(number == self._out.fileno() for number, _ in ready or poll.poll()):
            raise BrokenPipeError

    def wait_until(self, moment: float) -> None:
        """Wait for a moment of the monotonic clock; before that, what was written is flushed."""
        if moment <= time.monotonic():
            return
        self.finish()
        while (left := moment - time.monotonic()) > 0:
            if self._reader_gone.poll(math.ceil(left * 1000)):
                raise BrokenPipeError

    def finish(self) -> None:
        """Flush what was written."""
        self._out.flush()
        self._flushed()
        self._next_flush = time.monotonic() + FLUSH_SECONDS


def form_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say in which form messages are written."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
        click.option("--hex", "with_hex", is_flag=True, help="Also dump each message's bytes."),
        click.option(
            "--raw", is_flag=True, help="The messages' bytes as they came, for a file or a pipe."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def open_output(
    table: SignalTable,
    *,
    as_json: bool,
    with_hex: bool,
    raw: bool,
    flushed: Callable[[], None] = _nothing,
) -> Output:
    """Return standard output as the options want it; raises ``UsageError`` if they do not fit."""
    if sum((as_json, with_hex, raw)) > 1:
        raise click.UsageError("--json, --hex and --raw exclude each other.")
    out = standard_output().buffer
    if raw and out.isatty():
        raise click.UsageError("--raw writes bytes that are not for a terminal: redirect them.")
    return Output(out, bytes if raw else _text(table, as_json, with_hex), flushed)


def _text(table: SignalTable, as_json: bool, with_hex: bool) -> Show:
    """Return how a message becomes lines of text."""
    console = Console()
    colour = console.color_system is not None and not console.no_color

    def text(message: bytes) -> bytes:
        if as_json:
            shown = render.json_line(message, table)
        else:
            shown = render.line(message, table, colour=colour)
        dump = f"\n{render.dump(message)}" if with_hex else ""
        return f"{shown}{dump}\n".encode()

    return text
