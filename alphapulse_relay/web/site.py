"""The pages of the side port, and the Site that serves them."""

import json
from collections.abc import Callable
from typing import Any

from twisted.web.http import NOT_ALLOWED, NOT_FOUND, SERVICE_UNAVAILABLE, Request
from twisted.web.pages import errorPage
from twisted.web.resource import Resource
from twisted.web.server import Request as ServerRequest
from twisted.web.server import Site

from alphapulse_relay import __version__
from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.web.metrics import Exposition
from alphapulse_relay.web.status import Status

REQUEST_TIMEOUT = 30
"""Seconds of silence after which a connection to the side port is closed."""
INDEX = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Signal Relay</title>
<h1>Signal Relay {__version__}</h1>
<ul>
<li><a href="/metrics">/metrics</a>: for Prometheus
<li><a href="/healthz">/healthz</a>: 200 while the process answers
<li><a href="/readyz">/readyz</a>: 200 while it accepts connections and journals, else 503
<li><a href="/api/status">/api/status</a>: counters, peers and the last disconnects, as JSON
</ul>
"""


class Directory(Resource):
    """Has children, and is nothing else."""

    def render(self, request: ServerRequest) -> Any:
        """Answer that nothing is here."""
        return errorPage(NOT_FOUND, "Not found", "There is no such page.").render(request)

    def getChild(self, path: bytes, request: ServerRequest) -> Resource:  # noqa: ARG002
        """Return what answers so for any other name."""
        return Directory()


class Page(Resource):
    """A leaf that answers GET and HEAD with what ``render`` returns."""

    isLeaf = True

    def __init__(self, render: Callable[[ServerRequest], bytes], content_type: str) -> None:
        super().__init__()
        self._render = render
        self._content_type = content_type

    def render(self, request: ServerRequest) -> Any:
        """Refuse all but GET and HEAD."""
        if request.method in {b"GET", b"HEAD"}:
            return super().render(request)
        request.setHeader("allow", "GET, HEAD")
        return errorPage(NOT_ALLOWED, "Not allowed", "A page can only be read.").render(request)

    def render_GET(self, request: ServerRequest) -> bytes:
        """Answer with the page as it is now."""
        request.setHeader("content-type", self._content_type)
        request.setHeader("cache-control", "no-store")
        request.setHeader("x-content-type-options", "nosniff")
        return self._render(request)


class QuietSite(Site):
    """A Site that does not log each request: a scrape every few seconds is no event."""

    noisy = False

    def log(self, request: Request) -> None:
        """Log nothing."""


def build_site(hub: SignalRelayFactory, unready: Callable[[], str | None]) -> Site:
    """Return the side port's Site for a hub.

    ``unready`` tells why the relay does not accept, or does not journal; None if it does.
    """

    def ready() -> bool:
        return unready() is None

    exposition = Exposition(hub, ready, hub.clock)
    status = Status(hub)

    def metrics(request: ServerRequest) -> bytes:
        # Not by getHeader: that fails for bytes that are not UTF-8.
        accepted = request.requestHeaders.getRawHeaders(b"accept", [b""])[-1]
        content_type, body = exposition.render(accepted.decode("latin-1"))
        request.setHeader("content-type", content_type)
        return body

    def readiness(request: ServerRequest) -> bytes:
        reason = unready()
        if reason is None:
            return b"ready\n"
        request.setResponseCode(SERVICE_UNAVAILABLE)
        return f"not ready: {reason}\n".encode()

    def status_document(_: ServerRequest) -> bytes:
        return json.dumps(status.describe(ready=ready())).encode()

    root, api = Directory(), Directory()
    plain = "text/plain; charset=utf-8"
    root.putChild(b"", Page(lambda _: INDEX.encode(), "text/html; charset=utf-8"))
    root.putChild(b"metrics", Page(metrics, plain))
    root.putChild(b"healthz", Page(lambda _: b"alive\n", plain))
    root.putChild(b"readyz", Page(readiness, plain))
    root.putChild(b"api", api)
    api.putChild(b"status", Page(status_document, "application/json"))
    return QuietSite(root, timeout=REQUEST_TIMEOUT)
