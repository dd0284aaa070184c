"""What happened in each of the last seconds, for who plots it.

Reads the hub's counters on time, whether anybody looks or not: so a page has a past to show as soon
as it opens.
"""

import time
from array import array
from collections import deque
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from alphapulse_relay.hub.counters import Counters
from alphapulse_relay.hub.factory import SignalRelayFactory

RATES_INTERVAL = 1.0
"""Seconds between samples."""
RATES_KEPT = 600
"""Samples that are kept, some 200 bytes of JSON each: ten minutes, all that a plot of a glance has
room for. What was before that Prometheus knows."""

Sample = dict[str, Any]


class Rates:
    """Takes samples of a hub between :meth:`start` and :meth:`stop`, when ``clock`` says."""

    def __init__(self, hub: SignalRelayFactory, clock: IReactorTime) -> None:
        self._hub = hub
        self._clock = clock
        self._samples = deque[Sample](maxlen=RATES_KEPT)
        self._before = _totals(hub)
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Begin: the first sample is there after an interval."""
        self._before = _totals(self._hub)
        self._wait()

    def stop(self) -> None:
        """Take no more samples; those that are there stay."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def describe(self, since: float | None = None) -> dict[str, Any]:
        """Return the samples that are newer than ``since``, oldest first, and their interval.

        Times are in seconds since the epoch. Newer than a sample's own ``at`` is all that was taken
        after it, even if the machine's clock was set back meanwhile.
        """
        return {"interval": RATES_INTERVAL, "samples": self._newer(since)}

    def _newer(self, since: float | None) -> list[Sample]:
        samples = list(self._samples)
        times = [sample["at"] for sample in samples]
        if since in times:
            return samples[times.index(since) + 1 :]
        return [sample for sample in samples if since is None or sample["at"] > since]

    def _wait(self) -> None:
        self._call = self._clock.callLater(RATES_INTERVAL, self._on_time)

    def _on_time(self) -> None:
        self._wait()  # first: whatever fails, the next sample is taken
        before, now = self._before, _totals(self._hub)
        self._before = now
        self._samples.append(_difference(before, now))


class _Totals(NamedTuple):
    """What the hub has counted by a moment."""

    moment: float
    """In seconds of a clock that nobody sets, and that stands still while the machine sleeps."""
    messages: int
    bytes: int
    delivered: int
    dropped: int
    missed: int
    types: "array[int]"
    sources: "array[int]"
    troubles: dict[str, int]


def _totals(hub: SignalRelayFactory) -> _Totals:
    counters = hub.counters
    return _Totals(
        time.monotonic(),
        counters.messages_received,
        counters.bytes_received,
        hub.messages_delivered,
        sum(counters.dropped.values()),
        sum(counters.missed.values()),
        counters.types[:],
        counters.sources[:],
        _troubles(counters),
    )


def _troubles(counters: Counters) -> dict[str, int]:
    """Return all that has gone wrong, by kind and reason; what has not is left out."""
    kinds = {
        "dropped": counters.dropped.items(),
        "missed": counters.missed.items(),
        "refused": counters.refused.items(),
        "ended": counters.ended.items(),
        "missing": enumerate(counters.sequences_missing),
        "repeated": enumerate(counters.sequences_repeated),
    }
    return {f"{kind}.{key}": n for kind, counts in kinds.items() for key, n in counts if n}


def _difference(before: _Totals, now: _Totals) -> Sample:
    """Return what happened in between. ``seconds`` is how long that was: a reactor may be late."""
    return {
        "at": round(time.time(), 3),
        "seconds": round(now.moment - before.moment, 3),
        "messages": now.messages - before.messages,
        "bytes": now.bytes - before.bytes,
        "delivered": now.delivered - before.delivered,
        "dropped": now.dropped - before.dropped,
        "missed": now.missed - before.missed,
        "types": _increases(before.types, now.types),
        "sources": _increases(before.sources, now.sources),
        "troubles": {
            key: grown
            for key, count in now.troubles.items()
            if (grown := count - before.troubles.get(key, 0))
        },
    }


def _increases(before: "array[int]", now: "array[int]") -> dict[str, int]:
    """Return by how much which count has grown, of those that have."""
    if now == before:
        return {}
    pairs = enumerate(zip(before, now, strict=True))
    return {str(number): after - count for number, (count, after) in pairs if after != count}
