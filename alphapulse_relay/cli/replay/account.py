"""What was replayed so far, as a line and as a progress bar.

Knows rich; neither where messages come from nor where they go.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.subscriber import tell_missing
from alphapulse_relay.journal.reader import Lost

SHOW_INTERVAL = 0.1
"""Seconds between looks of the progress bar at the account: it costs more than a message."""


class Account:
    """Messages, their bytes, and the positions of the journal that have been passed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.messages = 0
        self.bytes = 0
        self.missed = 0
        """Bytes of the journal that will not come."""
        self.start: int | None = None
        self.position = 0
        self._clock = clock
        self._started = clock()

    def add(self, message: bytes) -> None:
        """Count a message."""
        self.messages += 1
        self.bytes += len(message)

    def miss(self, lost: Lost) -> None:
        """Count positions that will not come, and tell of them."""
        self.missed += lost.stop - lost.start
        tell_missing(lost.start, lost.stop, lost.reason)

    def reached(self, position: int) -> None:
        """Note how far it has come; the first time, where it begins."""
        if self.start is None:
            self.start = position
        self.position = position

    @property
    def rate(self) -> float:
        """Messages a second."""
        seconds = self._clock() - self._started
        return self.messages / seconds if seconds > 0 else 0.0

    def __str__(self) -> str:
        text = (
            f"replayed {counted(self.messages, 'message')}, {counted(self.bytes, 'byte')} in"
            f" {self._clock() - self._started:.3f} s ({self.rate:.0f} messages/s)"
        )
        if self.start is not None:
            text += f", positions {self.start} to {self.position}"
        return text + (f", {counted(self.missed, 'byte')} missing" if self.missed else "")


@contextmanager
def progress_bar(account: Account, head: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Show on a terminal's standard error how far the account has come on the way to the head.

    Yields what is to be called whenever that has changed.
    """
    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    shown = shown and console.is_terminal
    with Progress(*columns, console=console, disable=not shown) as progress:
        task = progress.add_task(_told(account, head), total=None)
        next_look = 0.0

        def look() -> None:
            start, end = account.start or 0, max(head, account.position)
            told = _told(account, end)
            done = account.position - start
            progress.update(task, completed=done, total=end - start, description=told)

        def look_sometimes() -> None:
            nonlocal next_look
            now = time.monotonic()
            if shown and now >= next_look:
                next_look = now + SHOW_INTERVAL
                look()

        yield look_sometimes
        look()


def _told(account: Account, head: int) -> str:
    return (
        f"position {account.position:,} of {head:,}, {counted(account.messages, 'message', ',')},"
        f" {decimal(account.bytes)}, {account.rate:,.0f}/s"
    )
