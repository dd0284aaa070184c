"""Points in time as options take them.

Knows click; nothing of what lies at that time.
"""

import math
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import click

_NS = 1_000_000_000
_SECONDS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
"""Units of an age, in the order in which they are written."""
_ACCEPTED = (
    "an age (90s, 10m, 1.5h, 1h30m, 3d, 1w), a time (2026-05-04T12:30, UTC, or with a zone as"
    " +02:00) or unix seconds"
)
_AHEAD_NS = 5 * _NS
"""How far ahead of ours another machine's clock may be: what is later is a mistake."""
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_AGE = re.compile("".join(f"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _SECONDS))


def since_ns(text: str, now: int) -> int:
    """Return the time that is meant, in ns since the epoch; ``now`` too is in ns.

    Raises ``ValueError``, one line that says what is accepted, also for a time to come.
    """
    found = _age(text, now)
    if found is None:
        found = _unix(text)
    if found is None:
        found = _moment(text)
    if found is None:
        raise ValueError(f"{text!r} is not {_ACCEPTED}")
    if found > now + _AHEAD_NS:
        raise ValueError(f"{text!r} is in the future: nothing can have come since")
    return max(found, 0)


class SinceParameter(click.ParamType[int]):
    """A point in time; its value is in ns since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the time, an age as counted from now."""
        if isinstance(value, int):
            return value
        try:
            return since_ns(value, time.time_ns())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def since_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that says from which time on."""
    return click.option(
        "--since",
        type=SinceParameter(),
        help="Only what the relay received then or later (lines show the publisher's time): 10m or"
        " 1h30m ago, a time as 2026-05-04T12:30 (UTC, or with a zone as +02:00), or unix seconds.",
    )(command)


def _age(text: str, now: int) -> int | None:
    match = _AGE.fullmatch(text)
    if not text or match is None:
        return None
    parts = ((Fraction(number), unit) for unit, number in match.groupdict("0").items())
    return now - int(sum(number * _SECONDS[unit] * _NS for number, unit in parts))


def _unix(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,11})(?:\.([0-9]{1,9}))?", text)
    return int(match[1]) * _NS + int((match[2] or "").ljust(9, "0")) if match else None


def _moment(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = math.floor(moment.timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds * _NS + moment.microsecond * 1000
