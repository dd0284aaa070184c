"""What other programs ask a process: whether it lives, whether it is ready, and its figures.

Knows neither relay nor bridge: both have these pages.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import SERVICE_UNAVAILABLE
from twisted.web.server import Request

from alphapulse_relay.web.pages import PLAIN, Directory, Page

CACHE_SECONDS = 1.0
"""How long a rendering is served again: scraping in a loop must not slow the process."""
OPENMETRICS = "application/openmetrics-text"


def add_probes(
    root: Directory, unready: Callable[[], str | None], collector: Collector, clock: IReactorTime
) -> None:
    """Add /healthz, /readyz and /metrics.

    ``unready`` tells why the process does not do what it is for; None if it does.
    """
    exposition = Exposition(collector, clock)

    def ready(request: Request) -> bytes:
        reason = unready()
        if reason is None:
            return b"ready\n"
        request.setResponseCode(SERVICE_UNAVAILABLE)
        return f"not ready: {reason}\n".encode()

    root.putChild(b"healthz", Page(lambda _: b"alive\n", PLAIN))
    root.putChild(b"readyz", Page(ready, PLAIN))
    root.putChild(b"metrics", Page(exposition.answer, PLAIN))


class Exposition:
    """The rendered metrics of a collector, and of the process, kept for a second."""

    def __init__(self, collector: Collector, clock: IReactorTime) -> None:
        self._clock = clock
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        self._kept: dict[str, tuple[float, bytes]] = {}

    def answer(self, request: Request) -> bytes:
        """Return the metrics in the format that a request asks for."""
        # Not by getHeader: that fails for bytes that are not UTF-8.
        accepted = request.requestHeaders.getRawHeaders(b"accept", [b""])[-1]
        content_type, body = self.render(accepted.decode("latin-1"))
        request.setHeader("content-type", content_type)
        return body

    def render(self, accept: str) -> tuple[str, bytes]:
        """Return content type and body in the format that an Accept header asks for."""
        # No more of the header is looked at: each version that it may name would be kept apart.
        encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
        now = self._clock.seconds()
        rendered_at, body = self._kept.get(content_type, (0.0, b""))
        if not body or not 0 <= now - rendered_at < CACHE_SECONDS:
            body = encode(self._registry)
            self._kept[content_type] = now, body
        return content_type, body
