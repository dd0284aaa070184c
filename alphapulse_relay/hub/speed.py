"""Speed: which consumers are slow, beside the fastest of them.

Knows how much each was given; what follows from being slow it does not.
"""

from collections.abc import Iterable

from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.peer import Peer

SLOW_PART = 2
"""Slow is who takes less than 1 / 2 of what the fastest takes. So publishers are slowed down by no
more than that by waiting for all others."""
MEASURES_PER_WINDOW = 8
"""How often it is measured while a window's worth of bytes is appended: one that stops is known to
be slow long before it is half the window behind."""


class Speed:
    """Tells the slow consumers of a log by what they took since it was measured last."""

    def __init__(self, log: Log) -> None:
        self.slow: frozenset[int] = frozenset()
        """The numbers of those that are slow. Who has just come is not."""
        self._log = log
        self._measured_at = 0  # a position of the log
        self._given: dict[int, int] = {}  # to whom, until then or since it came, in bytes

    def measure(self, consumers: Iterable[Peer], *, now: bool) -> None:
        """Compare the consumers, if enough was appended since the last time, or ``now``.

        Where even the fastest has not taken half of what was appended nobody is told from it: it
        may be chance, or the machine's, who got a little.
        """
        given = {peer.identity.number: peer.cursor.bytes_out for peer in consumers}
        for number, length in given.items():
            self._given.setdefault(number, length)
        took = {number: length - self._given[number] for number, length in given.items()}
        appended, most = self._log.head - self._measured_at, max(took.values(), default=0)
        enough = appended >= self._log.window // MEASURES_PER_WINDOW
        if now or (enough and most >= appended // SLOW_PART):
            self.slow = frozenset(n for n, length in took.items() if length < most // SLOW_PART)
            self._given, self._measured_at = given, self._log.head
