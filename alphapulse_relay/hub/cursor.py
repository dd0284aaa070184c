"""A cursor: where a peer stands in the log, and what it has been given.

Nothing is counted while bytes flow: how much was delivered follows from where the cursor stands.
"""

from typing import TYPE_CHECKING

from alphapulse_relay.hub.log import STRETCH, Log
from alphapulse_relay.hub.segment import Origins

if TYPE_CHECKING:
    from alphapulse_relay.hub.outgoing import Outgoing
    from alphapulse_relay.hub.retransmission import Retransmission

NOTHING = memoryview(b"")


class Cursor:
    """A reader of the log that never sees what its own ``origins`` appended.

    It begins at the head, and may *ride* there (:meth:`ride`): then it moves with the head, and
    whoever appends also delivers. It may let go of the log (:meth:`leave`), holding only the rest
    of the message that was being delivered, and come back at the head (:meth:`rejoin`).
    """

    replaying = False
    """Whether it began in the past and has not come to the head since."""
    whole = True
    """Whether it wants all that others publish."""

    def __init__(self, log: Log, origins: Origins) -> None:
        self.riding = False
        """Whether it moves with the head."""
        self.rest = b""
        """While away: the undelivered end of a message whose beginning was delivered."""
        self.wants: tuple[int, int] | None = None
        """Positions that :meth:`next` needs, and that have to be fetched from the disk first."""
        self._log = log
        self._origins = origins
        self._position = log.head  # of no meaning while it rides
        self._own_end = 0  # position behind the latest own message that is still ahead
        self._own_ahead = 0  # own messages ahead, and their bytes
        self._own_bytes_ahead = 0
        # Where the cursor would stand, in bytes and messages, had it been given nothing.
        self._bytes_mark = log.head
        self._messages_mark = log.messages
        self._counted = (log.head, log.messages)  # a position, and the messages before it
        self._away: tuple[int, int] | None = None  # bytes and messages delivered, while away

    @property
    def finished(self) -> bool:
        """Whether no more is wanted."""
        return False

    @property
    def replayed(self) -> int:
        """Messages that were delivered before it came to the head."""
        return 0

    @property
    def position(self) -> int:
        """Where the next byte to deliver lies; of no meaning while away."""
        return self._log.head if self.riding else self._position

    @property
    def away(self) -> bool:
        """Whether the cursor has let go of the log."""
        return self._away is not None

    @property
    def at_head(self) -> bool:
        """Whether there is nothing to deliver."""
        return self._away is None and (self.riding or self._position == self._log.head)

    @property
    def bytes_out(self) -> int:
        """Bytes that were delivered."""
        return self._away[0] if self._away else self.position - self._bytes_mark

    @property
    def messages_out(self) -> int:
        """Messages that were delivered whole."""
        if self._away:
            return self._away[1]
        if self._counted[0] != self.position:
            # A walk over headers: not to be done again for a cursor that stands still.
            self._counted = self.position, self._log.messages_before(self.position)
        return self._counted[1] - self._messages_mark

    @property
    def behind(self) -> int:
        """Bytes between the cursor and the head that are to be delivered; 0 while away."""
        if self._away:
            return 0
        return self._log.bytes_behind(self.position) - self._own_bytes_ahead

    @property
    def missing(self) -> int:
        """Messages of others that were appended since the cursor began and not delivered."""
        return self._log.messages - self._own_ahead - self._messages_mark - self.messages_out

    @property
    def mid_message(self) -> bool:
        """Whether the next byte to deliver is inside a message."""
        if self._away or self.at_head:
            return bool(self.rest)
        return self._log.boundary(self.position) != self.position

    def published(self, length: int, messages: int) -> None:
        """Take note that the last ``length`` bytes of the log are the origin's own."""
        if self.riding or (self._away is None and self._position == self._log.head - length):
            self._step_over(length, messages)
        else:
            self._own_end = self._log.head
            self._own_ahead += messages
            self._own_bytes_ahead += length

    def next(self) -> memoryview:
        """Return the next bytes to deliver that lie in one piece; empty if there are none now."""
        if self._away:
            return memoryview(self.rest)
        while self._own_end > self._position:
            stop = self._step_over_own()
            if stop > self._position:
                return self._read(stop)
        return self._read(self._log.head)

    def _step_over_own(self) -> int:
        """Step over own messages, if they come next; return up to where come others'."""
        start, stop = self._log.stretch(self._position, self._origins)
        if start > self._position:
            before = self._log.messages_before(self._position)
            own = self._log.messages_before(start) - before
            # Of what was published before it began nothing was counted.
            self._own_ahead = max(self._own_ahead - own, 0)
            self._own_bytes_ahead = max(self._own_bytes_ahead - (start - self._position), 0)
            self._step_over(start - self._position, own)
        return stop

    def _read(self, stop: int) -> memoryview:
        """Return what lies before ``stop`` in one piece, if it is at hand; else say so."""
        position = self._position
        data = self._log.read(position)[: min(stop - position, STRETCH)]
        at_hand = self._log.at_hand(position, position + len(data))
        self.wants = None if at_hand else (position, position + len(data))
        return data if at_hand else NOTHING

    def advance(self, length: int) -> None:
        """Take note that ``length`` of the next bytes were delivered."""
        if self._away is None:
            self._position += length
        elif length:
            self.rest = self.rest[length:]
            sent, messages = self._away
            self._away = sent + length, messages + (not self.rest)

    @property
    def next_boundary(self) -> int:
        """Where the next message begins that nothing was delivered of."""
        return self._log.boundary(self.position)

    def move_on(self, stop: int) -> bool:  # noqa: ARG002
        """Go on at ``stop``, as what is before it is given up; tell whether that can be done."""
        return False

    @property
    def lost(self) -> bool:
        """Whether what comes next cannot be read any more."""
        if self._away or self.riding or self._position == self._log.head:
            return False
        return self._log.gap_at(self._position) is not None

    def take_rest(self) -> bytes:
        """Return the rest of the message that is being delivered, and count it as delivered."""
        if self._away:
            rest, self.rest = self.rest, b""
            self._away = self._away[0] + len(rest), self._away[1] + bool(rest)
            return rest
        position = self.position
        rest = bytes(self._log.read(position)[: self._log.boundary(position) - position])
        self.alight(position + len(rest))
        return rest

    def take_outgoing(self) -> "Outgoing | None":
        """Return what is still to be said: nothing."""
        return None

    def take_retransmissions(self) -> "list[Retransmission]":
        """Return what is still to be sent again: nothing."""
        return []

    def ride(self) -> None:
        """Move with the head from now on; the cursor must be there."""
        if not self.at_head:
            raise ValueError("a cursor rides at the head only")
        self.riding = True

    def alight(self, position: int) -> None:
        """Move with the head no longer: what lies before ``position`` was delivered."""
        self.riding = False
        self._position = position

    def leave(self) -> None:
        """Let go of the log. The rest of a message that is being delivered is kept."""
        if self._away is None:
            position = self.position
            boundary = self._log.boundary(position)
            self.rest = bytes(self._log.read(position)[: boundary - position])
            self._away = self.bytes_out, self.messages_out
            self.riding = False

    def rejoin(self) -> None:
        """Follow the log again, from the head. The rest must have been delivered."""
        if self._away is None or self.rest:
            raise ValueError("a cursor rejoins after it left and delivered the rest")
        sent, messages = self._away
        self._away = None
        self._position = self._log.head
        self._bytes_mark = self._log.head - sent
        self._messages_mark = self._log.messages - messages
        self._own_end = self._own_ahead = self._own_bytes_ahead = 0

    def _step_over(self, length: int, messages: int) -> None:
        self._position += length
        self._bytes_mark += length
        self._messages_mark += messages
