"""Outward: what the relay here sends goes to NATS, in order and once.

Knows what is under way, and where to go on after a break. What has come while one NATS message was
being stored goes as the next one: so a quiet relay's messages leave at once, and a busy one's in
large runs. The stream itself tells how far this relay has come, by the last message of its subject;
each message is stored only if that is still the last one, so nothing is repeated or overtaken,
whenever who dies.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from twisted.logger import Logger

from alphapulse_relay.bridge.account import Account, Loss
from alphapulse_relay.bridge.envelope import HEADERS_ROOM, Envelope, Place
from alphapulse_relay.bridge.stream import LaterError, Stream, WrongLastError
from alphapulse_relay.client.bookmark import Bookmark
from alphapulse_relay.client.core import Missed, Run
from alphapulse_relay.protocol_v2.framing import message_size
from alphapulse_relay.protocol_v2.selection import walk

_log = Logger()

WAITING_MAX = 8 << 20
"""Bytes that wait here before the relay is left unread: a few NATS messages. The rest is in its
journal."""
RETRY_SECONDS = 1.0
"""Pause after NATS did not take a message, and would not take it at once."""


class _Waiting(NamedTuple):
    """Part of a run that was received at ``time`` (ns)."""

    data: bytes
    messages: int
    end: Place
    time: int


class Outward:
    """Sends runs on. ``crowded`` is told whether too much waits here."""

    def __init__(
        self,
        stream: Stream,
        subject: str,
        account: Account,
        crowded: Callable[[bool], None],
    ) -> None:
        self.place: Place | None = None
        """Behind what was published last."""
        self.on_published: Callable[[Place], None] = lambda _: None
        self._stream = stream
        self._subject = subject
        self._account = account
        self._way = account.outward
        self._crowded = crowded
        self._waiting: deque[_Waiting] = deque()
        self._some = asyncio.Event()
        self.received: Place | None = None
        """Behind what waits."""
        self._last_sequence = 0
        self._is_crowded = False

    def go_on_at(self, place: Place | None, last_sequence: int) -> None:
        """Begin at a place, behind the message of the stream that has the sequence."""
        self._waiting.clear()
        self._is_crowded = False
        self._way.waiting_bytes = self._way.waiting_messages = 0
        self.place = self.received = place
        self._last_sequence = last_sequence

    # What comes

    def run_received(self, run: Run) -> None:
        """Take a run."""
        end = _place(run.bookmark)
        self._waiting.append(_Waiting(run.data, run.messages, end, time.time_ns()))
        self._count(len(run.data), run.messages)
        self.received = end
        self._some.set()

    def position_received(self, bookmark: Bookmark) -> None:
        """Take note of where the relay has come to: between runs that is a place, too."""
        self.received = _place(bookmark)
        if not self._waiting and self.place is not None:
            self.place = self.received

    def gap_received(self, missed: Missed) -> None:
        """Take note of messages that will not come."""
        self._account.lost[Loss.RELAY_GAP] += 1
        gap = missed.gap
        _log.error(
            "reason=relay_gap: {bytes} bytes of the journal from position {start} do not cross "
            "({why})",
            bytes=gap.stop - gap.start,
            start=gap.start,
            why=gap.reason.name.lower(),
        )
        self.position_received(missed.bookmark)

    def _count(self, size: int, messages: int) -> None:
        self._way.waiting_bytes += size
        self._way.waiting_messages += messages
        crowded = self._way.waiting_bytes > (WAITING_MAX // 2 if self._is_crowded else WAITING_MAX)
        if crowded != self._is_crowded:
            self._is_crowded = crowded
            self._crowded(crowded)

    # What goes

    async def run(self) -> None:
        """Publish whatever waits; until cancelled. Raises :class:`WrongLastError`."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                for envelope in self._next():
                    await self._publish(envelope)

    def _next(self) -> list[Envelope]:
        """Return what waits as one NATS message, or one message as many of them."""
        room = self._stream.max_payload - HEADERS_ROOM
        first = self._waiting[0]
        begin, taken, size, messages = self._begin(), [], 0, 0
        while self._waiting and size + len(self._waiting[0].data) <= room:
            piece = self._waiting.popleft()
            taken.append(piece.data)
            size, messages, end = size + len(piece.data), messages + piece.messages, piece.end
        if not taken:
            return self._pieces(begin, room)
        self._in_hand = size, messages
        return [Envelope(b"".join(taken), begin, end, first.time)]

    def _pieces(self, begin: Place, room: int) -> list[Envelope]:
        """Cut a run that does not fit: between messages, or within the first one."""
        data, messages, end, came = self._waiting.popleft()
        stop, fitting = walk(data, room)
        whole = max(fitting, 1)
        if not fitting:
            stop = message_size(data)
        rest = messages - whole
        middle = end._replace(taken=end.taken - rest)
        if rest:
            self._waiting.appendleft(_Waiting(data[stop:], rest, end, came))
        self._in_hand = stop, whole
        if fitting:
            return [Envelope(data[:stop], begin, middle, came)]
        cuts = [*range(0, stop, room), stop]
        return [
            Envelope(data[start:end_], begin, middle, came, number, len(cuts) - 1)
            for number, (start, end_) in enumerate(pairwise(cuts), 1)
        ]

    def _begin(self) -> Place:
        assert self.place is not None, "nothing comes before it is known from where"
        return self.place

    async def _publish(self, envelope: Envelope) -> None:
        """Have it stored, however long that takes."""
        while True:
            began = time.monotonic()
            try:
                stored = await self._stream.publish(self._subject, envelope, self._last_sequence)
            except LaterError as error:
                self._trouble(str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except WrongLastError:
                # An answer may have been lost on the way.
                last = await self._stream.last_of(self._subject)
                if last is None or (last.end, last.part) != (envelope.end, envelope.part):
                    raise
                stored = last.sequence
                break
            else:
                self._account.round_trip = time.monotonic() - began
                break
        self._last_sequence = stored
        if envelope.part == envelope.parts:
            self._done(envelope)

    def _done(self, envelope: Envelope) -> None:
        if self._way.trouble:
            _log.info("goes on: {subject} is stored again", subject=self._subject)
        self._way.trouble = None
        self.place = envelope.end
        size, messages = self._in_hand
        self._way.messages += messages
        self._way.bytes += size
        self._way.runs += 1
        self._way.lag_seconds = (time.time_ns() - envelope.time) / 1e9
        self._count(-size, -messages)
        if not self._waiting and self.received is not None:
            self.place = self.received
        self.on_published(self.place)

    def _trouble(self, what: str) -> None:
        if self._way.trouble != what:
            _log.error("nothing is published: {what}", what=what)
        self._way.trouble = what


def _place(bookmark: Bookmark) -> Place:
    return Place(*bookmark)
