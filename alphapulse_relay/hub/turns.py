"""Turns: who has had one and wants more is served again when the others had theirs.

Knows how long that may take in one turn of the reactor; what it is to serve a peer it does not.
"""

from collections.abc import Callable
from time import perf_counter

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from alphapulse_relay.hub.peer import Peer, State

TURN_SECONDS = 0.005
"""How long those are served in one turn that have had theirs: who looks through history must not
hold up the others."""


class Turns:
    """The peers that wait for another turn, in which each is given to ``serve``."""

    def __init__(self, clock: IReactorTime, serve: Callable[[Peer], None]) -> None:
        self._clock = clock
        self._serve = serve
        self._waiting: dict[Peer, None] = {}
        self._next: IDelayedCall | None = None

    def __contains__(self, peer: Peer) -> bool:
        return peer in self._waiting

    def add(self, peer: Peer) -> None:
        """Serve a peer when the others had their turn."""
        self._waiting[peer] = None
        self._plan()

    def remove(self, peer: Peer) -> None:
        """Forget a peer that leaves."""
        self._waiting.pop(peer, None)
        if not self._waiting and self._next is not None:
            self._next.cancel()
            self._next = None

    def _plan(self) -> None:
        if self._waiting and self._next is None:
            self._next = self._clock.callLater(0, self._serve_waiting)

    def _serve_waiting(self) -> None:
        """Serve those that wait, as many as there is time for in one turn."""
        self._next = None
        until = perf_counter() + TURN_SECONDS
        for peer in tuple(self._waiting):
            del self._waiting[peer]
            if peer.state is State.LIVE:
                self._serve(peer)
            if perf_counter() >= until:
                break
        self._plan()
