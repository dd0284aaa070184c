"""Inward: what other relays have sent to NATS goes to the relay here, in order and once.

Knows which NATS messages have come, and up to which the relay has them. One batch is under way at
a time, and NATS is told only what the relay has acknowledged. After a break the relay may have a
part of that batch: what its journal holds since then is looked through, and only the rest is sent.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

from twisted.logger import Logger

from alphapulse_relay.bridge.account import Account, Loss
from alphapulse_relay.bridge.assembly import Assembly, MissingError
from alphapulse_relay.bridge.consumer import Consumer, Delivery
from alphapulse_relay.bridge.envelope import (
    EXPECTED_SEQUENCE,
    Envelope,
    EnvelopeError,
    Place,
    expanded_size,
    relay_of,
)
from alphapulse_relay.bridge.relay_link import LinkError, RefusedError, RelayLink, ends_uniquely
from alphapulse_relay.bridge.state import State, StateFile
from alphapulse_relay.protocol_v2.framing import split
from alphapulse_relay.protocol_v2.header import Header
from alphapulse_relay.protocol_v2.selection import Selector, count, select, walk

_log = Logger()

BATCH_SIZE = 4 << 20
"""Bytes that are sent to the relay before it is waited for: some milliseconds' work for it."""
REST_SECONDS = 5.0
"""How long the rest of what the relay may have is waited for: it may be gone from the stream."""
_ALL = Selector()

History = Callable[[int, int, frozenset[int]], Awaitable[Iterable[bytes]]]
"""Returns the messages of some sources in the relay's journal of an epoch, from a position on."""


