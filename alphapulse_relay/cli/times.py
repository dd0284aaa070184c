"""Points in time as options take them.

Knows click; nothing of what lies at that time.
"""

import math
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

_NS = 1_000_000_000
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MOST_NS = (1 << 64) - 1
_ACCEPTED = "an age (90s, 10m, 2h, 3d, 1w), a time (2026-05-04T12:30, UTC) or unix seconds"


def since_ns(text: str, now: int) -> int:
    """Return the time that is meant, in ns since the epoch; ``now`` too is in ns.

    Raises ``ValueError``, one line that says what is accepted.
    """
    found = _age(text, now)
    if found is None:
        found = _unix(text)
    if found is None:
        found = _moment(text)
    if found is None or found > _MOST_NS:
        raise ValueError(f"{text!r} is not {_ACCEPTED}")
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
        help="Only what came then or later: 10m or 2h ago, a time as 2026-05-04T12:30 (UTC), or"
        " unix seconds.",
    )(command)


def _age(text: str, now: int) -> int | None:
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    return now - int(match[1]) * _SECONDS[match[2]] * _NS if match else None


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
