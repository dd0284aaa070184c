"""How the journal's figures look as tables."""

from rich.console import Console
from rich.table import Table

from alphapulse_relay.cli.words import standard_output
from alphapulse_relay.protocol_v2.document import time_text

WIDTH = 140
"""Columns where standard output is no terminal: room for all, so that no number is cut."""


def console() -> Console:
    """Return where tables are printed."""
    out = standard_output()
    shown = Console(file=out, highlight=False)
    return shown if shown.is_terminal else Console(file=out, highlight=False, width=WIDTH)


def empty_table(text: tuple[str, ...], numbers: tuple[str, ...], more: tuple[str, ...]) -> Table:
    """Return an empty table: columns of text, of numbers, and again of text."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for heading in text:
        made.add_column(heading, overflow="fold")
    for heading in numbers:
        made.add_column(heading, justify="right", overflow="fold")
    for heading in more:
        made.add_column(heading, overflow="fold")
    return made


def moment(time: int) -> str:
    """Return a time (ns since the epoch) for people, in UTC; empty if it is not known."""
    return time_text(time, 3) if time else ""
