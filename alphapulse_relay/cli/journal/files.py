"""The way to a journal's files, and what to tell a person when they cannot be read.

Knows the journal room, where to begin in it, and the words for what goes wrong with it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from alphapulse_relay.cli.connection import DEFAULT_SOCKET
from alphapulse_relay.cli.filters import EVERYTHING, Filter
from alphapulse_relay.cli.numbers import MOST, counted
from alphapulse_relay.cli.words import Failure, say
from alphapulse_relay.journal.format import FormatError
from alphapulse_relay.journal.reader import Entry, Journal, Lost

_NAME_IT = "name the directory with --journal"


class JournalCommand(click.Command):
    """A command that looks into a journal. It takes no arguments, which a person might try."""

    allow_extra_args = True  # so that what is told of them says what to do

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options."""
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            raise click.UsageError(
                f"Unexpected argument {rest[0]!r}: {_NAME_IT}, or -j for short.", ctx
            )
        return rest


def journal_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that names the journal's directory."""
    return click.option(
        "--journal",
        "-j",
        "directory",
        type=click.Path(path_type=Path),
        default=_beside_the_socket,
        envvar="SIGNAL_RELAY_JOURNAL",
        show_default=f"beside the socket of SIGNAL_RELAY_SOCKET, or {DEFAULT_SOCKET}",
        show_envvar=True,
        help="The journal's directory.",
    )(command)


def _beside_the_socket() -> Path:
    """Return where a relay keeps its journal if it is not told where."""
    socket = os.environ.get("SIGNAL_RELAY_SOCKET") or DEFAULT_SOCKET
    if socket.startswith("@"):
        raise click.UsageError(f"There is no directory beside {socket!r}: {_NAME_IT}.")
    return Path(socket).parent / "journal"


def open_journal(
    directory: Path,
    *,
    verify: Literal["none", "all"] = "none",
    progress: Callable[[int, int], object] = lambda _done, _all: None,
) -> Journal:
    """Read a journal; raises :class:`Failure` with what to do if there is none."""
    try:
        return Journal.open(directory, verify=verify, progress=progress)
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(f"no journal: there is no directory {directory}: {_NAME_IT}") from None
    except PermissionError as error:
        where = error.filename or directory
        raise Failure(f"no permission to read {where}: its group may, join that") from None
    except FormatError as error:
        raise Failure(f"{error}: {_NAME_IT}" if "holds no" in str(error) else str(error)) from None


def entries_from(
    found: Journal, wanted: Filter, *, since: int | None, position: int | None, last: int | None
) -> Iterator[Entry]:
    """Yield the messages from a place on; ``last`` counts only what is wanted.

    What is not wanted comes as well. The other places are those of :meth:`Journal.entries`.
    """
    if last is None or wanted == EVERYTHING:
        return found.entries(since=since, position=position, last=last)
    entries = found.entries(since=since, position=position)
    matching = (each.position for each in entries if wanted.admits(each.message))
    # More than all there are would not fit the queue's own limit, 63 bits.
    positions = deque(matching, maxlen=min(last, found.messages))
    found.lost.clear()  # whoever reads on from there comes upon it again
    return found.entries(position=positions[0] if positions else MOST)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], object]]:
    """Show on a terminal's standard error how much is done."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), TimeRemainingColumn())
    shown = console.is_terminal
    with Progress(*columns, console=console, disable=not shown, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def tell_lost(lost: list[Lost]) -> None:
    """Say what could not be had, and fail if that is anything."""
    for each in lost:
        say(f"positions {each.start} to {each.stop} are lost: {each.reason}")
    if lost:
        missing = sum(each.stop - each.start for each in lost)
        raise Failure(f"{counted(missing, 'byte', ',')} of the journal could not be had")
