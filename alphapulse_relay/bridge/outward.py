"""Outward: what the relay here sends goes to NATS, in order and once.

Knows what is under way, and where to go on after a break. What has come while one run was being
stored goes as the next one: so a quiet relay's messages leave at once, and a busy one's in large
runs. The stream itself tells how far this relay has come, by the last message of its subject; each
message is stored only if that is still the last one, so nothing is repeated or overtaken, whenever
who dies.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from twisted.logger import Logger

from alphapulse_relay.bridge.account import Account, Loss
from alphapulse_relay.bridge.compression import Compressor, When
from alphapulse_relay.bridge.envelope import HEADERS_ROOM, Envelope, Place, Share
from alphapulse_relay.bridge.split import parts_of
from alphapulse_relay.bridge.stream import Last, LaterError, Stream, WrongLastError
from alphapulse_relay.bridge.waiting import Gulp, Waiting
from alphapulse_relay.client.bookmark import Bookmark
from alphapulse_relay.client.core import Missed, Run

_log = Logger()

WAITING_MAX = 8 << 20
"""Bytes that wait here before the relay is left unread: a few NATS messages. The rest is in its
journal."""
RETRY_SECONDS = 1.0
"""Pause after NATS did not take a message, and would not take it at once."""


class Outward:
    """Sends runs on. ``crowded`` is told whether too much waits here.

    ``subject`` is the relay's; with ``split`` that of each type is below it. ``compress`` tells
    when payloads are compressed.
    """

    def __init__(
        self,
        stream: Stream,
        subject: str,
        account: Account,
        crowded: Callable[[bool], None],
        *,
        split: bool = False,
        compress: When = When.AUTO,
    ) -> None:
        self.place: Place | None = None
        """All before it has been published, or is not to be."""
        self.received: Place | None = None
        """Behind what waits."""
        self.time = 0
        """When the bridge got what was published last, in ns since 1970; 0 if nothing is known."""
        self._stream = stream
        self._subject = subject
        self._account = account
        self._way = account.outward
        self._crowded = crowded
        self._split = split
        self._compressor = Compressor(compress)
        self._end: Place | None = None  # of what was published last
        self._waiting = Waiting()
        self._under_way: Gulp | None = None  # what is being stored
        self._some = asyncio.Event()
        self._last: dict[str, int] = {}  # of each subject, the sequence of its last message
        self._known = 0  # the last of all these that there may be
        self._unfinished: Share | None = None  # behind which more of its run is to follow
        self._is_crowded = False

    @property
    def published(self) -> Place | None:
        """Behind what was published last, as far as that is known."""
        return self._end

    def go_on_after(
        self,
        last: Last | None,
        place: Place,
        asked: int,
        *,
        epoch: int = 0,
        published: Place | None = None,
    ) -> None:
        """Begin behind the stream's last message of this relay; if there is none, at a place.

        ``asked`` is what is asked of the relay now, as in places, ``epoch`` that of its journal.
        ``published`` is what :attr:`published` was when another process ended.
        """
        known = self._end or published
        self._waiting = Waiting()
        self._last = {}
        self._unfinished = None
        self._under_way = None
        self._is_crowded = False
        self.place, self._end = place, known or place
        if last is not None:
            self._last[last.subject] = self._known = last.sequence
            self.time = last.envelope.time
            self._go_on_in(last.envelope, place, asked, epoch)
            self._look_for_lost_end(last.envelope, known)
        self.received = self.place
        self._count()

    def _go_on_in(self, stored: Envelope, place: Place, asked: int, epoch: int) -> None:
        """Begin behind what was stored, be it a part of a run, or where all that follows is."""
        if stored.is_last:
            self._end = stored.end
            same = place.epoch == stored.end.epoch
            # What is stored may be of a journal that is gone, or of another relay of this name.
            later = place.position > stored.end.position if same else place.epoch == epoch
            self.place = place if later else stored.end
            return
        self.place = self._end = stored.begin
        if stored.share is not None and asked == stored.begin.asked:
            # What is stored of it need not be stored again; its last pieces are one.
            whole = stored.piece == stored.pieces
            after = stored.share.type if whole else stored.share.type - 1
            self._unfinished = stored.share._replace(type=after)

    def _look_for_lost_end(self, stored: Envelope, known: Place | None) -> None:
        """Tell if the stream lacks what it had: by where the next run begins others see it, too."""
        end = stored.end
        if known is None or known.epoch != end.epoch or known[1:3] <= end[1:3]:
            return
        _log.error(
            "the stream has lost what it had of this relay, from {end} to {known}: who had not "
            "taken it will not get it",
            end=end.text,
            known=known.text,
        )
        if stored.is_last:
            self._end = known

    # What comes

    def run_received(self, run: Run) -> None:
        """Take a run."""
        self.received = Place(*run.bookmark)
        self._waiting.add(run.data, run.messages, self.received, time.time_ns())
        self._count()
        self._some.set()

    def position_received(self, bookmark: Bookmark) -> None:
        """Take note of where the relay has come to: between runs that is a place, too."""
        self.received = Place(*bookmark)
        if not self._waiting and self._under_way is None and self._unfinished is None:
            self.place = self.received

    def forget_unfinished(self) -> None:
        """Begin a run that is stored in part anew: not all of it will come again."""
        self._unfinished = None
        self._some.set()

    def gap_received(self, missed: Missed) -> None:
        """Take note of messages that will not come."""
        self.forget_unfinished()
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

    def _count(self) -> None:
        waiting, gulp, way = self._waiting, self._under_way, self._way
        way.waiting_bytes = waiting.size + (len(gulp.data) if gulp else 0)
        way.waiting_messages = waiting.messages + (gulp.messages if gulp else 0)
        way.waiting_since = (gulp.time if gulp else waiting.since) / 1e9
        most = WAITING_MAX // 2 if self._is_crowded else WAITING_MAX
        # What is stored in part is waited for, however large it is.
        crowded = waiting.size > most and self._unfinished is None
        if crowded != self._is_crowded:
            self._is_crowded = crowded
            self._crowded(crowded)

    # What goes

    async def run(self) -> None:
        """Publish whatever waits; until cancelled.

        Raises :class:`WrongLastError`, and what :meth:`Stream.last_of` does.
        """
        while True:
            await self._some.wait()
            self._some.clear()
            while (gulp := self._next()) is not None:
                await self._publish_all(gulp)

    def _next(self) -> Gulp | None:
        """Return what is to be stored next, None while there is nothing."""
        if self._unfinished is not None:
            return self._waiting.take_exactly(self._unfinished.messages)
        return self._waiting.take(self._stream.max_payload - HEADERS_ROOM)

    async def _publish_all(self, gulp: Gulp) -> None:
        """Have a gulp stored, as one NATS message or several."""
        assert self._end is not None, "nothing comes before it is known from where"
        self._under_way = gulp
        whole = Envelope(gulp.data, self._end, gulp.end, gulp.time)
        room = self._stream.max_payload - HEADERS_ROOM
        for envelope in self._shares(whole, gulp.messages):
            for piece in envelope.cut(room):
                await self._publish(piece.compressed(self._compressor))
        self._done(whole, gulp)

    def _shares(self, whole: Envelope, messages: int) -> Iterable[Envelope]:
        """Return those parts of a run that are not stored yet."""
        done, self._unfinished = self._unfinished, None
        if done is None and not self._split:
            return [whole]
        parts = parts_of(whole.payload)
        types, after = tuple(part.type for part in parts), -1 if done is None else done.type
        return [
            whole._replace(
                payload=part.payload, share=Share(part.type, types, part.order, messages)
            )
            for part in parts
            if part.type > after
        ]

    async def _publish(self, envelope: Envelope) -> None:
        """Have it stored, however long that takes."""
        subject = envelope.subject(self._subject)
        if subject not in self._last:
            last = await self._stream.last_of(subject)
            self._last[subject] = 0 if last is None else last.sequence
            if self._last[subject] > self._known:
                raise WrongLastError(
                    f"message {self._last[subject]} of {subject} is not from here: somebody else "
                    "publishes as this relay"
                )
        while True:
            try:
                self._known = self._last[subject] = await self._store(subject, envelope)
                self._way.stored_bytes += len(envelope.payload)
            except LaterError as error:
                self._trouble(str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _store(self, subject: str, envelope: Envelope) -> int:
        """Store it, and return its sequence."""
        began = time.monotonic()
        try:
            stored = await self._stream.publish(subject, envelope, self._last[subject])
        except WrongLastError:
            # An answer may have been lost on the way: then it is this one.
            last = await self._stream.last_of(subject)
            if last is None or last.envelope != envelope._replace(payload=b""):
                raise
            return last.sequence
        self._account.round_trip = time.monotonic() - began
        return stored

    def _done(self, whole: Envelope, gulp: Gulp) -> None:
        if self._way.trouble:
            _log.info("goes on: {subject} is stored again", subject=self._subject)
        self._way.trouble = None
        self._way.messages += gulp.messages
        self._way.bytes += len(gulp.data)
        self._way.runs += 1
        self._way.crossing_seconds = (time.time_ns() - gulp.time) / 1e9
        self._end, self._under_way, self.time = whole.end, None, whole.time
        self.place = whole.end if self._waiting else self.received
        self._count()

    def _trouble(self, what: str) -> None:
        if self._way.trouble != what:
            _log.error("nothing is published: {what}", what=what)
        self._way.trouble = what
