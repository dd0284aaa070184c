"""The cursor of a peer that gets no messages: it has only answers to give."""

from alphapulse_relay.hub.cursor import Cursor
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.outgoing import Outgoing
from alphapulse_relay.hub.segment import Origins


class AnswerCursor(Cursor):
    """Stands nowhere in the log, so that it is never behind, and nothing of it is ever sent."""

    offer = None
    """For who frames: what it offers is meant for this peer alone."""

    def __init__(self, log: Log, origins: Origins) -> None:
        super().__init__(log, origins)
        self.outgoing = Outgoing()
        self._away = (0, 0)

    @property
    def unsaid(self) -> int:
        """How many words wait for the peer."""
        return len(self.outgoing)

    @property
    def at_head(self) -> bool:
        """Whether there is nothing to say."""
        return not (self.rest or self.outgoing)

    @property
    def missing(self) -> int:
        """None: nothing is meant for it."""
        return 0

    def next(self) -> memoryview:
        """Return what is to be said next; empty if nothing."""
        if not self.rest:
            self.rest = self.outgoing.take()
        return memoryview(self.rest)

    def advance(self, length: int) -> None:
        """Take note that ``length`` of the next bytes were sent; they count as no message's."""
        self.rest = self.rest[length:]

    def published(self, length: int, messages: int) -> None:
        """Take note of own messages, which it would not be sent in any case."""

    def leave(self) -> None:
        """Stay where it is."""

    def rejoin(self) -> None:
        """Stay where it is."""
