"""A bound on log lines that a peer can provoke."""

from twisted.internet.interfaces import IReactorTime

LINES_PER_SECOND = 10
"""Enough to see what goes wrong, too few to fill a disk: 10 lines of 200 bytes are 170 MB a day."""


class Throttle:
    """Admits at most ten events a second and counts the others."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._second = -1
        self._admitted = 0
        self._left_out = 0

    def admit(self) -> str | None:
        """Return None if the line is to be left out.

        Else what to add to it: how many were left out since the last one, if any.
        """
        second = int(self._clock.seconds())
        if second != self._second:
            self._second, self._admitted = second, 0
        if self._admitted == LINES_PER_SECOND:
            self._left_out += 1
            return None
        self._admitted += 1
        left_out, self._left_out = self._left_out, 0
        return f" ({left_out} such lines left out before)" if left_out else ""
