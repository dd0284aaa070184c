"""A connection as a peer: what it sends goes to the factory, what the log holds goes to it.

Knows the log by its cursor and the transport by its outlet; other peers it does not know.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from OpenSSL.SSL import Error as OpenSSLError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from alphapulse_relay.hub.cursor import Cursor
from alphapulse_relay.hub.dialogue import Dialogue
from alphapulse_relay.hub.farewell import build_farewell, close_soon, identify_peer
from alphapulse_relay.hub.outgoing import OUTGOING_MAX
from alphapulse_relay.hub.outlet import UNDER_WAY, IOutlet
from alphapulse_relay.hub.peer import Ending, Identity, Miss, State
from alphapulse_relay.hub.receiver import MessageRunReceiver
from alphapulse_relay.hub.subscribed import SubscribedCursor
from alphapulse_relay.hub.subscription import Subscription
from alphapulse_relay.protocol_v2.control import (
    ControlMessage,
    ErrorCode,
    ErrorMessage,
    Subscribe,
)
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import Run

if TYPE_CHECKING:
    from alphapulse_relay.hub.factory import SignalRelayFactory

SENDS_PER_TURN = 16
"""Sends to one peer before the others get their turn."""
LOOKS_PER_TURN = 2
"""Stretches of history that are looked through for one peer in vain before that."""


@implementer(IPushProducer)
class SignalRelayProtocol(MessageRunReceiver):
    """One peer of the hub; see :class:`~alphapulse_relay.hub.peer.Peer`."""

    factory: SignalRelayFactory
    transport: Any
    cursor_type = SubscribedCursor
    """What it follows the log by once it has asked for something."""
    _log = Logger()

    def __init__(self, factory: SignalRelayFactory) -> None:
        super().__init__()
        self.factory = factory
        self.log = factory.log
        self.rules = factory.rules
        self.state = State.LIVE
        self.connected_at = factory.clock.seconds()
        self._took_at = -math.inf
        self._descriptor: int | None = None  # of the socket, if it may be sent to directly
        self._queued = 0  # bytes that its socket held when last looked at
        self.messages_in = self.bytes_in = 0
        self.seat: int | None = None
        self._seen_reading = False
        self._reads = False  # has taken bytes after its socket was full
        self._passed = False  # the log goes on without it, as it does not read
        self._read_out = False  # nothing more is to be received
        self._left = False
        self._fetching = False  # what it is to be sent next comes from the disk
        self._dialogue: Dialogue | None = None
        self._hearing = False  # whether what it asks for is being read
        self._last_call: IDelayedCall | None = None

    # What it sends

    def connectionMade(self) -> None:
        """Join the hub."""
        transport = self.transport
        self.identity = self.identify()
        self.origin = self.log.anonymous(self.identity.number)
        self.origins = frozenset({self.origin})
        self.cursor: Cursor = Cursor(self.log, self.origins)
        self.outlet = IOutlet(transport)
        self._descriptor = self.outlet.descriptor()
        transport.registerProducer(self, True)
        self.factory.join(self)
        self._ride()

    def identify(self) -> Identity:
        """Return who is at the other end."""
        return identify_peer(self.factory, self.transport)

    @property
    def fan_out(self) -> Any:
        """Compiled code that receives and forwards what comes next; None if that is not for it."""
        return None if self.gathering else self.factory.fan_out

    def runReceived(self, run: memoryview, messages: int, received_at: float) -> None:
        """Have the run appended and sent to all others."""
        self.factory.broadcast(self, run, messages, received_at)

    def published(self, length: int, messages: int) -> None:
        """Take note that the last ``length`` bytes of the log, so many messages, came from here."""
        self.messages_in += messages
        self.bytes_in += length
        self.cursor.published(length, messages)

    def controlReceived(self, message: bytes) -> None:
        """Do what the peer asks for."""
        self._hearing = True
        self.dialogue().received(message, self.stream_offset - len(message))

    def controlEnded(self) -> None:
        """Answer all that was asked for at once."""
        if self._hearing:
            self._hearing = False
            if not self._left:
                self.speak()

    def dialogue(self) -> Dialogue:
        """Return what keeps up the conversation, begun if there was none."""
        if self._dialogue is None:
            self._dialogue = Dialogue(self)
        return self._dialogue

    def acknowledge(self, start: int, stop: int) -> None:
        """Tell the peer that what it published there is in the log, if it wants to know."""
        if self._dialogue is not None and self._dialogue.acknowledges:
            self._dialogue.acknowledge(start, stop)

    @property
    def patient(self) -> bool:
        """Whether it goes on publishing without a word from the relay."""
        return self._dialogue is None or not self._dialogue.acknowledges

    @property
    def name(self) -> str:
        """What it calls itself; empty if nothing."""
        return "" if self._dialogue is None else self._dialogue.name

    @property
    def asked(self) -> Subscribe:
        """What it has asked for; one that never did gets everything, live."""
        return Subscribe() if self._dialogue is None else self._dialogue.subscription.asked

    def publish_as(self, origin: int) -> None:
        """Take note that what it publishes is that origin's, and was before."""
        self.origin = origin
        self.origins |= {origin}

    def messagesRejected(self, run: Run, offset: int) -> None:
        """Have the dropped messages counted and logged; the connection lives."""
        self.factory.dropped(self, run, offset)
        if self._dialogue is not None and run.first is not None:
            self.say(ErrorMessage(ErrorCode.MALFORMED, str(run.first.moved(offset))))

    def streamBroken(self, error: WireError) -> None:
        """Tell the peer what was wrong and close."""
        self.factory.broken(self, error)
        self.end(Ending(error.reason.value), build_farewell(ErrorCode.BROKEN_STREAM, str(error)))

    def hold(self) -> None:
        """Leave what the peer sends unread."""
        self.transport.pauseProducing()

    def release(self) -> None:
        """Read from the peer again."""
        if not self._read_out:
            self.transport.resumeProducing()

    def has_gone(self) -> bool:
        """Tell whether it has closed, as the kernel knows; then it leaves, what it sent is read."""
        if self._left or not self.outlet.hung_up():
            return self._left
        self.outlet.read_rest()
        self.end(Ending.CLOSED)
        return True

    def stop_reading(self) -> None:
        """Leave unread what the peer sends, for good."""
        self._read_out = True
        self.transport.pauseProducing()

    def read_rest(self) -> None:
        """Take what the peer has already sent."""
        self.outlet.read_rest()

    # What it is sent

    @property
    def woken(self) -> bool:
        """Whether it is to be woken for what is appended."""
        return not self.rides

    @property
    def rides(self) -> bool:
        """Whether compiled code sends to it whenever it is at the head."""
        whole = self._dialogue is None or self._dialogue.subscription.rides
        return whole and self._descriptor is not None and self.factory.fan_out is not None

    @property
    def reads(self) -> bool | None:
        """Whether it is known to read: its socket holds less than it was given.

        None if that cannot be told yet of one that has not published; of a publisher it is taken
        for a no.
        """
        if self.state is State.MUTED:
            return False
        self._seen_reading = self._seen_reading or self.outlet.queued() < self.cursor.bytes_out
        return self._seen_reading or (False if self._publishes() else None)

    @property
    def queued(self) -> int | None:
        """Bytes that it was given and has not taken; None where only a bound to them is known."""
        queued = self.outlet.queued()
        return queued if queued < UNDER_WAY else None

    def has_taken(self, since: float) -> bool:
        """Whether it has taken bytes after that time, in seconds of the factory's clock.

        A socket that was full says only after a good while that there is room again: so a slow
        reader is also told by what its socket still holds.
        """
        if self.cursor.riding:
            return True  # all that was ever appended
        if self.state is State.BEHIND:
            queued = self.outlet.queued()
            if queued < self._queued:
                self._took_at = self.factory.clock.seconds()
            self._queued = queued
        return self._took_at > since

    def deliver(self) -> None:
        """Send from the cursor on, until at the head or the peer takes no more."""
        cursor = self.cursor
        if self._fetching or self._left:
            return
        looked = 0
        for _ in range(SENDS_PER_TURN):
            data = cursor.next()
            if data:
                self._send(data)
            elif cursor.wants is not None:
                self._fetch(*cursor.wants)
                return
            elif cursor.finished:
                self.end(Ending.FINISHED)
                return
            elif cursor.lost:
                self.end(Ending.DAMAGED)
                return
            elif cursor.away:
                self._rejoin()
            if self.state is not State.LIVE:
                return
            if cursor.at_head:
                self._ride()
                return
            looked += not data
            if looked == LOOKS_PER_TURN:
                break
        self.factory.go_on_later(self)

    def fell_behind(self, position: int, *, gone: bool) -> None:
        """Go on by its cursor: of what was appended it took what lies before ``position``."""
        self.cursor.alight(position)
        self._took_at = self.factory.clock.seconds()
        self.outlet.took_less(gone=gone)

    def pauseProducing(self) -> None:
        """Take note that the peer's socket is full."""
        if self.state is State.LIVE:
            self.state = State.BEHIND
            self._queued = self.outlet.queued()

    def resumeProducing(self) -> None:
        """Go on: the peer has taken bytes and there is room for more."""
        if self.outlet.room_means_read(self.cursor.bytes_out):
            self._reads = self._seen_reading = True
        self.state = State.LIVE
        self.factory.go_on(self)

    def stopProducing(self) -> None:
        """Send no more."""
        self.state = State.MUTED
        self._alight()
        self.cursor.leave()
        self.cursor.rest = b""

    def reader_gone(self) -> None:
        """Send no more: the peer has shut its reading side, though it may still publish."""
        self._passed = True
        self.stopProducing()
        self._log.warn("peer muted: {peer} has shut its reading side", **self.identity.fields)

    def overtaken(self, stop: int) -> None:
        """Move on to ``stop`` if the peer can be told; if not, close.

        A publisher that never reads lives on, muted.
        """
        if self.cursor.move_on(stop):
            return
        if self._publishes() and not self._reads:
            self.state = State.MUTED
            self._passed = True
            self.cursor.leave()
            self._log.warn("peer muted: {peer} publishes, does not read", **self.identity.fields)
        else:
            missed = self.cursor.missing
            self.factory.counters.missed[Miss.OVERTAKEN] += missed
            self._log.warn(
                "peer overtaken: {peer} did not read, {missed} messages were not sent to it",
                missed=missed,
                **self.identity.fields,
            )
            self.end(Ending.OVERTAKEN)

    # What it is told

    def follow(self, subscription: Subscription, position: int) -> SubscribedCursor:
        """Have what the log holds sent by a subscription, from that position on."""
        self._alight()
        factory, before = self.factory, self.cursor
        self._count_passed()
        factory.counters.replayed += before.replayed
        cursor = self.cursor_type(
            self.log,
            self.origins,
            subscription,
            factory.filters.compressor,
            before,
            position,
            partial(factory.missed, self),
        )
        self.cursor = cursor
        factory.resubscribed(self)
        return cursor

    def listen(self) -> SubscribedCursor:
        """Return a cursor that the relay can speak by."""
        self._alight()
        if isinstance(self.cursor, SubscribedCursor):
            return self.cursor
        assert self._dialogue is not None
        here = self.log.head if self.cursor.away else self.cursor.next_boundary
        cursor = self.follow(self._dialogue.subscription, here)
        cursor.replaying = False  # it goes on, be it behind
        return cursor

    def say(self, content: ControlMessage) -> None:
        """Tell the peer something, at the next boundary between messages."""
        if not self._left:
            self.listen().outgoing.add(content)
            self.speak()

    def speak(self) -> None:
        """Send what there is to say, and all that can be sent."""
        unsaid = self.listen().unsaid
        if self._hearing and unsaid < OUTGOING_MAX // 2:
            return  # more may follow
        if unsaid > OUTGOING_MAX:
            self.end(Ending.UNREAD)
        elif self.state is State.LIVE and not self._left:
            self.factory.go_on(self)

    def _fetch(self, start: int, stop: int) -> None:
        self._fetching = True
        self.log.fetch(start, stop, self._fetched)

    def _fetched(self) -> None:
        self._fetching = False
        if self.state is State.LIVE and not self._left:
            self.factory.go_on(self)

    def _publishes(self) -> bool:
        """Whether anything came from it, if only as far as its socket."""
        return bool(self.messages_in or self.torn or self.outlet.pending())

    def _ride(self) -> None:
        """Let compiled code send to it from now on; it is at the head."""
        if self.rides and self.seat is None:
            self.cursor.ride()
            self.factory.fan_out.add(self, self._descriptor)

    def _alight(self) -> None:
        if self.seat is not None:
            self.factory.fan_out.remove(self)
            self.cursor.alight(self.log.head)

    def _send(self, data: memoryview) -> None:
        sent = self.outlet.send(data)
        if sent:
            self.cursor.advance(sent)
            self._took_at = self.factory.clock.seconds()

    def _rejoin(self) -> None:
        missed = self._count_passed()
        self.cursor.rejoin()
        self._log.info(
            "peer reads again: {peer}, {missed} messages were not sent to it",
            missed=missed,
            **self.identity.fields,
        )

    def _count_passed(self) -> int:
        """Count, and return, what the log went on with while the peer did not read."""
        missed = self.cursor.missing if self._passed else 0
        self._passed = False
        self.factory.counters.missed[Miss.MUTED] += missed
        return missed

    # How it ends

    def end(self, reason: Ending, farewell: bytes = b"") -> None:
        """Close the connection for that reason; the farewell goes only to a peer that keeps up."""
        if self._left:
            return
        writable = self.state is State.LIVE and not self.cursor.mid_message
        self._leave(reason)
        if writable:
            self._last_call = close_soon(self.transport, farewell, self.factory.clock)
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the hub, if not done already."""
        if reason.check(ConnectionDone):
            self._leave(Ending.CLOSED)
        else:
            broken = reason.check(ConnectionLost, OpenSSLError)
            self._leave(Ending.RESET if broken else Ending.FAULT)
        if self._dialogue is not None:
            self._dialogue.stop()
        if self._last_call is not None and self._last_call.active():
            self._last_call.cancel()
        self.factory.gone()

    def _leave(self, reason: Ending) -> None:
        if not self._left:
            self._left = self.ended = True
            # Before all else: its socket may be closed, and the number be another's soon.
            self._alight()
            if self.torn:
                self.factory.broken(self, self.torn_error())
            if self._dialogue is not None:
                self._dialogue.leave()
            self.cursor.leave()
            self._count_passed()
            self.factory.leave(self, reason)
