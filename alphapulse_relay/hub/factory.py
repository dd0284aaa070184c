"""The hub's centre: keeps the peers, appends what one sends, wakes all the others.

Knows a peer only by its small interface (``peer.Peer``), and nothing of sockets.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger

from alphapulse_relay.hub.counters import Counters
from alphapulse_relay.hub.dialogue import Dialogue
from alphapulse_relay.hub.farewell import Refuser
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.pace import Pace
from alphapulse_relay.hub.peer import Ending, Identity, Miss, Peer, Refusal, State
from alphapulse_relay.hub.protocol import SignalRelayProtocol
from alphapulse_relay.hub.receiver import GATHER_SIZE, RECEIVE_SIZE
from alphapulse_relay.hub.storage import Storage
from alphapulse_relay.hub.subscription import Filters
from alphapulse_relay.hub.throttle import Throttle
from alphapulse_relay.protocol_v2.errors import Rejection, WireError
from alphapulse_relay.protocol_v2.framing import Rules, Run
from alphapulse_relay.protocol_v2.native import load

_fanout = load("alphapulse_relay.hub._fanout")
BUILD = "pure Python" if _fanout is None else "compiled"
"""How messages are forwarded, for people."""
TURN_SECONDS = 0.005
"""How long those are served in one turn that have had theirs: who looks through history must not
hold up the others."""
DRAIN_INTERVAL = 0.01
"""Seconds between looks at whether all was delivered while the relay leaves."""
DEPARTED_KEPT = 50
"""How many ended connections are remembered for the status."""


@dataclass(frozen=True)
class Departure:
    """A connection that ended; ``at`` is in seconds since the epoch."""

    identity: Identity
    reason: Ending
    at: float
    messages_in: int
    messages_out: int


@dataclass(frozen=True)
class LastDropped:
    """The last message that was dropped for a reason; ``at`` is in seconds since the epoch.

    ``detail`` is where in the sender's stream it was and what was wrong, if that is known of it.
    """

    identity: Identity
    at: float
    detail: str


class SignalRelayFactory(ServerFactory):
    """All peers, and the log that they share, whose segments lie in ``storage``.

    To be opened before the first peer comes. ``hold`` is for how many seconds publishers may be
    held back by consumers of which none takes a byte. With ``verbose`` each forwarded chunk is a
    line in the log.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        rules: Rules,
        storage: Storage,
        *,
        hold: float,
        max_peers: int,
        verbose: bool = False,
    ) -> None:
        self.clock = clock
        self.rules = rules
        self.max_peers = max_peers
        self.log = Log(storage, self._overtake)
        self.counters = Counters()
        self.pace = Pace(clock, self.log, hold, self._everybody)
        self.departed: deque[Departure] = deque(maxlen=DEPARTED_KEPT)
        self.log.on_room = self.pace.look
        self.log.on_synced = self._synced
        self.log.on_failure = self._journal_failed
        self.filters = Filters()
        self.names: dict[str, Peer] = {}
        """Who has which name."""
        self._awaiting_sync: dict[Dialogue, None] = {}
        self._waiting: dict[Peer, None] = {}
        self._turn: IDelayedCall | None = None
        self._peers: dict[int, Peer] = {}
        self._snapshot: tuple[Peer, ...] | None = None
        self._walking: dict[int, Peer] = {}  # of these, who has to be woken
        self._walkers: tuple[Peer, ...] | None = None
        self._numbers = count(1)
        self._drop_lines = Throttle(clock)
        self._broken_lines = Throttle(clock)
        self._refusal_lines = Throttle(clock)
        self.last_dropped: dict[Rejection, LastDropped] = {}
        """By reason the last message that was dropped."""
        self._miss_lines = Throttle(clock)
        self._verbose = verbose
        self.fan_out: Any = None
        """Compiled code that delivers to the peers that ride; None without it."""
        if _fanout is not None:
            self.fan_out = _fanout.FanOut(
                self.log,
                rules,
                self.pace,
                self.counters,
                self._forwarded,
                self._fell_behind,
                receive_size=RECEIVE_SIZE,
                gather_size=GATHER_SIZE,
            )
        self._count = (self.counters if self.fan_out is None else self.fan_out).count
        self._connections = 0
        self.leaving = False
        """Whether it parts from its peers."""
        self._unread: list[Peer] = []
        self._drained = Deferred[None]()
        self._drain_until = math.inf

    @property
    def peers(self) -> Iterable[Peer]:
        """The connected peers, oldest first."""
        return self._everybody()

    @property
    def messages_delivered(self) -> int:
        """Messages delivered to all peers, those that left included."""
        here = sum(peer.cursor.messages_out for peer in self._everybody())
        return self.counters.messages_delivered + here

    @property
    def bytes_delivered(self) -> int:
        """Bytes delivered to all peers, those that left included."""
        here = sum(peer.cursor.bytes_out for peer in self._everybody())
        return self.counters.bytes_delivered + here

    def open(self) -> None:
        """Open the log. Raises what its storage does."""
        self.log.open()

    @property
    def messages_replayed(self) -> int:
        """Messages delivered to peers that had not come to the head yet."""
        return self.counters.replayed + sum(p.cursor.replayed for p in self._everybody())

    @property
    def full(self) -> bool:
        """Whether as many peers are connected as may be."""
        return len(self._peers) >= self.max_peers

    def next_number(self) -> int:
        """Return a number that no peer had before."""
        return next(self._numbers)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: ARG002 - IProtocolFactory
        """Return a peer for a new connection, or what refuses it."""
        if self.full:
            return Refuser(self, Refusal.TOO_MANY_PEERS)
        return SignalRelayProtocol(self)

    def join(self, peer: Peer) -> None:
        """Take a connected peer in; from now on it gets what the others send."""
        self.counters.accepted += 1
        self._connections += 1
        self._peers[peer.identity.number] = peer
        if peer.woken:
            self._walking[peer.identity.number] = peer
        self._note_change()
        self._log.info("peer connected: {peer}", **peer.identity.fields)

    def leave(self, peer: Peer, reason: Ending) -> None:
        """Let a peer go."""
        del self._peers[peer.identity.number]
        self._walking.pop(peer.identity.number, None)
        self._waiting.pop(peer, None)
        if not self._waiting and self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._note_change()
        cursor, counters = peer.cursor, self.counters
        counters.ended[reason] += 1
        counters.messages_delivered += cursor.messages_out
        counters.bytes_delivered += cursor.bytes_out
        counters.replayed += cursor.replayed
        self.departed.append(
            Departure(peer.identity, reason, time.time(), peer.messages_in, cursor.messages_out)
        )
        self._log.info(
            "peer disconnected: {peer}, reason={reason}, {received} messages in, {sent} out",
            **peer.identity.fields,
            reason=reason.value,
            received=peer.messages_in,
            sent=cursor.messages_out,
        )
        self.pace.forget(peer)

    def gone(self) -> None:
        """Take note that the connection of a peer that has left is closed."""
        self._connections -= 1

    def broadcast(self, sender: Peer, run: memoryview, messages: int, received_at: float) -> None:
        """Append the run, ``messages`` whole ones behind the head, and send it to all others.

        ``received_at`` is when it came, in ``perf_counter`` seconds.
        """
        self.log.append(len(run), sender.origin, messages)
        sender.published(len(run), messages)
        reached = 0 if self.fan_out is None else self.fan_out.send(run, sender)
        reached += self._wake(sender)
        self.counters.forward.observe(perf_counter() - received_at)
        self._count(run, time.time_ns())
        self._account(sender, len(run), messages, reached)

    def _forwarded(
        self, sender: Peer, length: int, messages: int, reached: int, received_at: float
    ) -> None:
        """Take note that compiled code has appended so much and sent it to those that ride.

        ``reached`` is how many of them took all of the last run, which came at ``received_at``.
        """
        if self.fan_out.chunkwise:
            reached += self._wake(sender)
            self.counters.forward.observe(perf_counter() - received_at)
        self._account(sender, length, messages, reached)

    def _wake(self, sender: Peer) -> int:
        """Deliver to those that are to be woken; return how many are at the head then."""
        if self._walkers is None:
            self._walkers = tuple(self._walking.values())
        reached = 0
        for peer in self._walkers:
            if peer is not sender and peer.state is State.LIVE:
                self._deliver(peer)
                reached += peer.cursor.at_head
        return reached

    def _account(self, sender: Peer, length: int, messages: int, reached: int) -> None:
        """Do what is to be done once a run is delivered."""
        self.counters.messages_received += messages
        self.counters.bytes_received += length
        # Its own bytes may have overtaken it.
        if sender.identity.number in self._peers:
            sender.acknowledge(self.log.head - length, self.log.head)
            self.pace.appended(sender)
        if self._verbose:
            self._log.debug(
                "forwarded message: sender {peer}, {bytes} bytes, {messages} messages, "
                "{peers} peers",
                **sender.identity.fields,
                bytes=length,
                messages=messages,
                peers=reached,
            )

    def _fell_behind(self, peer: Peer, position: int, gone: bool) -> None:
        """Have a peer that rides no longer go on by its cursor."""
        self._guarded(peer, partial(peer.fell_behind, position, gone=gone))

    def dropped(self, sender: Peer, run: Run, offset: int) -> None:
        """Count what was dropped from a sound stream, and log it at a bounded rate.

        ``offset`` is where the run began in the stream, in bytes.
        """
        for reason, number in run.rejected.items():
            self.counters.dropped[reason] += number
        if run.first is not None:
            error = run.first.moved(offset)
            for reason in run.rejected:
                self._note_dropped(sender, reason, error)
            self._warn_of(self._drop_lines, sender, error, sum(run.rejected.values()))

    def broken(self, sender: Peer, error: WireError) -> None:
        """Count the message that a stream cannot be read on from or ends in, and log it.

        The log lines are bounded as those of dropped messages are.
        """
        self.counters.dropped[error.reason] += 1
        self._note_dropped(sender, error.reason, error)
        self._warn_of(self._broken_lines, sender, error, 1)

    def _note_dropped(self, sender: Peer, reason: Rejection, error: WireError) -> None:
        """Keep who sent the last message that was dropped for that reason."""
        detail = f"byte {error.offset}: {error.detail}" if error.reason is reason else ""
        self.last_dropped[reason] = LastDropped(sender.identity, time.time(), detail)

    def _warn_of(self, throttle: Throttle, sender: Peer, error: WireError, number: int) -> None:
        if (left_out := throttle.admit()) is not None:
            self._log.warn(
                "dropped messages: {number}, peer {peer}, reason={reason}, the first at byte "
                "{offset} of its stream: {detail}{left_out}",
                number=number,
                reason=error.reason.value,
                offset=error.offset,
                detail=error.detail,
                left_out=left_out,
                **sender.identity.fields,
            )

    def refused(self, identity: Identity, reason: Refusal, detail: str = "") -> None:
        """Count a connection that was not accepted, and log it at a bounded rate."""
        self.counters.refused[reason] += 1
        if (left_out := self._refusal_lines.admit()) is not None:
            self._log.warn(
                "connection refused: {peer}, reason={reason}{detail}{left_out}",
                reason=reason.value,
                detail=f": {detail}" if detail else "",
                left_out=left_out,
                **identity.fields,
            )

    def is_waiting(self, peer: Peer) -> bool:
        """Tell whether a peer is to be delivered to when the others had their turn."""
        return peer in self._waiting

    def go_on_later(self, peer: Peer) -> None:
        """Deliver more to a peer when the others had their turn."""
        self._waiting[peer] = None
        if self._turn is None:
            self._turn = self.clock.callLater(0, self._serve_waiting)

    def _serve_waiting(self) -> None:
        """Serve who waits for another turn, as many as there is time for in this one."""
        self._turn = None
        until = perf_counter() + TURN_SECONDS
        for peer in tuple(self._waiting):
            del self._waiting[peer]
            if peer.state is State.LIVE:
                self.go_on(peer)
            if perf_counter() >= until:
                break
        if self._waiting and self._turn is None:
            self._turn = self.clock.callLater(0, self._serve_waiting)

    def go_on(self, peer: Peer) -> None:
        """Deliver to a peer that takes bytes again; publishers may have waited for that."""
        self._deliver(peer)
        self.pace.progressed(peer)

    def drain(self, seconds: float) -> Deferred[None]:
        """Read what was already sent, deliver it, and end all connections.

        Fires when that is done; whoever has not taken everything after ``seconds`` is cut.
        """
        self.leaving = True
        for peer in self._everybody():
            peer.stop_reading()
        self._unread = list(self._everybody())
        self._drained = drained = Deferred[None]()
        # It may have been cut already, while the relay was closing its ports.
        self._drain_until = min(self._drain_until, self.clock.seconds() + seconds)
        self._look_at_drain()
        return drained

    def cut_drain(self) -> None:
        """End all connections now if they are being drained, or as soon as they would be."""
        self._drain_until = self.clock.seconds()

    def _look_at_drain(self) -> None:
        """End the connections once nobody is behind; fire when all are gone, or at the limit."""
        over = self.clock.seconds() >= self._drain_until
        self._read_rests()
        if over and self._unread:
            self._log.warn(
                "leaving without what {peers} peers have sent last", peers=len(self._unread)
            )
        if over or (not self._unread and self._nobody_behind()):
            for peer in self._everybody():
                peer.end(Ending.SHUTDOWN)
        if over or not self._connections:
            self._drained.callback(None)
        else:
            self.clock.callLater(DRAIN_INTERVAL, self._look_at_drain)

    def _read_rests(self) -> None:
        """Read what publishers have sent, as far as the consumers keep up with it."""
        while self._unread and self.pace.admits(self._unread[-1]):
            peer = self._unread.pop()
            if peer.identity.number in self._peers:
                self._guarded(peer, peer.read_rest)

    def _nobody_behind(self) -> bool:
        # One that is behind may be at the head: its transport still keeps what it was given.
        return all(
            # Who publishes and has never read will not begin to now.
            peer.reads is False or (peer.state is State.LIVE and peer.cursor.at_head)
            for peer in self._everybody()
        )

    def _deliver(self, peer: Peer) -> None:
        self._guarded(peer, peer.deliver)

    def _guarded(self, peer: Peer, action: Callable[[], None]) -> None:
        """Do something with one peer; whatever fails there must not reach another."""
        try:
            action()
        except Exception:
            self._log.failure("could not serve peer {peer}", **peer.identity.fields)
            peer.end(Ending.FAULT)

    def missed(self, peer: Peer, reason: Miss, messages: int) -> None:
        """Count messages that a peer is told will not come, and log it at a bounded rate."""
        self.counters.missed[reason] += messages
        if (left_out := self._miss_lines.admit()) is not None:
            self._log.warn(
                "peer moved on: {peer}, reason={reason}, {missed} messages were not sent to "
                "it{left_out}",
                reason=reason.value,
                missed=messages,
                left_out=left_out,
                **peer.identity.fields,
            )

    def refused_control(self, sender: Peer, error: WireError) -> None:
        """Count a control message that could not be carried out, and log it."""
        self.counters.dropped[error.reason] += 1
        self._note_dropped(sender, error.reason, error)
        self._warn_of(self._drop_lines, sender, error, 1)

    def resubscribed(self, peer: Peer) -> None:
        """Take note that a peer is sent something else from now on."""
        if peer.identity.number in self._peers:
            self._walking.pop(peer.identity.number, None)
            if peer.woken:
                self._walking[peer.identity.number] = peer
            self._note_change()

    def awaits_sync(self, dialogue: Dialogue, awaits: bool) -> None:
        """Take note whether a peer is to be told of the next sync."""
        if awaits:
            self._awaiting_sync[dialogue] = None
        else:
            self._awaiting_sync.pop(dialogue, None)

    def _synced(self) -> None:
        for dialogue in tuple(self._awaiting_sync):
            dialogue.synced()

    def _journal_failed(self) -> None:
        """Part from those who rely on it that what they are told is on the disk."""
        if not self.log.storage.durable:
            for peer in self._everybody():
                if not peer.patient:
                    peer.end(Ending.UNDURABLE)

    def _overtake(self, start: int, stop: int) -> None:
        """Tell the peers that stand there that the log gives up these positions."""
        for peer in self._everybody():
            if not peer.cursor.away and start <= peer.cursor.position < stop:
                peer.overtaken(stop)

    def _note_change(self) -> None:
        """Take note that a peer came or went."""
        self._snapshot = self._walkers = None
        if self.fan_out is not None:
            self.fan_out.chunkwise = bool(self._walking) or self._verbose

    def _everybody(self) -> tuple[Peer, ...]:
        """Return the peers as a snapshot: sending to one may end it, or another."""
        if self._snapshot is None:
            self._snapshot = tuple(self._peers.values())
        return self._snapshot
