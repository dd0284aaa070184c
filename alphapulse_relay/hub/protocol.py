"""A connection as a peer: who it is, what it may, what it publishes, and how it ends.

What it sends goes to the factory. What it is sent is for its delivery, what is said for its
dialogue; other peers it does not know.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from OpenSSL.SSL import Error as OpenSSLError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from alphapulse_relay.hub.account import Account, RefusedError
from alphapulse_relay.hub.answers import AnswerCursor
from alphapulse_relay.hub.cursor import Cursor
from alphapulse_relay.hub.delivery import Delivery
from alphapulse_relay.hub.dialogue import Dialogue
from alphapulse_relay.hub.farewell import build_farewell, close_soon, identify_peer, refuse
from alphapulse_relay.hub.outlet import IOutlet
from alphapulse_relay.hub.peer import Ending, Hold, Identity, State
from alphapulse_relay.hub.receiver import MessageRunReceiver
from alphapulse_relay.hub.subscribed import SubscribedCursor
from alphapulse_relay.hub.subscription import Subscription
from alphapulse_relay.protocol_v2.control import ErrorCode, ErrorMessage, Subscribe
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.framing import Run

if TYPE_CHECKING:
    from alphapulse_relay.hub.factory import SignalRelayFactory

LEAVING = "the relay leaves: connect again"
"""The last word to peers that use control."""
CHANGED = "the access rules have changed: connect again"
"""The last word to peers that may not go on as they were."""


class SignalRelayProtocol(MessageRunReceiver):
    """One peer of the hub; see :class:`~alphapulse_relay.hub.peer.Peer`."""

    factory: SignalRelayFactory
    transport: Any
    cursor_type = SubscribedCursor
    """What it follows the log by once it has asked for something."""
    tokens: tuple[str, ...] = ()
    """What it has shown, for the access rules."""
    account: Account | None = None
    limited = False
    """Whether it may send only so much."""

    def __init__(self, factory: SignalRelayFactory) -> None:
        super().__init__()
        self.factory = factory
        self.log = factory.log
        self.rules = factory.rules
        self.room = factory.room
        self.state = State.LIVE
        self.connected_at = factory.clock.seconds()
        self.messages_in = self.bytes_in = 0
        self.seat: int | None = None
        self._holds = Hold(0)
        self._refused = False
        self.left = False
        """Whether it is a peer no more, though its connection may still be closing."""
        self._dialogue: Dialogue | None = None
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
        self.delivery = self.make_delivery()
        try:
            account = self.factory.accounts.admit(self.identity, self.tokens)
        except RefusedError as error:
            self._turn_away(error)
            return
        transport.registerProducer(self.delivery, True)
        self._take(account)
        if not self.subscribes:
            self.cursor = AnswerCursor(self.log, self.origins)
        self.factory.join(self)
        self.delivery.ride()

    def _turn_away(self, error: RefusedError) -> None:
        """Tell the peer that it is not let in, and close."""
        self.left = self.ended = self._refused = True
        self._last_call = refuse(
            self.factory, self.transport, self.identity, error.reason, str(error)
        )

    def _take(self, account: Account | None) -> None:
        """Go on by an account, or by none."""
        if self.account is not None:
            self.account.leave(self)
        self.account = account
        self.rules = self.factory.rules if account is None else account.rules
        self.limited = account is not None and account.limited
        if account is not None:
            account.join(self)

    def judge(self) -> None:
        """Go on by the access rules, which have changed; or close if they do not allow that."""
        try:
            account = self.factory.accounts.decide(self.identity, self.tokens)
        except RefusedError as error:
            self.end(Ending.FORBIDDEN, build_farewell(ErrorCode.FORBIDDEN, str(error)))
            return
        rule = None if account is None else account.rule
        may_subscribe = rule is None or rule.subscribe
        may_replay = rule is None or rule.may_replay
        if may_subscribe != self.subscribes or (self.cursor.replaying and not may_replay):
            self.end(Ending.FORBIDDEN, build_farewell(ErrorCode.LEAVING, CHANGED))
        elif account is not self.account:
            self._take(account)

    def identify(self) -> Identity:
        """Return who is at the other end."""
        return identify_peer(self.factory, self.transport)

    def make_delivery(self) -> Delivery:
        """Return what sends to the peer."""
        return Delivery(self, self.outlet)

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
        self._charge(length, messages)

    def _charge(self, length: int, messages: int) -> None:
        """Have it count by what the identity may send."""
        if self.limited and self.account is not None:
            self.account.charge(length, messages)

    def controlReceived(self, message: bytes) -> None:
        """Do what the peer asks for."""
        self._charge(len(message), 1)
        self.dialogue().received(message, self.stream_offset - len(message))

    def controlEnded(self) -> None:
        """Answer all that was asked for at once."""
        if self._dialogue is not None:
            self._dialogue.ended()

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
        self._charge(run.consumed - run.accepted, sum(run.rejected.values()))
        self.factory.report.dropped(self, run, offset)
        if self._dialogue is not None and run.first is not None:
            forbidden = run.first.reason is Rejection.FORBIDDEN
            code = ErrorCode.FORBIDDEN if forbidden else ErrorCode.MALFORMED
            self._dialogue.say(ErrorMessage(code, str(run.first.moved(offset))))

    def roomEnded(self) -> None:
        """Close: what others send in part has taken all the room there is."""
        self.end(Ending.CROWDED)

    def streamBroken(self, error: WireError) -> None:
        """Tell the peer what was wrong and close."""
        self.factory.report.broken(self, error)
        self.end(Ending(error.reason.value), build_farewell(ErrorCode.BROKEN_STREAM, str(error)))

    def hold(self, why: Hold = Hold.PACE) -> None:
        """Leave what the peer sends unread, for that reason among others."""
        if not self._holds:
            self.transport.pauseProducing()
        self._holds |= why

    def release(self, why: Hold = Hold.PACE) -> None:
        """Read from the peer again, if there is no other reason not to."""
        self._holds &= ~why
        if not (self._holds or self.left):
            self.transport.resumeProducing()

    def has_gone(self) -> bool:
        """Tell whether it has closed, as the kernel knows; then it leaves, what it sent is read."""
        if self.left or not self.outlet.hung_up():
            return self.left
        self.outlet.read_rest()
        self.end(Ending.CLOSED)
        return True

    def stop_reading(self) -> None:
        """Leave unread what the peer sends, for good."""
        self.hold(Hold.LEAVING)

    def read_rest(self) -> None:
        """Take what the peer has already sent."""
        self.outlet.read_rest()

    # What it is sent

    @property
    def subscribes(self) -> bool:
        """Whether it may get messages at all."""
        return self.account is None or self.account.rule.subscribe

    @property
    def woken(self) -> bool:
        """Whether it is to be woken for what is appended."""
        return self.subscribes and not self.delivery.rides

    @property
    def takes_all(self) -> bool:
        """Whether it is to be sent all messages as they lie in the log, and nothing else."""
        whole = self._dialogue is None or self._dialogue.subscription.rides
        return whole and self.subscribes

    def follow(self, subscription: Subscription, position: int) -> SubscribedCursor:
        """Have what the log holds sent by a subscription, from that position on."""
        self.delivery.alight()
        factory, before = self.factory, self.cursor
        self.delivery.count_passed()
        factory.counters.replayed += before.replayed
        cursor = self.cursor_type(
            self.log,
            self.origins,
            subscription,
            factory.filters.compressor,
            before,
            position,
            partial(factory.report.missed, self),
        )
        self.cursor = cursor
        factory.resubscribed(self)
        return cursor

    # How it ends

    def end(self, reason: Ending, farewell: bytes = b"") -> None:
        """Close the connection for that reason; the farewell goes only to a peer that keeps up."""
        if self.left:
            return
        writable = self.state is State.LIVE and not self.cursor.mid_message
        self._leave(reason)
        if writable:
            self._last_call = close_soon(self.transport, farewell, self.factory.clock)
        else:
            self.transport.abortConnection()

    def part(self, reason: Ending) -> None:
        """Close the connection as the relay leaves; who talks with it is told."""
        talks = self._dialogue is not None
        self.end(reason, build_farewell(ErrorCode.LEAVING, LEAVING) if talks else b"")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Leave the hub, if not done already."""
        if self._last_call is not None and self._last_call.active():
            self._last_call.cancel()
        if self._refused:
            return
        if reason.check(ConnectionDone):
            self._leave(Ending.CLOSED)
        else:
            broken = reason.check(ConnectionLost, OpenSSLError)
            self._leave(Ending.RESET if broken else Ending.FAULT)
        if self._dialogue is not None:
            self._dialogue.stop()
        self.factory.gone()

    def _leave(self, reason: Ending) -> None:
        if not self.left:
            self.left = self.ended = True
            # Before all else: its socket may be closed, and the number be another's soon.
            self.delivery.alight()
            if self.torn:
                self.factory.report.broken(self, self.torn_error())
                self.forget_torn()
            if self._dialogue is not None:
                self._dialogue.leave()
            self.cursor.leave()
            self.delivery.count_passed()
            if self.account is not None:
                self.account.leave(self)
            self.factory.leave(self, reason)
