"""How far the stream has come to the relay here, and what of it is gone that had not come.

Knows the stream, the consumer and the state; what is done with deliveries, it does not.
"""

import time

from nats.js.api import StreamInfo
from twisted.logger import Logger

from alphapulse_relay.bridge.account import Account, Loss
from alphapulse_relay.bridge.consumer import Consumer
from alphapulse_relay.bridge.state import State, StateFile
from alphapulse_relay.bridge.stream import Stream

_log = Logger()


class Progress:
    """Where to begin inward, and from then on whether something has gone before it came.

    ``by_types``: only some types of message are taken. Then who takes a run cannot tell what is
    missing before it: that may have been of other types.
    """

    def __init__(
        self,
        stream: Stream,
        consumer: Consumer,
        file: StateFile,
        account: Account,
        *,
        by_types: bool,
    ) -> None:
        self._stream = stream
        self._consumer = consumer
        self._file = file
        self._account = account
        self._by_types = by_types
        self._has_begun = False
        self._last_then = 0  # of the stream's messages, when it was looked last

    @property
    def _state(self) -> State:
        return self._file.state  # another one once the file has been read

    # Where to begin

    async def begin(self) -> int:
        """Return the sequence of the stream from which on messages are to come.

        Raises what :meth:`Stream.check` does, errors of NATS, and :class:`StateError`.
        """
        info, state = await self._stream.check(), self._state
        acknowledged = await self._consumer.acknowledged()
        created = str(info.created)  # of the same answer as the rest
        if state.created != created:
            begin = self._first_in(info) if acknowledged is None else acknowledged
            state.created = created
            state.begin(begin)
        if await self._has_lost_end(info):
            acknowledged = None  # that is of what was there before
        if self._by_types:  # before what is gone counts as acknowledged
            self._look_what_is_gone(info)
        if acknowledged is not None and state.done < acknowledged <= info.state.last_seq:
            state.done, state.stored = acknowledged, 0.0
        state.gone = time.time()
        self._file.save()
        self._has_begun = True
        self._last_then = 0
        return min([state.done + 1, *state.parts.values()])

    def _look_what_is_gone(self, info: StreamInfo) -> None:
        state, first = self._state, info.state.first_seq
        state.caught_up = min(state.caught_up, info.state.last_seq)  # it may have lost its end
        # Of a run that has not come as a whole the beginning is needed again.
        if not self._tell_if_gone(min([self._unseen, *state.parts.values()]), first):
            return
        state.parts = {relay: begin for relay, begin in state.parts.items() if begin >= first}
        if state.done < first - 1:
            state.done, state.stored = first - 1, 0.0

    def _first_in(self, info: StreamInfo) -> int:
        """Return the sequence up to which a stream that was not known is passed over.

        All of one that was made anew while there was a bridge is new; others' past is not for the
        relay here.
        """
        since = info.created.timestamp() if info.created else 0.0
        known = self._has_begun or self._state.gone < since
        return 0 if self._state.created and known else info.state.last_seq

    async def _has_lost_end(self, info: StreamInfo) -> bool:
        """Go back where the stream has lost its end: what has its sequences now is new."""
        state = self._state
        if not state.stored:
            return False
        same = await self._stream.same_until(info, state.done, state.stored)
        if same == state.done:
            return False
        _log.error(
            "the stream has lost what it had behind {same} when {done} had come: what is there now "
            "is new",
            same=same,
            done=state.done,
        )
        state.begin(same)
        return True

    # From then on

    async def look(self) -> None:
        """See whether all has come by now, and whether what has not is gone; to be done often.

        Raises what :meth:`Stream.find` does, and errors of NATS.
        """
        if not self._by_types:
            return
        state = self._state
        # Before the stream is: to the consumer what is gone counts as delivered.
        has_all = await self._consumer.has_delivered_all()
        info = await self._stream.find()
        if info is None or str(info.created) != state.created:
            return  # the consumer went with the stream
        delivered = self._consumer.delivered  # be it not at the relay yet
        self._tell_if_gone(max(self._unseen, delivered + 1), info.state.first_seq)
        if has_all and delivered <= state.done:
            # What it has stored since then may not have been known where the consumer is.
            state.caught_up = max(state.caught_up, self._last_then)
        self._last_then = info.state.last_seq

    @property
    def _unseen(self) -> int:
        """The sequence from which on something may not be at the relay."""
        return max(self._state.done, self._state.caught_up) + 1

    def _tell_if_gone(self, begin: int, first: int) -> bool:
        """Tell if messages from a sequence on are not in the stream, whose first one is another."""
        if first <= begin:
            return False
        self._account.lost[Loss.STREAM_GAP] += 1
        _log.error(
            "reason=stream_gap: the stream no longer has its messages {begin} to {end}, some of "
            "which may have been for the relay here",
            begin=begin,
            end=first - 1,
        )
        self._state.caught_up = max(self._state.caught_up, first - 1)
        return True
