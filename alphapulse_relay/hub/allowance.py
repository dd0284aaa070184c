"""Allowances: how much may be taken at a steady rate, and when what was taken is paid back."""

import math

BURST_SECONDS = 1.0
"""How much is saved as a rule: so many seconds' worth may be taken at once."""
SHORTEST_SECONDS = 0.001
"""A shorter debt is none: it is not worth the wait, and may be an error of rounding."""


class Allowance:
    """``rate`` a second, saved for ``burst`` seconds; what is taken beyond that is owed."""

    def __init__(self, rate: float, burst: float = BURST_SECONDS) -> None:
        self._rate = rate
        self._burst = burst
        self._paid_at = -math.inf  # when nothing is owed any more

    def take(self, amount: int, now: float) -> None:
        """Take so much, be it too much; ``now`` is in seconds."""
        self._paid_at = max(self._paid_at, now - self._burst) + amount / self._rate

    def give_back(self, amount: int) -> None:
        """Have so much of what was taken as if it had not been."""
        self._paid_at -= amount / self._rate

    def change_rate(self, rate: float, now: float) -> None:
        """Go on at another rate, by which as much is owed as before."""
        if self._paid_at > now:
            self._paid_at = now + (self._paid_at - now) * self._rate / rate
        self._rate = rate

    def owed_seconds(self, now: float) -> float:
        """Return for how long nothing more should be taken."""
        owed = self._paid_at - now
        return owed if owed >= SHORTEST_SECONDS else 0.0

    def is_whole(self, now: float) -> bool:
        """Tell whether it is as if nothing had ever been taken."""
        return self._paid_at <= now - self._burst
