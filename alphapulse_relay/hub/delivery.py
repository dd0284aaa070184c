"""The sending side of a peer: what its cursor has next goes to its outlet, as far as that takes it.

Knows whether the peer takes bytes, and what to do while it does not. What is in the log, and which
part of it the peer wants, the cursor knows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from alphapulse_relay.hub.outlet import UNDER_WAY
from alphapulse_relay.hub.peer import Ending, Miss, State

if TYPE_CHECKING:
    from alphapulse_relay.hub.protocol import SignalRelayProtocol

SENDS_PER_TURN = 16
"""Sends to one peer before the others get their turn."""
LOOKS_PER_TURN = 2
"""Stretches of history that are looked through for one peer in vain before that."""


@implementer(IPushProducer)
class Delivery:
    """One peer's, by an outlet (:class:`~alphapulse_relay.hub.outlet.IOutlet`)."""

    _log = Logger()

    def __init__(self, peer: SignalRelayProtocol, outlet: Any) -> None:
        self.peer = peer
        self._factory = peer.factory
        self._outlet = outlet
        # Of the socket, if it may be sent to directly.
        self._descriptor: int | None = outlet.descriptor()
        self._took_at = -math.inf
        self._queued = 0  # bytes that its socket held when last looked at
        self._seen_reading = False
        self._reads = False  # has taken bytes after its socket was full
        self._passed = False  # the log goes on without it, as it does not read
        self._fetching = False  # what it is to be sent next comes from the disk

    # Whether the peer takes it

    @property
    def reads(self) -> bool | None:
        """Whether it is known to read: its socket holds less than it was given.

        None if that cannot be told yet of one that has not published; of a publisher it is taken
        for a no.
        """
        if self.peer.state is State.MUTED:
            return False
        given = self.peer.cursor.bytes_out
        self._seen_reading = self._seen_reading or self._outlet.queued() < given
        return self._seen_reading or (False if self._publishes() else None)

    @property
    def queued(self) -> int | None:
        """Bytes that it was given and has not taken; None where only a bound to them is known."""
        queued = int(self._outlet.queued())
        return queued if queued < UNDER_WAY else None

    def has_taken(self, since: float) -> bool:
        """Whether it has taken bytes after that time, in seconds of the factory's clock.

        A socket that was full says only after a good while that there is room again: so a slow
        reader is also told by what its socket still holds.
        """
        if self.peer.cursor.riding:
            return True  # all that was ever appended
        if self.peer.state is State.BEHIND:
            queued = self._outlet.queued()
            if queued < self._queued:
                self._took_at = self._factory.clock.seconds()
            self._queued = queued
        return self._took_at > since

    def _publishes(self) -> bool:
        """Whether anything came from it, if only as far as its socket."""
        return bool(self.peer.messages_in or self.peer.torn or self._outlet.pending())

    # Sending

    def deliver(self) -> None:
        """Send from the cursor on, until at the head or the peer takes no more."""
        peer, cursor = self.peer, self.peer.cursor
        if self._fetching or peer.left:
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
                peer.end(Ending.FINISHED)
                return
            elif cursor.lost:
                peer.end(Ending.DAMAGED)
                return
            elif cursor.away and not cursor.at_head:
                self._rejoin()
            if peer.state is not State.LIVE:
                return
            if cursor.at_head:
                self.ride()
                return
            looked += not data
            if looked == LOOKS_PER_TURN:
                break
        self._factory.turns.add(peer)

    def _send(self, data: memoryview) -> None:
        sent = self._outlet.send(data)
        if sent:
            self.peer.cursor.advance(sent)
            self._took_at = self._factory.clock.seconds()

    def _fetch(self, start: int, stop: int) -> None:
        self._fetching = True
        self.peer.log.fetch(start, stop, self._fetched)

    def _fetched(self) -> None:
        self._fetching = False
        if self.peer.state is State.LIVE and not self.peer.left:
            self._factory.go_on(self.peer)

    def pauseProducing(self) -> None:
        """Take note that the peer's socket is full."""
        if self.peer.state is State.LIVE:
            self.peer.state = State.BEHIND
            self._queued = self._outlet.queued()

    def resumeProducing(self) -> None:
        """Go on: the peer has taken bytes and there is room for more."""
        if self._outlet.room_means_read(self.peer.cursor.bytes_out):
            self._reads = self._seen_reading = True
        self.peer.state = State.LIVE
        self._factory.go_on(self.peer)

    # Riding

    @property
    def rides(self) -> bool:
        """Whether compiled code sends to it whenever it is at the head."""
        return (
            self.peer.takes_all
            and self._descriptor is not None
            and self._factory.fan_out is not None
        )

    def ride(self) -> None:
        """Let compiled code send to it from now on, if it may; it is at the head."""
        if self.rides and self.peer.seat is None:
            self.peer.cursor.ride()
            self._factory.fan_out.add(self.peer, self._descriptor)

    def alight(self) -> None:
        """Go on by the cursor, if it rides."""
        if self.peer.seat is not None:
            self._factory.fan_out.remove(self.peer)
            self.peer.cursor.alight(self.peer.log.head)

    def fell_behind(self, position: int, *, gone: bool) -> None:
        """Go on by its cursor: of what was appended it took what lies before ``position``.

        ``gone`` if it will never read again.
        """
        self.peer.cursor.alight(position)
        self._took_at = self._factory.clock.seconds()
        self._outlet.took_less(gone=gone)

    # Where it takes nothing

    def stopProducing(self) -> None:
        """Send no more."""
        self.peer.state = State.MUTED
        self.alight()
        self.peer.cursor.leave()
        self.peer.cursor.rest = b""

    def reader_gone(self) -> None:
        """Send no more: the peer has shut its reading side, though it may still publish."""
        self._passed = True
        self.stopProducing()
        self._log.warn("peer muted: {peer} has shut its reading side", **self.peer.identity.fields)

    def overtaken(self, stop: int) -> None:
        """Move on to ``stop``, up to where the log gives up, if the peer can be told; or close.

        A publisher that never reads lives on, muted.
        """
        peer = self.peer
        if peer.cursor.move_on(stop):
            return
        if self._publishes() and not self._reads:
            peer.state = State.MUTED
            self._passed = True
            peer.cursor.leave()
            self._log.warn("peer muted: {peer} publishes, does not read", **peer.identity.fields)
        else:
            missed = peer.cursor.missing
            self._factory.counters.missed[Miss.OVERTAKEN] += missed
            self._log.warn(
                "peer overtaken: {peer} did not read, {missed} messages were not sent to it",
                missed=missed,
                **peer.identity.fields,
            )
            peer.end(Ending.OVERTAKEN)

    def _rejoin(self) -> None:
        missed = self.count_passed()
        self.peer.cursor.rejoin()
        self._log.info(
            "peer reads again: {peer}, {missed} messages were not sent to it",
            missed=missed,
            **self.peer.identity.fields,
        )

    def count_passed(self) -> int:
        """Count, and return, what the log went on with while the peer did not read."""
        missed = self.peer.cursor.missing if self._passed else 0
        self._passed = False
        self._factory.counters.missed[Miss.MUTED] += missed
        return missed
