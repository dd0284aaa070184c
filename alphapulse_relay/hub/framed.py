"""The cursor of a peer whose transport has frames of its own, and so needs whole messages.

Knows what of the log it offers, so that who frames can do so once for all; frames it does not know.
"""

from typing import NamedTuple

from alphapulse_relay.hub.history import NEWEST_BYTES, newest
from alphapulse_relay.hub.subscribed import SubscribedCursor
from alphapulse_relay.hub.subscription import Filter

FRAMED_SKIP_BEHIND = max(4 << 20, NEWEST_BYTES)
"""Bytes behind the head from which on a peer that wishes it is moved there: those that look for
themselves, some times a second, find a burst behind the head though they are not slow."""


class Offer(NamedTuple):
    """Which messages are offered: equal offers are equal bytes."""

    filter: Filter | None
    position: int
    size: int


class FramedCursor(SubscribedCursor):
    """Offers whole messages only."""

    skip_behind = FRAMED_SKIP_BEHIND
    framed = True

    @property
    def offer(self) -> Offer | None:
        """What :meth:`next` has returned; None if it is meant for this peer alone."""
        if self._first:
            return None
        return Offer(self.subscription.filter, self._position, self._offered)

    def keep_newest(self, number: int) -> None:
        """Step over all that is ahead but the newest ``number`` messages that match."""
        self._finish_message()
        wanted = self.subscription.filter
        selector = None if wanted is None else wanted.selector
        start = newest(self._log, selector, number, self._position)
        if start > self._position:
            before = self._log.messages_before(self._position)
            self._step_over(start - self._position, self._log.messages_before(start) - before)
            self._own_ahead = self._own_bytes_ahead = 0
