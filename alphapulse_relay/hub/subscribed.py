"""The cursor of a peer that speaks control: it follows the log by what was asked for.

What the relay has to say is put in between, where messages meet.

What is sent is made up here; that it is sent, and when, is the connection's business.
"""

from collections.abc import Callable

from alphapulse_relay.hub.cursor import NOTHING, Cursor
from alphapulse_relay.hub.history import Search
from alphapulse_relay.hub.log import STRETCH, Log
from alphapulse_relay.hub.outgoing import Outgoing
from alphapulse_relay.hub.peer import Miss
from alphapulse_relay.hub.retransmission import Retransmission
from alphapulse_relay.hub.segment import Origins
from alphapulse_relay.hub.subscription import COMPRESSED_SIZE, Batch, Compressor, Subscription
from alphapulse_relay.protocol_v2.control import (
    Gap,
    GapReason,
    SequenceSync,
    SyncState,
    Wish,
)
from alphapulse_relay.protocol_v2.framing import message_size

SKIP_BEHIND = 1 << 20
"""Bytes behind the head from which on a peer that wishes it is moved there: more than sockets hold,
so that nobody skips who reads."""
SYNC_EVERY = 1 << 20
"""Bytes of the log after which a peer is told its position though nothing in them was for it."""
SEARCH_STEPS = 16
"""Appends that are looked into in one turn, some 100 microseconds' work."""
MISSES = {
    GapReason.RETENTION: Miss.OVERTAKEN,
    GapReason.SKIPPED: Miss.SKIPPED,
    GapReason.DAMAGE: Miss.DAMAGED,
}
"""What the counters call the reasons of gaps."""


