"""The hub's centre: keeps the peers, appends what one sends, wakes all the others.

Knows a peer only by its small interface (``peer.Peer``), and nothing of sockets.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger

from alphapulse_relay.hub.account import Accounts
from alphapulse_relay.hub.counters import Counters
from alphapulse_relay.hub.dialogue import Dialogue
from alphapulse_relay.hub.drain import Drain
from alphapulse_relay.hub.farewell import Refuser
from alphapulse_relay.hub.gathering import Room
from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.pace import Pace
from alphapulse_relay.hub.peer import Ending, Identity, Peer, Refusal, State
from alphapulse_relay.hub.permission import AccessRules
from alphapulse_relay.hub.protocol import SignalRelayProtocol
from alphapulse_relay.hub.receiver import GATHER_SIZE, RECEIVE_SIZE
from alphapulse_relay.hub.report import Report
from alphapulse_relay.hub.storage import Storage
from alphapulse_relay.hub.subscription import Filters
from alphapulse_relay.hub.turns import Turns
from alphapulse_relay.protocol_v2.framing import Rules
from alphapulse_relay.protocol_v2.native import load

_fanout = load("alphapulse_relay.hub._fanout")
BUILD = "pure Python" if _fanout is None else "compiled"
"""How messages are forwarded, for people."""
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
        self.room = Room()
        self.counters = Counters()
        self.report = Report(clock, self.counters)
        self.pace = Pace(clock, self.log, hold, self._everybody)
        self.accounts = Accounts(clock, rules, self.report.limited)
        self.departed: deque[Departure] = deque(maxlen=DEPARTED_KEPT)
        self.log.on_room = self.pace.look
        self.log.on_synced = self._synced
        self.log.on_failure = self._journal_failed
        self.filters = Filters()
        self.names: dict[str, Peer] = {}
        """Who has which name."""
        self.awaiting_sync: dict[Dialogue, None] = {}
        """Whose peers are to be told of the next sync."""
        self.turns = Turns(clock, self.go_on)
        self.drain = Drain(self)
        self._peers: dict[int, Peer] = {}
        self._snapshot: tuple[Peer, ...] | None = None
        self._walking: dict[int, Peer] = {}  # of these, who has to be woken
        self._walkers: tuple[Peer, ...] | None = None
        self._numbers = count(1)
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
        self.connections = 0
        """How many are open, those of peers that have left included."""

    @property
    def access(self) -> AccessRules | None:
        """Who may do what; None if everybody may do all. Who is connected is judged anew."""
        return self.accounts.access

    @access.setter
    def access(self, access: AccessRules | None) -> None:
        self.accounts.change(access)
        for peer in self._everybody():
            self.guard(peer, peer.judge)

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

    def log_chunks(self, verbose: bool) -> None:
        """Have each forwarded chunk be a line in the log from now on, or not."""
        self._verbose = verbose
        self._note_change()

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

    def is_connected(self, peer: Peer) -> bool:
        """Tell whether a peer has joined, and has not left."""
        return peer.identity.number in self._peers

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
        self.connections += 1
        self._peers[peer.identity.number] = peer
        if peer.woken:
            self._walking[peer.identity.number] = peer
        self._note_change()
        rule = {} if peer.account is None else {"rule": peer.account.rule.name}
        by = ", rule={rule}" if rule else ""
        self._log.info(f"peer connected: {{peer}}{by}", **rule, **peer.identity.fields)

    def leave(self, peer: Peer, reason: Ending) -> None:
        """Let a peer go."""
        del self._peers[peer.identity.number]
        self._walking.pop(peer.identity.number, None)
        self.turns.remove(peer)
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
        self.connections -= 1

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
        self.guard(peer, partial(peer.delivery.fell_behind, position, gone=gone))

    def go_on(self, peer: Peer) -> None:
        """Deliver to a peer that takes bytes again; publishers may have waited for that."""
        self._deliver(peer)
        self.pace.progressed(peer)

    def _deliver(self, peer: Peer) -> None:
        self.guard(peer, peer.delivery.deliver)

    def guard(self, peer: Peer, action: Callable[[], None]) -> None:
        """Do something with one peer; whatever fails there must not reach another."""
        try:
            action()
        except Exception:
            self._log.failure("could not serve peer {peer}", **peer.identity.fields)
            peer.end(Ending.FAULT)

    def resubscribed(self, peer: Peer) -> None:
        """Take note that a peer is sent something else from now on."""
        if self.is_connected(peer):
            self._walking.pop(peer.identity.number, None)
            if peer.woken:
                self._walking[peer.identity.number] = peer
            self._note_change()

    def awaits_sync(self, dialogue: Dialogue, awaits: bool) -> None:
        """Take note whether a peer is to be told of the next sync."""
        if awaits:
            self.awaiting_sync[dialogue] = None
        else:
            self.awaiting_sync.pop(dialogue, None)

    def _synced(self) -> None:
        for dialogue in tuple(self.awaiting_sync):
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
                peer.delivery.overtaken(stop)

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
