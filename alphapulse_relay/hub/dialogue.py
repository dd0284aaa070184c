"""What a peer says to the relay itself, and what it is answered.

Knows the meaning of control messages; how they come and go the connection knows, where messages lie
the log.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, assert_never

from twisted.internet.interfaces import IDelayedCall

from alphapulse_relay.hub.answers import AnswerCursor
from alphapulse_relay.hub.history import AtLast, AtPosition, LastMatching, Search, position_at
from alphapulse_relay.hub.outgoing import OUTGOING_MAX
from alphapulse_relay.hub.peer import Ending, State
from alphapulse_relay.hub.retransmission import Retransmission
from alphapulse_relay.hub.subscribed import SubscribedCursor
from alphapulse_relay.hub.subscription import Subscription, origin_of_name
from alphapulse_relay.protocol_v2.control import (
    Ack,
    ControlError,
    ControlMessage,
    ControlType,
    ErrorCode,
    ErrorMessage,
    Gap,
    GapReason,
    Heartbeat,
    RecoveryRequest,
    SequenceSync,
    Start,
    Subscribe,
    SyncState,
    Wish,
    parse_control,
)
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.selection import last_sequences

if TYPE_CHECKING:
    from alphapulse_relay.hub.protocol import SignalRelayProtocol

NOTHING: frozenset[int] = frozenset({ControlType.ACK})
"""Types to subscribe to for who only publishes: no message of a publisher has them."""
HEARTBEAT_SECONDS = 5.0
"""Silence after which a peer that wishes it is sent a Heartbeat."""


class RequestError(Exception):
    """What was asked for cannot be had; the peer is told so, and keeps what it had."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def found_now(search: Search) -> tuple[int, Search | None]:
    """Return what a search of one step finds, if it need not wait for a disk; else the search."""
    if search.wants() is None and search.step():
        return search.position, None
    return search.position, search


