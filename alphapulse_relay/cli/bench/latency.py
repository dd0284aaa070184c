"""Latencies: how they are kept, their percentiles, and buckets to draw them in.

Knows numbers only; neither where they come from nor how they are shown.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate, dropwhile

SIGNIFICANT_BITS = 8
"""Of a latency so many bits are kept, which is right to 0.8 %: however many there are, they fit."""
STEPS = (10, 15, 20, 30, 50, 70)
"""Where buckets begin within a factor of ten: round numbers, about evenly apart on a log scale."""
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_LONGEST = 12
"""Powers of ten of nanoseconds above ``STEPS`` that have buckets: to above 2 hours."""
_BOUNDS = [step * 10**power for power in range(_LONGEST) for step in STEPS]


class Latencies:
    """Many latencies, in nanoseconds."""

    def __init__(self) -> None:
        self.least = 0
        self.most = 0
        self._counts: Counter[int] = Counter()  # by what they are, rounded down

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, latency: int) -> None:
        """Keep one latency."""
        if not self._counts or latency < self.least:
            self.least = latency
        self.most = max(latency, self.most)
        spare = max(latency.bit_length() - SIGNIFICANT_BITS, 0)
        self._counts[latency >> spare << spare] += 1

    @classmethod
    def merged(cls, parts: Iterable["Latencies"]) -> "Latencies":
        """Return the latencies of all parts together."""
        merged = cls()
        filled = [part for part in parts if part]
        for part in filled:
            merged._counts += part._counts
        merged.least = min((part.least for part in filled), default=0)
        merged.most = max((part.most for part in filled), default=0)
        return merged

    def percentile(self, percent: float) -> int:
        """Return the latency that so many percent do not exceed; 0 if there are none."""
        values = sorted(self._counts)
        sums = list(accumulate(self._counts[value] for value in values))
        if not sums:
            return 0
        rank = max(math.ceil(sums[-1] * percent / 100), 1)
        value = values[bisect_right(sums, rank - 1)]
        spare = max(value.bit_length() - SIGNIFICANT_BITS, 0)
        # The longest that was rounded to it: no percentile is told shorter than it was.
        return max(min(value + (1 << spare) - 1, self.most), self.least)

    def summary(self) -> dict[str, int]:
        """Return least, percentiles and most by the names that they are shown under."""
        named = {f"p{percent:g}": self.percentile(percent) for percent in PERCENTILES}
        return {"min": self.least, **named, "max": self.most}

    def buckets(self) -> list[tuple[int, int, int]]:
        """Return (from, up to, number) of each bucket from the first to the last that has any."""
        counts = [0] * (len(_BOUNDS) + 1)
        for value, number in self._counts.items():
            counts[bisect_right(_BOUNDS, value)] += number
        edges = [0, *_BOUNDS, max(self.most, _BOUNDS[-1]) + 1]
        rows = list(zip(edges, edges[1:], counts, strict=False))
        filled = list(dropwhile(lambda row: not row[2], reversed(rows)))
        return list(dropwhile(lambda row: not row[2], reversed(filled)))
