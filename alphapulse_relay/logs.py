"""Where the log goes and what a line of it looks like.

Makes the observer that twistd uses instead of its own: the same destination and, as text, the same
lines, but with a least level and, if wanted, as JSON. Knows nothing of what is logged.

The top service hands it to twistd: ``application.setComponent(ILogObserver, observer)`` before
twistd starts its logger (``twisted.application.app.AppLogger.start``).
"""

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Any

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
)
from twisted.python.logfile import LogFile
from twisted.python.reflect import safe_str
from zope.interface import implementer

_log = Logger()

_DEFAULT_FILE = "twistd.log"
_LEGACY_FIELDS = frozenset({"format", "isError", "printed", "system", "why"})
"""What ``twisted.python.log`` adds to each event for its own use."""


@implementer(ILogObserver)
class FileLog:
    """Writes events of at least ``level`` to a file, as ``form`` (``text`` or ``json``)."""

    def __init__(self, level: str, form: str, out: IO[Any]) -> None:
        encoding = getattr(out, "encoding", None) or "utf-8"
        line = json_line if form == "json" else _text_line(encoding)
        self._out = out
        self._least = LogLevelFilterPredicate(LogLevel.levelWithName(level))
        self._write = FilteringLogObserver(FileLogObserver(out, line), [self._least])

    def __call__(self, event: LogEvent) -> None:
        """Write an event, if it is severe enough."""
        self._write(event)

    def set_level(self, level: str) -> None:
        """Write events of at least that level from now on."""
        self._least.setLogLevelForNamespace("", LogLevel.levelWithName(level))

    def reopen(self) -> bool:
        """Go on in the file that has the name now: another program may have moved ours away.

        False if there can be none; then nothing has changed, which the log tells.
        """
        if not isinstance(self._out, LogFile):
            return True
        try:
            os.close(os.open(self._out.path, os.O_RDWR | os.O_CREAT, 0o666))
        except OSError as error:
            _log.warn("SIGHUP: the log stays in the file that is open: {error}", error=str(error))
            return False
        self._out.reopen()
        return True


def observer(level: str, form: str, twistd: Mapping[str, Any]) -> FileLog | None:
    """Return the observer for events of at least ``level``, as ``form`` (``text`` or ``json``).

    ``twistd`` is the options of twistd itself. None where the log is left to twistd: with
    ``--syslog``, with ``--logger``, and for a daemon that is told to log to stdout, which twistd
    refuses. Raises ``OSError`` if the log file cannot be opened.
    """
    if twistd.get("logger") or twistd.get("syslog"):
        return None
    name, in_foreground = twistd.get("logfile"), twistd.get("nodaemon")
    if name == "-" and not in_foreground:
        return None
    to_stdout = name == "-" or (in_foreground and not name)
    out: Any = sys.stdout if to_stdout else _log_file(name or _DEFAULT_FILE)
    return FileLog(level, form, out)


def _log_file(name: str) -> LogFile:
    """Open a log file that rotates by size and on SIGUSR1, the way twistd does it."""
    log_file: LogFile = LogFile.fromFullPath(name)

    def rotate(*_: object) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 (which one is chosen late)

        reactor.callFromThread(log_file.rotate)  # type: ignore[attr-defined]

    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, rotate)
    return log_file


def _text_line(encoding: str) -> Callable[[LogEvent], str | None]:
    """Return a formatter as ``twisted.logger.textFileLogObserver`` has it.

    What the file's encoding has no character for is escaped, so that no event is lost to it.
    """

    def format_event(event: LogEvent) -> str | None:
        text = formatEventAsClassicLogText(event)
        return text and text.encode(encoding, "backslashreplace").decode(encoding)

    return format_event


def json_line(event: LogEvent) -> str | None:
    """Return an event as a JSON object and a newline, all in ASCII; None if it says nothing.

    ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message`` and, for a failure, ``traceback``
    come first, then the event's own fields: numbers, strings and truth values as they are,
    anything else as text. A field that has one of those names stays out. Never raises.
    """
    record = _head(event)
    if not record["message"] and "traceback" not in record:
        return None
    for name, value in event.items():
        if not str(name).startswith("log_") and name not in _LEGACY_FIELDS:
            record.setdefault(name, _plain(value))
    return json.dumps(record) + "\n"


def _head(event: LogEvent) -> dict[str, object]:
    level, time = event.get("log_level"), event.get("log_time")
    head: dict[str, object] = {
        "time": _iso(time),
        "level": getattr(level, "name", None),
        "logger": _plain(event.get("log_namespace")),
        "message": formatEvent(event),
    }
    if event.get("log_failure") is not None:
        head["traceback"] = _traceback(event["log_failure"])
    return head


def _iso(time: object) -> str | None:
    """Write seconds since the epoch as ISO 8601."""
    try:
        when = datetime.fromtimestamp(time, UTC)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _traceback(failure: Any) -> str:
    try:
        return str(failure.getTraceback())
    except Exception:  # an odd failure must not cost the event
        return safe_str(failure)


def _plain(value: object) -> object:
    """Return what JSON has, or text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int) and abs(value) < 1 << 64:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return safe_str(value)
