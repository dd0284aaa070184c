"""How a start goes on when something is in its way, and how the process ends if it cannot.

What is started it does not know.
"""

import atexit
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.internet.defer import CancelledError
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from alphapulse_relay.unix_socket import StartError

FREE_SECONDS = 2.0
"""How long a relay that takes over waits for the journal of one that was killed while it left: its
connections are closed a moment before its files."""
FREE_INTERVAL = 0.02
"""Seconds between looks whether that is done."""
TRIAL_SIZE = 4096
"""Bytes of a journal that are tried before another relay leaves: its first file takes as many, a
block of most file systems."""

_log = Logger()


def check_writable(journal: Path | None) -> None:
    """Raise :class:`StartError` if the journal could not be written, now; make its directory."""
    if journal is None:
        return
    try:
        journal.mkdir(mode=0o750, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=journal) as trial:
            trial.write(bytes(TRIAL_SIZE))
            trial.flush()
            os.fsync(trial.fileno())
    except FileExistsError:
        raise StartError(f"--journal: {journal} is not a directory") from None
    except OSError as error:
        raise StartError(f"--journal: {journal}: {error.strerror or error}") from error


def listen(part: IService, option: str) -> None:
    """Have a part of the relay listen. Raises :class:`StartError` that names the option."""
    try:
        part.privilegedStartService()
    except (CannotListenError, OSError) as error:
        reason = getattr(error, "socketError", error)
        text = getattr(reason, "strerror", None) or reason
        raise StartError(f"{option}: cannot listen: {text}") from error


async def open_when_free(
    open_log: Callable[[], None], clock: IReactorTime, leaving: Callable[[], bool]
) -> bool:
    """Open the log, as soon as nobody has the journal; return whether that was before we leave.

    Raises :class:`StartError` as ``open_log`` does; with EX_TEMPFAIL only after FREE_SECONDS.
    """
    until = clock.seconds() + FREE_SECONDS
    while not leaving():
        try:
            open_log()
        except StartError as error:
            if error.status != os.EX_TEMPFAIL or clock.seconds() >= until:
                raise
            await deferLater(clock, FREE_INTERVAL)
        else:
            return True
    return False


def give_up(failure: Failure, reactor: Any) -> None:
    """End a start that failed when the reactor runs, which would only log an exception."""
    if failure.check(CancelledError) is not None:
        return
    error, status = failure.value, os.EX_SOFTWARE
    if isinstance(error, StartError):
        status = error.status
        _log.error("cannot start: {message}", message=str(error))
    else:
        _log.failure("cannot start", failure)
    print(f"signal-relay: {error}", file=sys.__stderr__)
    atexit.register(exit_at_once, status)
    reactor.callWhenRunning(reactor.stop)


def exit_with(message: str, status: int) -> NoReturn:
    """End the process with one line on standard error."""
    # Once twistd logs, sys.stderr leads into the log.
    print(f"signal-relay: {message}", file=sys.__stderr__)
    raise SystemExit(status)


def exit_at_once(status: int) -> None:
    """End the process with that status, which at its end nothing else can give it."""
    sys.stdout.flush()
    os._exit(status)
