"""When messages are due that are replayed at a speed, by the times in their headers.

Knows headers and a clock; nobody waits here.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from alphapulse_relay.cli.words import say
from alphapulse_relay.protocol_v2.header import Header

LONGEST_WAIT = 60.0
"""Seconds between two messages beyond which nobody would go on watching: the rest is left out."""
LEAST_SPEED, MOST_SPEED = 1e-3, 1e6
"""Below, each second takes a quarter of an hour; above, a day takes a tenth of a second."""
AT_ONCE = "max"
_NS = 1_000_000_000


class SpeedParameter(click.ParamType[float]):
    """A speed as "10x" or "0.5x"; "max", which does not wait at all, is infinity."""

    name = "speed"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the speed."""
        if isinstance(value, float):
            return value
        if value == AT_ONCE:
            return float("inf")
        try:
            speed = float(value.removesuffix("x"))
        except ValueError:
            speed = 0.0
        if not LEAST_SPEED <= speed <= MOST_SPEED:
            accepted = f"from {LEAST_SPEED:g}x to {MOST_SPEED:.0f}x"
            self.fail(f"{value!r} is neither a speed {accepted} nor {AT_ONCE}", param, ctx)
        return speed


class Anchor(NamedTuple):
    """A time in headers (ns since the epoch), and the moment of the clock that it stands for."""

    time: int
    moment: float


class Timing:
    """Moments of a clock, in seconds, for messages in their order; no moment is before the last.

    Every source has a clock of its own, which may be wrong or set back. So its messages are due by
    what lies between them, and those of a new source by the clock of the one before it. A message
    whose time does not fit, or is 0, is due with the one before it.
    """

    def __init__(self, speed: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._speed = speed
        self._clock = clock
        self._anchors: dict[int, Anchor] = {}
        self._latest: Anchor | None = None
        self._due: float | None = None

    def due(self, header: Header) -> float:
        """Return when a message is due; the first is now."""
        last = self._clock() if self._due is None else self._due
        self._due = max(self._moment(header, last), last) if header.timestamp else last
        return self._due

    def _moment(self, header: Header, last: float) -> float:
        here = Anchor(header.timestamp, last)
        known = self._anchors.get(header.publisher)
        anchor = known or self._latest or here
        moment = anchor.moment + (header.timestamp - anchor.time) / _NS / self._speed
        wait = moment - last
        if wait > LONGEST_WAIT and known:
            self._leave_out(wait - LONGEST_WAIT)
            anchor, moment = self._anchors[header.publisher], last + LONGEST_WAIT
        elif abs(wait) > LONGEST_WAIT:
            anchor, moment = here, last
        self._anchors[header.publisher] = self._latest = anchor
        return moment

    def _leave_out(self, seconds: float) -> None:
        """Let everything that follows be so much earlier."""
        say(f"nothing for {LONGEST_WAIT + seconds:.0f} s: {LONGEST_WAIT:.0f} s of it are waited")
        self._anchors = {
            source: Anchor(time, moment - seconds)
            for source, (time, moment) in self._anchors.items()
        }