class SubscribedCursor(Cursor):
    """Follows the log by a subscription, beginning at ``position``.

    ``before`` is the peer's cursor until now: what it has begun to send is ended first, and what
    was delivered by it counts on. ``missed(reason, messages)`` is told what will not be sent.
    """

    skip_behind = SKIP_BEHIND
    """How many bytes behind the head it is moved there, if it wishes that."""
    framed = False
    """Whether all that it offers at once is to be whole messages."""

    def __init__(
        self,
        log: Log,
        origins: Origins,
        subscription: Subscription,
        compressor: Compressor,
        before: Cursor,
        position: int,
        missed: Callable[[Miss, int], None],
    ) -> None:
        super().__init__(log, origins)
        self.subscription = subscription
        self.replaying = position != log.head
        self.whole = subscription.filter is None
        self.replayed_before = 0
        self._compressor = compressor
        self._missed = missed
        self._first = before.take_rest()  # goes before all else
        waiting = before.take_outgoing()
        self.outgoing = Outgoing() if waiting is None else waiting
        self._batch: Batch | None = None
        self._offered = 0
        self._mid = False  # whether it may stand inside a message
        self._search: Search | None = None
        self._retransmissions = before.take_retransmissions()
        self._synced = position
        wishes = subscription.wishes
        self._says_positions = Wish.POSITIONS in wishes
        self._skips = Wish.SKIP_WHEN_BEHIND in wishes
        self._zstd = Wish.ZSTD in wishes
        self._stop_at = log.head if Wish.STOP_AT_HEAD in wishes else None
        self._said_last = False
        apart = self._says_positions or self._zstd or self.framed
        self._by_records = apart or not self.whole
        self._sent_before = before.bytes_out, before.messages_out
        self._begin(position)

    def _begin(self, position: int) -> None:
        """Stand at a position that may be anywhere in the log, and where a message begins."""
        log = self._log
        self._own_end = log.head if position != log.head else 0
        while (gap := log.gap_at(position)) is not None:
            if position < (stop := self._asked(gap[0])):
                self._say_gap(position, stop, gap[1])
            position = gap[0]
        self.replaying = position != log.head
        sent, messages = self._sent_before
        self._position = position
        self._bytes_mark = position - sent
        self._messages_mark = log.messages_before(position) - messages
        self._counted = position, self._messages_mark + messages
        self._replay_began = messages
        self._synced = position

    def search(self, search: Search) -> None:
        """Begin where a search will end."""
        self._search, self.replaying = search, True

    def retransmit(self, retransmission: Retransmission) -> None:
        """Send some messages again, before all that is new."""
        self._retransmissions.append(retransmission)

    @property
    def unsaid(self) -> int:
        """How many words and retransmissions wait for the peer."""
        return len(self.outgoing) + len(self._retransmissions)

    @property
    def finished(self) -> bool:
        """Whether all was sent, and no more is wanted."""
        return self._said_last and not self._first

    @property
    def replayed(self) -> int:
        """Messages that were delivered before it came to the head."""
        return self.messages_out - self._replay_began if self.replaying else self.replayed_before

    @property
    def lost(self) -> bool:
        """Whether a message is sent in part and its rest cannot be read; other gaps are told."""
        return self._mid and super().lost and self._log.gap_at(self._position - 1) is not None

    @property
    def at_head(self) -> bool:
        """Whether there is nothing to deliver, nor to say."""
        return super().at_head and not self._waiting and self._stop_at is None

    @property
    def mid_message(self) -> bool:
        """Whether the next byte to deliver is inside a message."""
        return bool(self._first) or super().mid_message

    @property
    def _waiting(self) -> bool:
        return bool(self._first or self.outgoing or self._retransmissions or self._search)

    @property
    def sync(self) -> SequenceSync:
        """What tells a peer where it stands."""
        state = SyncState.REPLAYING if self.replaying else SyncState.LIVE
        return SequenceSync(self._log.epoch, self._asked(self.position), state)

    def _asked(self, position: int) -> int:
        """Return the position, or where to stop if that comes before."""
        return position if self._stop_at is None else min(position, self._stop_at)

    def next(self) -> memoryview:
        """Return the next bytes to deliver, or to say; empty if there are none now."""
        self.wants = None
        if self._away:
            return super().next()
        if self._said_last:
            return memoryview(self._first)
        if self._search is not None and not self._first:
            self._look_on(self._search)
        if self.outgoing and not self._first:
            self._finish_message()
            self._first += self.outgoing.take()
        if self._retransmissions and not self._first:
            self._send_again(self._retransmissions[0])
        if self._first or self._search is not None or self.wants is not None:
            return memoryview(self._first)
        return self._from_log()

    def advance(self, length: int) -> None:
        """Take note that ``length`` of the next bytes were delivered."""
        if self._away:
            super().advance(length)
        elif self._first:
            self._first = self._first[length:]
        elif length < self._offered:
            self._advance_within(length)
        else:
            self._advance_over()

    def alight(self, position: int) -> None:
        """Move with the head no longer: what lies before ``position`` was delivered."""
        super().alight(position)
        self._mid = True

    def leave(self) -> None:
        """Let go of the log. The rest of a message that is being delivered is kept."""
        super().leave()
        self._mid = False

    def move_on(self, stop: int) -> bool:
        """Go on at ``stop``, with a Gap; it can always be done."""
        self._finish_message()
        if self._search is not None:
            self._begin(self._search.position)  # so that what it misses of that is told
        self._give_up_search()
        if self._position < stop:
            self._miss(stop, GapReason.RETENTION)
        return True

    def take_rest(self) -> bytes:
        """Return what must be sent before anything else can be; and stand behind it."""
        self._finish_message()
        return self._first

    def take_outgoing(self) -> Outgoing:
        """Return what is still to be said."""
        self._give_up_search()
        return self.outgoing

    def take_retransmissions(self) -> list[Retransmission]:
        """Return what is still to be sent again."""
        return self._retransmissions

    # Out of the log

    def _from_log(self) -> memoryview:
        if self._stop_at is not None and self._position >= self._stop_at:
            return self._say_last()
        if self._skips and not self.replaying and self.behind > self.skip_behind:
            self._finish_message()
            self._miss(self._log.head, GapReason.SKIPPED)
        if (gap := self._log.gap_at(self._position)) is not None:
            if self.lost:
                return NOTHING
            self._miss(*gap)
            return self.next()
        stop = self._stretch()
        if self._mid and self._by_records:
            self._finish_message()
            return memoryview(self._first)
        if stop <= self._position:
            if self._position == self._log.head:
                self._arrive()
            return NOTHING
        if not self._log.at_hand(self._position, stop):
            self.wants = self._position, stop
            return NOTHING
        return self._offer(stop)

    def _stretch(self) -> int:
        """Step over own messages, and return up to where to look now."""
        if self._own_end > self._position or self._by_records:
            stop = self._step_over_own()
        else:
            stop = self._position + STRETCH
        # Up to a hole, if there is one.
        return self._asked(min(stop, self._position + len(self._log.read(self._position))))

    def _offer(self, stop: int) -> memoryview:
        """Return what is to be sent of what lies before ``stop``."""
        if self._zstd:
            large = self._first_large(self._position, stop)
            if large == self._position:
                return self._offer_compressed(large)
            stop = large
        wanted = self.subscription.filter
        if wanted is None:
            self._batch = None
            data = self._log.read(self._position)[: stop - self._position]
        else:
            self._batch = wanted.batch(self._log, self._position, stop)
            data = self._batch.data
        self._offered = len(data)
        if not data:
            self._advance_over()
        return data

    def _first_large(self, start: int, stop: int) -> int:
        """Return where the first message to be compressed begins; ``stop`` if there is none."""
        data = self._log.read(start)
        at = 0
        while start + at < stop:
            size = message_size(data[at:])
            if size >= COMPRESSED_SIZE:
                return start + at
            at += size
        return stop

    def _offer_compressed(self, position: int) -> memoryview:
        size = message_size(self._log.read(position))
        wanted = self.subscription.filter
        if wanted is None or wanted.batch(self._log, position, position + size).data:
            self._first = self._compressor.compressed(self._log, position)
            self._offered = size
            self._position += size
        else:
            self._offered = 0
            self._step_over(size, 1)
        self._delivered()
        return memoryview(self._first)

    def _advance_within(self, length: int) -> None:
        """Stand inside what was offered: the rest is found again when there is room for it."""
        if self._batch is None:
            self._position += length
        elif length:
            position, left_out, messages = self._batch.position_of(length)
            self._step_over(left_out, messages)
            self._position = position
            self._batch = None
        self._mid = self._mid or bool(length)

    def _advance_over(self) -> None:
        """Stand behind all that was offered."""
        batch, self._batch = self._batch, None
        if batch is None:
            self._position += self._offered
            self._mid = self._mid or not self._by_records
        else:
            left_out = batch.stop - batch.start - len(batch.data)
            self._position += len(batch.data)
            self._step_over(left_out, batch.selection.total - batch.selection.matched)
            self._mid = False
        self._delivered()

    def _delivered(self) -> None:
        """Say where it stands, and take note if that is the head."""
        if self._position == self._log.head:
            self._arrive()
        if self._offered or self._position - self._synced >= SYNC_EVERY:
            self._say_position()

    def _say_position(self) -> None:
        if self._says_positions:
            self._synced = self._position
            self.outgoing.add(self.sync)

    def _say_last(self) -> memoryview:
        """Say that all was sent; whatever else there is to say, nothing comes after that."""
        self._said_last = True
        self._arrive()
        self.outgoing.add(self.sync)
        self._first = self.outgoing.take()
        return memoryview(self._first)

    def _arrive(self) -> None:
        if self.replaying:
            self.replayed_before = self.replayed
            self.replaying = False
            self._say_position()

    def _look_on(self, search: Search) -> None:
        """Look for where to begin, a little further."""
        for _ in range(SEARCH_STEPS):
            self.wants = search.wants()
            if self.wants is not None:
                return
            if search.step():
                self._search = None
                self._begin(search.position)
                self.outgoing.answer(self.sync)
                return

    def _give_up_search(self) -> None:
        """Begin where it stands, if it has not begun yet."""
        if self._search is not None:
            self._search = None
            self.outgoing.answer(self.sync)

    def _send_again(self, retransmission: Retransmission) -> None:
        """Have some more of what was asked for again sent next."""
        self.wants = retransmission.wants()
        if self.wants is None:
            self._finish_message()
            self._first += retransmission.step()
            if retransmission.over:
                self._retransmissions.pop(0)
                self.outgoing.add(retransmission.response)

    # What will not come

    def _finish_message(self) -> None:
        """Stand at a boundary: what is begun is to be sent first."""
        if self._mid:
            boundary = self._log.boundary(self._position)
            rest = self._log.read(self._position)[: boundary - self._position]
            self._first += bytes(rest)
            self._position += len(rest)
            self._mid = False
            self._delivered()

    def _miss(self, stop: int, reason: GapReason) -> None:
        """Go on at ``stop``."""
        position, asked = self._position, self._asked(stop)
        before = self._log.messages_before(position)
        if position < asked:
            own = self._own_ahead if self._own_end <= stop else 0
            self._say_gap(position, asked, reason)
            self._missed(MISSES[reason], max(self._log.messages_before(asked) - before - own, 0))
        self._step_over(stop - position, self._log.messages_before(stop) - before)
        # Which of its own are still ahead is not known: they count as what is to be delivered.
        self._own_ahead = self._own_bytes_ahead = 0

    def _say_gap(self, start: int, stop: int, reason: GapReason) -> None:
        self.outgoing.add(Gap(self._log.epoch, start, stop, reason))
