"""Pace: publishers are read as fast as the consumers take that are about as fast as the fastest.

And no faster than the log has room. Knows how far behind peers are; what to deliver, and to whom,
it does not.
"""

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from alphapulse_relay.hub.log import Log
from alphapulse_relay.hub.peer import Peer
from alphapulse_relay.hub.speed import Speed
from alphapulse_relay.protocol_v2.control import BRIDGE_NAME

HOLD_PART = 2
"""A publisher is held when a consumer that is not slow is more than window / 2 behind."""
RELEASE_PART = 4
"""It is read again when all of these are within window / 4."""
CHECKS_PER_WINDOW = 16
"""How often the peers are looked at while a window's worth of bytes is appended."""
CHECK_INTERVAL = 0.05
"""Seconds between looks at the clock while a publisher is held: consumers may stop for good."""


class Pace:
    """Holds publishers back while no consumer keeps up, for all ``peers``.

    A consumer is a peer that has taken bytes within the last ``patience`` seconds and is not slow.
    Those count that are known to read and want everything; where there is none, the fastest of the
    slow ones, or of those that may read, have a filter, or are a bridge: a network is not to slow
    down who is here. Who is still in the past does not count.
    A publisher that steps over its own messages is no fast consumer: for its own pace only the
    others count, and until it is known to read it counts for nobody's.
    """

    def __init__(
        self, clock: IReactorTime, log: Log, patience: float, peers: Callable[[], Iterable[Peer]]
    ) -> None:
        self._clock = clock
        self._log = log
        self.patience = patience
        self._peers = peers
        self._speed = Speed(log)
        self._awaited: frozenset[int] = frozenset()  # who is furthest behind of those that count
        self._held: dict[Peer, None] = {}
        self._held_since = 0.0
        self._held_before = 0.0
        self.next_look = 0
        """Up to this position of the log nobody needs to be looked at."""
        self._tick: IDelayedCall | None = None

    @property
    def held_seconds(self) -> float:
        """For how long, all in all, at least one publisher was held."""
        now = self._clock.seconds() - self._held_since if self._held else 0.0
        return self._held_before + now

    @property
    def held(self) -> int:
        """How many publishers are held now."""
        return len(self._held)

    def appended(self, publisher: Peer) -> None:
        """Take note that the publisher has appended to the log; hold it if that is too much."""
        if self._log.head < self.next_look:
            return
        if self.admits(publisher):
            # Whoever else publishes now is looked at as well, until one may go on.
            self.next_look = self._log.head + self._log.window // CHECKS_PER_WINDOW
        else:
            self._hold(publisher)

    def admits(self, publisher: Peer) -> bool:
        """Whether the consumers keep up with what was appended, or there is none."""
        if self._log.short:
            return False
        lag = self._lags()(publisher)
        return lag is None or lag <= self._log.window // HOLD_PART

    def progressed(self, consumer: Peer) -> None:
        """Take note that a peer has taken bytes: the publishers may have waited for that."""
        if not self._held or consumer.identity.number not in self._awaited:
            return
        near = self._log.window // RELEASE_PART
        if not consumer.cursor.away and self._log.lag(consumer.cursor.position) <= near:
            self.look()

    def look(self, *, measure: bool = False) -> None:
        """Release whoever may go on; ``measure`` first who is slow."""
        if self._log.short:
            return
        lag_for, near = self._lags(measure=measure), self._log.window // RELEASE_PART
        lags = [(publisher, lag_for(publisher)) for publisher in self._held]
        self._release(publisher for publisher, lag in lags if lag is None or lag <= near)

    def forget(self, peer: Peer) -> None:
        """Take note that a peer is gone."""
        if peer in self._held:
            self._unhold(peer)
        if self._held:
            self.look()

    def _release(self, publishers: Iterable[Peer]) -> None:
        for publisher in list(publishers):
            self._unhold(publisher)
            publisher.release()

    def _unhold(self, publisher: Peer) -> None:
        del self._held[publisher]
        if not self._held:
            self._held_before += self._clock.seconds() - self._held_since
            if self._tick is not None:
                self._tick.cancel()
                self._tick = None

    def _hold(self, publisher: Peer) -> None:
        if not self._held:
            self._held_since = self._clock.seconds()
            self._tick = self._clock.callLater(CHECK_INTERVAL, self._on_tick)
        self._held[publisher] = None
        publisher.hold()

    def _on_tick(self) -> None:
        self._tick = self._clock.callLater(CHECK_INTERVAL, self._on_tick)
        # Nothing is appended meanwhile by which it would be found out who is slow.
        self.look(measure=True)

    def _lags(self, *, measure: bool = False) -> Callable[[Peer], int | None]:
        """Return a function that tells the lag that counts for a publisher, None if none does."""
        since = self._clock.seconds() - self.patience
        consumers = [
            peer
            for peer in self._peers()
            if not (peer.cursor.away or peer.cursor.replaying) and peer.delivery.has_taken(since)
        ]
        known = [peer for peer in consumers if peer.delivery.reads and _may_count(peer)]
        self._speed.measure(known, now=measure)
        slow = self._speed.slow
        waited_for = self._ranked(peer for peer in known if peer.identity.number not in slow)
        others = self._ranked(peer for peer in known if peer.identity.number in slow)
        maybe = self._ranked(
            peer
            for peer in consumers
            if peer.delivery.reads is None or (peer.delivery.reads and not _may_count(peer))
        )
        # Two of each: for a publisher that is one of them the next counts.
        ranked = waited_for[-1:-3:-1] + others[:2] + maybe[:2]
        self._awaited = frozenset(number for _, number in ranked)

        def lag_for(publisher: Peer) -> int | None:
            own = publisher.identity.number
            return next((lag for lag, number in ranked if number != own), None)

        return lag_for

    def _ranked(self, peers: Iterable[Peer]) -> list[tuple[int, int]]:
        """Return lags and numbers, the least lag first."""
        return sorted((self._log.lag(peer.cursor.position), peer.identity.number) for peer in peers)


def _may_count(peer: Peer) -> bool:
    """Tell whether others may wait for a peer: not for one with a filter, or a bridge."""
    return peer.cursor.whole and peer.name != BRIDGE_NAME
