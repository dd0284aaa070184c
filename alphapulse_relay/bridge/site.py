"""The bridge's side port: what people and programs that watch it may ask.

It only tells, and has no secrets: names, figures and what is in the way, but no messages.
"""

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import WrappingFactory
from twisted.web.http import Request as HTTPRequest
from twisted.web.server import Request, Site

from alphapulse_relay import __version__
from alphapulse_relay.bridge.account import Way
from alphapulse_relay.bridge.metrics import BridgeCollector
from alphapulse_relay.web.pages import HEADERS, PLAIN, Directory, Page
from alphapulse_relay.web.probes import add_probes

if TYPE_CHECKING:
    from alphapulse_relay.bridge.bridge import Bridge

CONNECTIONS_MAX = 50
"""At a time: more than watch a bridge, and few beside the files that a process may have open."""
IDLE_SECONDS = 60
"""After which a connection on which nothing comes is closed: a scrape comes each 15 s or so."""

PLACES = b"signal relay bridge: /healthz /readyz /metrics /api/status\n"


class QuietSite(Site):
    """Does not log each request: a scrape every few seconds is no event."""

    noisy = False

    def getResourceFor(self, request: Request) -> Any:
        """Return what answers a request."""
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        return super().getResourceFor(request)

    def log(self, request: HTTPRequest) -> None:
        """Log nothing."""


class Connections(WrappingFactory[Any]):
    """Lets no more connections in than there is room for."""

    noisy = False

    def logPrefix(self) -> str:
        """Return what the log calls the port: by what it serves."""
        return str(self.wrappedFactory.logPrefix())

    def buildProtocol(self, addr: Any) -> Protocol | None:
        """Return what serves a new connection; None closes it."""
        return super().buildProtocol(addr) if len(self.protocols) < CONNECTIONS_MAX else None


def build_site(bridge: "Bridge", reactor: IReactorTime) -> Connections:
    """Return what serves the side port's connections."""
    root = Directory()
    root.putChild(b"", Page(lambda _: PLACES, PLAIN))
    add_probes(root, lambda: bridge.trouble, BridgeCollector(bridge), reactor)
    api = Directory()
    status = Status(bridge)
    api.putChild(
        b"status", Page(lambda _: json.dumps(status.describe()).encode(), "application/json")
    )
    root.putChild(b"api", api)
    return Connections(QuietSite(root, timeout=IDLE_SECONDS, reactor=reactor))


class Status:
    """The bridge's state as a JSON document; keys are only ever added.

    The bridge counts as started when this is made. ``clock`` returns seconds since 1970.
    """

    def __init__(self, bridge: "Bridge", clock: Callable[[], float] = time.time) -> None:
        self._bridge = bridge
        self._clock = clock
        self._started_at = clock()

    def describe(self) -> dict[str, Any]:
        """Return the document: times in seconds, sizes in bytes."""
        bridge, now = self._bridge, self._clock()
        account, settings = bridge.account, bridge.settings
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "uptime_seconds": now - self._started_at,
            "name": settings.name,
            "stream": settings.stream,
            "ready": bridge.trouble is None,
            "trouble": bridge.trouble,
            "relay": {"trouble": bridge.link.trouble, "connections": bridge.link.connections},
            "nats": {"trouble": bridge.server.trouble, "reconnects": bridge.server.reconnects},
            "publish_seconds": account.round_trip,
            "outward": _way(account.outward, now),
            "inward": _way(account.inward, now),
            "lost": {str(reason): number for reason, number in account.lost.items()},
            "own": account.own,
            "filtered": account.filtered,
        }


def _way(way: Way, now: float) -> dict[str, Any]:
    return {
        "trouble": way.trouble,
        "messages": way.messages,
        "bytes": way.bytes,
        "stored_bytes": way.stored_bytes,
        "runs": way.runs,
        "repeated": way.repeated,
        "waiting_messages": way.waiting_messages,
        "waiting_bytes": way.waiting_bytes,
        "lag_seconds": way.waited(now),
        "crossing_seconds": way.crossing_seconds,
    }