class Inward:
    """Passes deliveries on to the relay.

    ``prefix`` is what all relays' subjects begin with, ``own`` is the name of the relay here.
    """

    def __init__(
        self,
        link: RelayLink,
        state: StateFile,
        history: History,
        account: Account,
        *,
        prefix: str,
        own: str,
        selector: Selector,
    ) -> None:
        self._link = link
        self._file = state
        self._history = history
        self._account = account
        self._way = account.inward
        self._prefix = prefix
        self._own = own
        self._selector = selector
        self._wants_all = selector == _ALL
        self._assembly = Assembly(selector.types)
        self._last: dict[str, int] = {}  # of each subject, the sequence that came last
        self._stored = 0  # bytes in NATS of what crosses with the next run

    @property
    def _state(self) -> State:
        return self._file.state  # another one once the file has been read

    async def run(self, consumer: Consumer) -> None:
        """Pass on what is delivered; until cancelled."""
        self._assembly.clear()
        self._last.clear()
        self._stored = 0
        self._way.waiting_messages, self._way.waiting_since = 0, 0.0  # not known yet
        while True:
            batch = await self._next(consumer)
            self._way.waiting_since = batch[0].stored
            await self._take(batch)
            self._note_what_waits(batch[-1], consumer)

    def _note_what_waits(self, last: Delivery, consumer: Consumer) -> None:
        """Count what was behind a delivery when it was made, or has come since."""
        waiting = max(last.pending, consumer.waiting)
        self._way.waiting_messages = waiting
        self._way.waiting_since = last.stored if waiting else 0.0

    async def _next(self, consumer: Consumer) -> Sequence[Delivery]:
        """Return the next batch: all that the relay may have a part of, or what is there."""
        batch = [await consumer.get()]
        size = _size(batch[0])
        while self._state.sending > max(self._state.done, batch[-1].sequence):
            try:
                async with asyncio.timeout(REST_SECONDS):
                    batch.append(await consumer.get())
                    size += _size(batch[-1])
            except TimeoutError:
                return batch
        while consumer.waiting and size < BATCH_SIZE:
            batch.append(await consumer.get())
            size += _size(batch[-1])
        return batch

    async def _take(self, batch: Sequence[Delivery]) -> None:
        """Have the relay take a batch, and tell NATS."""
        state, last = self._state, batch[-1]
        data = b"".join([self._run_of(each) for each in batch])
        if data:
            self._way.waiting_bytes = len(data)
            await self._deliver(data, last.sequence)
            self._way.waiting_bytes = 0
            self._way.stored_bytes += self._stored
            self._stored = 0
            self._way.crossing_seconds = max(time.time() - last.stored, 0.0)
        later = {relay: first for relay, first in state.parts.items() if first > last.sequence}
        before, state.parts = state.parts, later | self._assembly.begun
        if last.sequence > state.done:
            state.done, state.stored = last.sequence, last.stored
        if before or state.parts or not data:
            self._file.save()  # else that was done before anything was sent
        await last.acknowledge()

    # What came

    def _run_of(self, delivery: Delivery) -> bytes:
        """Return the messages of a delivery that are for the relay here."""
        state, relay = self._state, ""
        try:
            relay = relay_of(delivery.subject, self._prefix)
            first = state.parts.get(relay, state.done + 1)
            if delivery.sequence < min(first, state.done + 1):
                return b""
            if relay == self._own:
                self._account.own += 1
                return b""
            envelope = Envelope.parse(delivery.payload, delivery.headers)
            if self._selector.types:
                state.ends.pop(relay, None)  # where the next one begins that comes is not known
                self._look_for_gap_in_subject(delivery)
            data = self._assembly.add(relay, envelope.expanded(), delivery.sequence)
            self._stored += len(delivery.payload)
            if data and not self._selector.types:
                self._look_for_gap(relay, envelope)
        except MissingError as error:
            if relay in state.ends:  # else it is of the time before there was a bridge here
                self._pass_over(Loss.STREAM_GAP, delivery, error)
            return b""
        except EnvelopeError as error:
            self._pass_over(Loss.FOREIGN, delivery, error)
            return b""
        return data if self._wants_all else self._wanted(data)

    def _pass_over(self, why: Loss, delivery: Delivery, error: Exception) -> None:
        self._account.lost[why] += 1
        _log.error(
            "reason={why}: message {sequence} of {subject} is passed over: {error}",
            why=why.value,
            sequence=delivery.sequence,
            subject=delivery.subject,
            error=str(error),
        )

    def _look_for_gap(self, relay: str, envelope: Envelope) -> None:
        """Tell of messages of a relay that are not in the stream any more."""
        expected = self._state.ends.get(relay)
        self._state.ends[relay] = envelope.end.text
        if expected is None or expected == envelope.begin.text:
            return
        before = Place.parse(expected)
        if before.epoch == envelope.begin.epoch and before[1:3] < envelope.begin[1:3]:
            self._account.lost[Loss.STREAM_GAP] += 1
            _log.error(
                "reason=stream_gap: what {relay} sent from {expected} to {begin} of its journal "
                "did not come: the stream has it no more",
                relay=relay,
                expected=expected,
                begin=envelope.begin.text,
            )

    def _look_for_gap_in_subject(self, delivery: Delivery) -> None:
        """Tell of messages of a subject that are not in the stream any more.

        Its bridge has had each stored behind the one before it, and that has come if it is not
        behind ``done``.
        """
        state, subject = self._state, delivery.subject
        text = (delivery.headers or {}).get(EXPECTED_SEQUENCE, "")
        before = int(text) if text.isdecimal() else 0
        known = max(self._last.get(subject, 0), state.done, state.caught_up)
        self._last[subject] = delivery.sequence
        if before > known:
            self._account.lost[Loss.STREAM_GAP] += 1
            _log.error(
                "reason=stream_gap: message {before} of {subject}, and maybe some before it, did "
                "not come: the stream has it no more",
                before=before,
                subject=subject,
            )

    def _wanted(self, data: bytes) -> bytes:
        found = select(data, self._selector)
        self._account.filtered += found.total - found.matched
        return b"".join(data[start:stop] for start, stop in found.ranges)

    # What goes to the relay

    async def _deliver(self, data: bytes, sequence: int) -> None:
        """Have the relay acknowledge all of a run, over as many connections as it takes."""
        left, refused, singly = data, Counter[bytes](), False
        uncertain = self._state.sending > self._state.done
        while left:
            await self._link.connected()
            if uncertain:
                left = await self._missing(data, refused)
                uncertain = False
                continue
            self._begin(sequence)
            piece = next(split(left)) if singly else left
            try:
                await self._send(piece)
                left = left[len(piece) :]
            except LinkError:
                uncertain = True
            except RefusedError as error:
                if singly:
                    refused[piece] += 1
                    self._refused(error)
                    left = left[len(piece) :]
                singly = uncertain = True
        self._way.messages += count(data, _ALL) - refused.total()
        self._way.bytes += len(data) - sum(len(each) * n for each, n in refused.items())
        self._way.runs += 1

    def _begin(self, sequence: int) -> None:
        """Keep what it takes to tell, after a break, what the relay has of a batch."""
        state, link = self._state, self._link
        if state.sending <= state.done or state.epoch != link.epoch:
            state.epoch, state.position = link.epoch, link.position
        elif state.sending >= sequence:
            return
        state.sending = max(state.sending, sequence)
        self._file.save()

    async def _send(self, data: bytes) -> None:
        """Publish a run so that it can be told when it is acknowledged."""
        begin, _ = walk(data, len(data) - 1)
        last = Header.unpack(data, begin)
        if begin == 0 or ends_uniquely(data, last):
            await self._link.publish(data, last)
            return
        for message in split(data):
            await self._link.publish(message, Header.unpack(message))

    def _refused(self, error: Exception) -> None:
        self._account.lost[Loss.REFUSED] += 1
        _log.error("reason=refused: a message is passed over: {error}", error=str(error))

    async def _missing(self, data: bytes, refused: Counter[bytes]) -> bytes:
        """Return those messages of a run that the relay neither has nor has refused."""
        state, messages = self._state, list(split(data))
        there = Counter(refused)
        if state.epoch == self._link.epoch:
            sources = frozenset(Header.unpack(message).publisher for message in messages)
            there.update(await self._history(state.epoch, state.position, sources))
        missing = []
        for message in messages:
            if there[message] > 0:
                there[message] -= 1
            else:
                missing.append(message)
        if not refused:  # else they have been counted, or this one has just been sent
            self._way.repeated += len(messages) - len(missing)
        return b"".join(missing)


def _size(delivery: Delivery) -> int:
    """Return how many bytes a delivery has once it is expanded, as far as it says."""
    return max(expanded_size(delivery.payload, delivery.headers), len(delivery.payload))
