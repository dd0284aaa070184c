"""What a service manager is told: sd_notify(3), and its watchdog (sd_watchdog_enabled(3)).

Knows the words, when they are due and where they go. Where no manager listens, nothing is done.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

STATUS_SECONDS = 5.0
"""Between two lines on how the relay does: soon enough for people who look."""
FEEDS_PER_TIMEOUT = 2
"""How often within its time the watchdog is fed, as sd_watchdog_enabled(3) advises."""


class Notifier:
    """Tells the manager how the service is.

    ``environ`` is where the manager says how it is reached; ``summarize`` returns a line for
    people. The watchdog is fed by the reactor: one that hangs feeds it no more.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, environ: Mapping[str, str], summarize: Callable[[], str]
    ) -> None:
        self._clock = clock
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._environ = environ
        self._summarize = summarize
        self._untold = ""
        self._cannot = False  # which was logged
        self._loops: list[LoopingCall] = []

    def ready(self) -> None:
        """Tell that the service serves, for the first time or after :meth:`reloading`."""
        self._change("READY=1")
        if self._address and not self._loops:
            self._repeat(STATUS_SECONDS, self._tell_summary)
            if (timeout := watchdog_seconds(self._environ)) is not None:
                self._repeat(timeout / FEEDS_PER_TIMEOUT, self._feed)

    def reloading(self) -> None:
        """Tell that the settings are read again."""
        self._change(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Tell that the service leaves; the watchdog is fed until :meth:`stop`."""
        self._change("STOPPING=1")

    def stop(self) -> None:
        """Say nothing more."""
        for loop in self._loops:
            if loop.running:
                loop.stop()

    def _repeat(self, seconds: float, action: Callable[[], None]) -> None:
        loop = LoopingCall(action)
        loop.clock = self._clock
        loop.start(seconds).addErrback(
            lambda failure: self._log.failure("the service manager is told no more", failure)
        )
        self._loops.append(loop)

    def _tell_summary(self) -> None:
        self._send(f"STATUS={self._summarize()}")

    def _feed(self) -> None:
        self._send("WATCHDOG=1")

    def _change(self, state: str) -> None:
        """Tell of a state: with what is told next, where the manager has no room for it now."""
        self._untold = state
        self._send("")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        words = "\n".join(filter(None, (self._untold, text)))
        try:
            notify(self._address, words)
        except BlockingIOError:
            return
        except OSError as error:
            if not self._cannot:
                self._log.warn(
                    "the service manager at {address} cannot be told: {error}",
                    address=self._address,
                    error=error.strerror or error,
                )
            self._cannot = True
        else:
            self._cannot = False
        self._untold = ""


def notify(address: str, words: str) -> None:
    """Send lines to a manager's socket, without waiting; a leading ``@`` is an abstract one.

    Raises ``OSError``: ``BlockingIOError`` if it has no room now.
    """
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(words.encode(), address)


def watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """Return after how many seconds without a word the manager ends us; None if it never does."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    pid = environ.get("WATCHDOG_PID", "")
    if pid not in ("", str(os.getpid())):
        return None  # it watches another process
    if not re.fullmatch("[0-9]{1,20}", microseconds):  # as many as 64 bits have
        return None
    return int(microseconds) / 1e6 or None
