"""How the relay leaves: it reads what was sent, delivers it, and ends all connections.

Knows who has all and who is still behind; the peers themselves the factory has.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from alphapulse_relay.hub.peer import Ending, Peer, State

if TYPE_CHECKING:
    from alphapulse_relay.hub.factory import SignalRelayFactory

DRAIN_INTERVAL = 0.01
"""Seconds between looks at whether all was delivered."""


class Drain:
    """The end of a factory's peers."""

    _log = Logger()

    def __init__(self, factory: SignalRelayFactory) -> None:
        self.begun = False
        """Whether the relay parts from its peers."""
        self._factory = factory
        self._unread: list[Peer] = []
        self._done = Deferred[None]()
        self._until = math.inf

    def begin(self, seconds: float) -> Deferred[None]:
        """Read what was already sent, deliver it, and end all connections.

        Fires when that is done; whoever has not taken everything after ``seconds`` is cut.
        """
        self.begun = True
        for peer in self._factory.peers:
            peer.stop_reading()
        self._unread = list(self._factory.peers)
        self._done = done = Deferred[None]()
        # It may have been cut already, while the relay was closing its ports.
        self._until = min(self._until, self._factory.clock.seconds() + seconds)
        self._look()
        return done

    def cut(self) -> None:
        """End all connections now if they are being drained, or as soon as they would be."""
        self._until = self._factory.clock.seconds()

    def _look(self) -> None:
        """End the connections once all is delivered; fire when all are gone, or at the limit."""
        factory = self._factory
        over = factory.clock.seconds() >= self._until
        self._read_rests()
        if over and self._unread:
            self._log.warn(
                "leaving without what {peers} peers have sent last", peers=len(self._unread)
            )
        if over or not (self._unread or factory.awaiting_sync or self._somebody_behind()):
            self._part()
        if over or not factory.connections:
            self._done.callback(None)
        else:
            factory.clock.callLater(DRAIN_INTERVAL, self._look)

    def _read_rests(self) -> None:
        """Read what publishers have sent, as far as the consumers keep up with it."""
        while self._unread and self._factory.pace.admits(self._unread[-1]):
            peer = self._unread.pop()
            if self._factory.is_connected(peer):
                self._factory.guard(peer, peer.read_rest)

    def _somebody_behind(self) -> bool:
        return not all(_is_done(peer) for peer in self._factory.peers)

    def _part(self) -> None:
        """End all connections; those that have not got all are named."""
        cut = {peer for peer in self._factory.peers if not _is_done(peer)}
        if cut:
            self._log.warn(
                "leaving without having delivered everything: {peers} peers are cut", peers=len(cut)
            )
        for peer in self._factory.peers:
            peer.part(Ending.CUT if peer in cut else Ending.SHUTDOWN)


def _is_done(peer: Peer) -> bool:
    """Tell whether nothing more can be delivered to a peer while the relay leaves."""
    # One that is behind may be at the head: its transport still keeps what it was given.
    if peer.state is State.LIVE and peer.cursor.at_head:
        return True
    # Who publishes and has never read will not begin to now, unless it waits for an answer.
    return peer.delivery.reads is False and (peer.patient or peer.state is State.MUTED)
