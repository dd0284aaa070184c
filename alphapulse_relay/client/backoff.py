"""How long to wait before the next attempt to connect. Knows no clock."""

import random
from collections.abc import Callable

FIRST_DELAY = 0.1
"""Seconds that the first attempt after a break waits at most: a relay restarts in about that."""
LONGEST_DELAY = 10.0
"""Seconds that any attempt waits at most: how long a relay may be back without being noticed."""


class Backoff:
    """Delays that double with each failure, with full jitter.

    Each is drawn evenly from 0 to its bound, so that the clients of a relay that restarts do not
    all come at once. ``draw`` returns a number from 0 to 1.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._bound = FIRST_DELAY

    def delay(self) -> float:
        """Return how many seconds to wait after this failure."""
        bound, self._bound = self._bound, min(self._bound * 2, LONGEST_DELAY)
        return bound * self._draw()

    def reset(self) -> None:
        """Begin again: a relay has answered."""
        self._bound = FIRST_DELAY
