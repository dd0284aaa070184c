"""How a bridge ends that cannot start or go on: with one line, and a status for its supervisor."""

import atexit
import os
import sys
from typing import NoReturn

PROGRAM = "signal-relay-bridge"


class StartError(Exception):
    """Why the bridge cannot start. ``str()`` is one line for a person.

    It ends with EX_CONFIG, 78 (sysexits.h): trying again does not help.
    """


def exit_with(message: str) -> NoReturn:
    """End the process with one line on standard error, and EX_CONFIG."""
    say(message)
    raise SystemExit(os.EX_CONFIG)


def end_with(status: int) -> None:
    """Have the process end with that status: a reactor that was stopped would end it with 0."""
    atexit.register(_end_at_once, status)


def say(message: str) -> None:
    """Write a line to standard error."""
    # Once twistd logs, sys.stderr leads into the log.
    print(f"{PROGRAM}: {message}", file=sys.__stderr__)


def _end_at_once(status: int) -> None:
    sys.stdout.flush()
    os._exit(status)
