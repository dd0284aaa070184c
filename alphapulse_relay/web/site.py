"""Which address of the side port leads to what, and the Site that serves them."""

import json
import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

from twisted.web.http import BAD_REQUEST, NOT_FOUND, UNAUTHORIZED
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from alphapulse_relay.hub.factory import SignalRelayFactory
from alphapulse_relay.hub.farewell import identify_peer
from alphapulse_relay.protocol_v2.signals import SignalTable
from alphapulse_relay.web.access import Access
from alphapulse_relay.web.channel import Channel
from alphapulse_relay.web.connections import Connections
from alphapulse_relay.web.layouts import describe_layouts
from alphapulse_relay.web.metrics import HubCollector
from alphapulse_relay.web.pages import (
    CONTENT_TYPES,
    HEADERS,
    PLAIN,
    Directory,
    Notice,
    Page,
    StaticFile,
)
from alphapulse_relay.web.probes import add_probes
from alphapulse_relay.web.rates import Rates
from alphapulse_relay.web.signals import build_signals
from alphapulse_relay.web.status import SettingsRead, Status

PAGE = Path(__file__).parent / "page"
"""The files of the live page."""
PLOTLY = "plotly.min.js"
JSON = "application/json"
KEPT_FROM = 0.002
"""Seconds of a processor: what is made with less is made anew each time."""
KEPT_SHARE = 4
"""For how many times as long as a processor made it is a document kept: so that who asks for it
again and again takes no more than a fifth of the relay's time."""


class Kept:
    """A document that is not made again at once; ``make`` makes it."""

    def __init__(
        self,
        make: Callable[[], bytes],
        clock: Callable[[], float] = perf_counter,
        used: Callable[[], float] = thread_time,
    ) -> None:
        self._make = make
        self._clock = clock
        self._used = used
        self._until = -math.inf
        self._document = b""

    def get(self) -> bytes:
        """Return the document as it is now, or was a moment ago."""
        if self._clock() >= self._until:
            before = self._used()
            self._document = self._make()
            taken = self._used() - before
            self._until = self._clock() + (KEPT_SHARE * taken if taken > KEPT_FROM else 0)
        return self._document


class QuietSite(Site):
    """Answers who may ask. Does not log each request: a scrape every few seconds is no event."""

    noisy = False

    def __init__(self, root: IResource, hub: SignalRelayFactory, access: Access) -> None:
        super().__init__(root, reactor=hub.clock)
        self.timeOut = None  # the channel has its own
        self.protocol = partial(Channel, hub)  # type: ignore[assignment]
        self._hub = hub
        self._access = access

    def getResourceFor(self, request: Request) -> Any:
        """Return what answers a request, or says why it must not be answered."""
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        denial = self._access.denial(request)
        if denial is None:
            return super().getResourceFor(request)
        channel: Any = request.channel
        self._hub.report.refused(identify_peer(self._hub, channel.transport), denial.reason)
        if denial.status == UNAUTHORIZED:
            request.setHeader("www-authenticate", "Bearer")
        return Notice(denial.status, denial.text)

    def log(self, request: HTTPRequest) -> None:
        """Log nothing."""


def build_site(
    hub: SignalRelayFactory,
    unready: Callable[[], str | None],
    access: Access,
    rates: Rates,
    settings: SettingsRead,
) -> Connections:
    """Return what serves the side port's connections.

    ``unready`` tells why the relay does not accept, or does not journal; None if it does.
    """
    root = Directory()
    root.putChild(b"", StaticFile(PAGE / "index.html"))
    root.putChild(b"page", page_files())
    add_probes(root, unready, HubCollector(hub, lambda: unready() is None), hub.clock)
    root.putChild(b"api", _api(Status(hub, settings), unready, rates))
    root.putChild(b"signals", build_signals(hub, access))
    return Connections(QuietSite(root, hub, access), hub)


def page_files() -> Directory:
    """Return the directory of the live page's files, and of the library that it plots with."""
    directory = Directory()
    for path in PAGE.glob("*"):
        if path.suffix in CONTENT_TYPES:
            directory.putChild(path.name.encode(), StaticFile(path))
    directory.putChild(PLOTLY.encode(), plotly())
    return directory


def plotly() -> IResource:
    """Return the plots' library out of the installed package, which is not loaded for that."""
    spec = find_spec("plotly")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, "package_data", PLOTLY)
        if path.is_file():
            return StaticFile(path)
    return Notice(
        NOT_FOUND, "plots need another package: pip install 'alphapulse-signal-relay[page]'"
    )


def _api(status: Status, unready: Callable[[], str | None], rates: Rates) -> Directory:
    layouts = json.dumps(describe_layouts(SignalTable.builtin())).encode()

    def status_document() -> bytes:
        return json.dumps(status.describe(ready=unready() is None)).encode()

    kept = Kept(status_document)
    api = Directory()
    api.putChild(b"status", Page(lambda _: kept.get(), JSON))
    api.putChild(b"rates", Page(partial(_rates, rates), JSON))
    api.putChild(b"layouts", Page(lambda _: layouts, JSON))
    return api


def _rates(rates: Rates, request: Request) -> bytes:
    """Answer with the samples since the time that is asked for."""
    since = (request.args or {}).get(b"since", [b""])[-1]
    try:
        moment = float(since) if since else None
    except ValueError:
        moment = math.nan
    if moment is not None and not math.isfinite(moment):
        request.setResponseCode(BAD_REQUEST)
        request.setHeader("content-type", PLAIN)
        return b"since is not a time in seconds since 1970\n"
    return json.dumps(rates.describe(moment)).encode()