class Dialogue:
    """One peer's."""

    def __init__(self, peer: SignalRelayProtocol) -> None:
        self.name = ""
        self.subscription = Subscription(Subscribe(), None)
        self._peer = peer
        self._factory = peer.factory
        self._log = peer.log
        self._unsynced: deque[tuple[int, Ack]] = deque()
        self._hearing = False  # whether what the peer asks for is being read
        self._heartbeat: IDelayedCall | None = None
        self._silent_since = -1  # bytes of messages that had been delivered
        self._spoke = False  # since then

    @property
    def acknowledges(self) -> bool:
        """Whether the peer is told what of its messages has arrived."""
        return Wish.ACKNOWLEDGE in self.subscription.wishes

    def received(self, message: bytes, offset: int) -> None:
        """Do what a control message asks for, or tell the peer why not.

        ``offset`` is where it began in the peer's stream.
        """
        self._hearing = True
        try:
            self._carry_out(message)
        except (ControlError, RequestError) as error:
            self._factory.report.refused_control(
                self._peer, WireError(Rejection.CONTROL, offset, str(error))
            )
            self.say(ErrorMessage(error.code, str(error)))

    def ended(self) -> None:
        """Answer all that was asked for at once, if anything was."""
        if self._hearing:
            self._hearing = False
            if not self._peer.left:
                self._speak()

    def _carry_out(self, message: bytes) -> None:
        content = parse_control(message)
        if isinstance(content, Subscribe):
            self.subscribe(content)
        elif isinstance(content, RecoveryRequest):
            self._retransmit(content)
        elif isinstance(content, Heartbeat):
            self.say(Heartbeat(time.time_ns(), 0))
        else:
            kind = type(content).__name__
            raise RequestError(ErrorCode.MALFORMED, f"{kind} is for the relay to say")

    def _retransmit(self, request: RecoveryRequest) -> None:
        self._check_replay()
        cursor = self._speaker()
        # Who has history gets messages.
        assert isinstance(cursor, SubscribedCursor)
        cursor.retransmit(Retransmission(self._log, self._peer.origins, request))
        self._speak()

    @property
    def _may_replay(self) -> bool:
        """Whether the peer may have what was published before it asks."""
        account = self._peer.account
        return account is None or account.rule.may_replay

    def _check_replay(self) -> None:
        """Raise :class:`RequestError` if the peer may not have history."""
        if not self._may_replay:
            raise RequestError(ErrorCode.FORBIDDEN, "the access rules give you no history")

    def _skips_history(self, asked: Subscribe) -> bool:
        """Whether the peer comes back with a bookmark, and may only go on at the head."""
        comes_back = asked.start is Start.POSITION and Wish.STOP_AT_HEAD not in asked.wishes
        return comes_back and not self._may_replay

    def subscribe(self, asked: Subscribe) -> None:
        """Have the peer sent what it asks for from now on.

        Raises :class:`RequestError` if it cannot be had; nothing has changed then.
        """
        if not (asked.start is Start.LIVE or self._skips_history(asked)):
            self._check_replay()
        if not self._peer.subscribes and asked.types != NOTHING:
            raise RequestError(ErrorCode.FORBIDDEN, "the access rules give you no messages")
        position, search = self._start(asked)
        if Wish.ACKNOWLEDGE in asked.wishes and not self._log.storage.durable:
            raise RequestError(
                ErrorCode.NOT_DURABLE, "nothing can be acknowledged: the journal has failed"
            )
        self._take_name(asked.name)
        self.subscription = Subscription(asked, self._factory.filters.filter_for(asked))
        self._follow(position, search)
        self._beat()
        self._speak()

    def _follow(self, position: int, search: Search | None) -> None:
        """Have what was asked for sent, and say from where."""
        if not self._peer.subscribes:
            sync = SequenceSync(self._log.epoch, position, SyncState.LIVE)
            self._speaker().outgoing.answer(sync)
            return
        cursor = self._peer.follow(self.subscription, position)
        asked = self.subscription.asked
        if self._skips_history(asked) and asked.start_value < position:
            missed = Gap(self._log.epoch, asked.start_value, position, GapReason.RETENTION)
            cursor.outgoing.add(missed)
        if search is None:
            cursor.outgoing.answer(cursor.sync)
        else:
            cursor.search(search)

    def _start(self, asked: Subscribe) -> tuple[int, Search | None]:
        """Return where a subscription begins, or a search for it."""
        log = self._log
        if asked.start is Start.LIVE:
            return log.head, None
        if asked.start is Start.TIME:
            return position_at(log, asked.start_value), None
        if asked.start is Start.LAST:
            wanted = self._factory.filters.filter_for(asked)
            if wanted is None:
                return found_now(AtLast(log, asked.start_value))
            return log.head, LastMatching(log, wanted.selector, asked.start_value)
        if asked.start is Start.POSITION:
            position = self._position(asked)
            if self._skips_history(asked):
                return log.head, None
            return found_now(AtPosition(log, position))
        assert_never(asked.start)

    def _position(self, asked: Subscribe) -> int:
        log, position = self._log, asked.start_value
        if asked.epoch not in (0, log.epoch):
            raise RequestError(
                ErrorCode.WRONG_EPOCH,
                f"the bookmark is of epoch {asked.epoch}, this journal is {log.epoch}",
            )
        if position > log.head:
            raise RequestError(
                ErrorCode.NOT_KEPT, f"position {position} is beyond the head, {log.head}"
            )
        return position

    def _take_name(self, name: str) -> None:
        if name in ("", self.name):
            return
        if self.name:
            raise RequestError(
                ErrorCode.MALFORMED, f"this connection has the name {self.name!r} already"
            )
        holder = self._factory.names.get(name)
        if holder is not None and not holder.has_gone():
            raise RequestError(
                ErrorCode.NAME_TAKEN, f"peer {holder.identity} has the name {name!r}"
            )
        self._factory.names[name] = self._peer
        self.name = name
        self._peer.publish_as(origin_of_name(name))

    # What it is told

    def say(self, content: ControlMessage) -> None:
        """Tell the peer something, at the next boundary between messages."""
        if not self._peer.left:
            self._spoke = True
            self._speaker().outgoing.add(content)
            self._speak()

    def _speaker(self) -> SubscribedCursor | AnswerCursor:
        """Return a cursor that the relay can speak by."""
        peer = self._peer
        peer.delivery.alight()
        if isinstance(peer.cursor, SubscribedCursor | AnswerCursor):
            return peer.cursor
        here = self._log.head if peer.cursor.away else peer.cursor.next_boundary
        cursor = peer.follow(self.subscription, here)
        cursor.replaying = False  # it goes on, be it behind
        return cursor

    def _speak(self) -> None:
        """Send what there is to say, and all that can be sent."""
        peer, unsaid = self._peer, self._speaker().unsaid
        if self._hearing and unsaid < OUTGOING_MAX // 2:
            return  # more may follow
        if unsaid > OUTGOING_MAX:
            peer.end(Ending.UNREAD)
        elif peer.state is State.LIVE and not peer.left:
            self._factory.go_on(peer)

    # What it publishes

    def acknowledge(self, start: int, stop: int) -> None:
        """Tell the peer, or note to do so, that what it published there is in the journal."""
        run = self._log.read(start)[: stop - start]
        for source, (sequence, end) in last_sequences(run).items():
            self._unsynced.append((stop, Ack(source, sequence, start + end)))
        self.synced()

    def synced(self) -> None:
        """Tell the peer what can be told by now."""
        durable, said = self._log.storage.acknowledged(self._log.head), False
        while self._unsynced and self._unsynced[0][0] <= durable:
            self._speaker().outgoing.add(self._unsynced.popleft()[1])
            said = True
        # Before it is told: that may be the end of it.
        self._factory.awaits_sync(self, bool(self._unsynced))
        if said:
            self._spoke = True
            self._speak()

    # Time

    def _beat(self) -> None:
        """Begin to watch for silence, or stop."""
        self.stop()
        if Wish.HEARTBEATS in self.subscription.wishes:
            self._silent_since, self._spoke = self._peer.cursor.bytes_out, False
            self._heartbeat = self._factory.clock.callLater(
                HEARTBEAT_SECONDS, self._look_at_silence
            )

    def _look_at_silence(self) -> None:
        self._heartbeat = self._factory.clock.callLater(HEARTBEAT_SECONDS, self._look_at_silence)
        delivered = self._peer.cursor.bytes_out
        if delivered == self._silent_since and not self._spoke:
            self.say(Heartbeat(time.time_ns(), 0))
        self._silent_since, self._spoke = delivered, False

    def stop(self) -> None:
        """Say nothing more by itself."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None

    def leave(self) -> None:
        """Give back what it has of the hub."""
        self.stop()
        self._factory.awaits_sync(self, False)
        if self.name:
            del self._factory.names[self.name]
