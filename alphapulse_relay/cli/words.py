"""What is said to a person: one line to standard error, and help texts.

Knows click; neither sockets nor messages.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TextIO

import click


class Failure(click.ClickException):
    """What ends a command with status 1, in one line."""

    def show(self, _file: IO[Any] | None = None) -> None:
        """Print the line to standard error."""
        say(self.message)


def cannot_write(path: Path, error: OSError) -> Failure:
    """Return what to tell of a file of the user's, however it was called while it was made."""
    return Failure(f"cannot write {path}: {error.strerror or error}")


def say(text: str) -> None:
    """Print one line to standard error, as this program's; lost if that cannot be written."""
    if sys.stderr is None:
        return
    # Not by click.echo: it would go past a progress bar, which replaces sys.stderr meanwhile.
    with suppress(OSError):
        sys.stderr.write(f"signal-relay: {printable(text)}\n")
        sys.stderr.flush()


def standard_output() -> TextIO:
    """Return standard output; raises :class:`Failure` if we were started without one."""
    if sys.stdout is None:
        raise Failure("standard output is closed")
    return sys.stdout


def printable(text: str) -> str:
    """Return the text without control characters: what others say must not steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def examples(*lines: str, title: str = "Examples") -> str:
    """Return the end of a help text: lines that click must not wrap."""
    return "\n".join(["\b", f"{title}:", *(f"  {line}" for line in lines)])
