"""The example of a page of one's own, as its reader is told to run it."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.traffic import arbitrage, identity
from tests.support import Relay

EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":  # which browsers ask for by themselves
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture
def origin() -> Iterator[str]:
    """Where the example's files are served, which is not the relay."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=EXAMPLE)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def test_it_shows_what_flows(origin: str, page: Page) -> None:
    with Relay("--web-origin", origin) as relay:
        publisher, witness = relay.connect(), relay.connect()
        publisher.send(first := arbitrage(1))
        witness.receive(len(first))
        page.goto(f"{origin}/?relay=127.0.0.1:{relay.port}")
        items = page.locator("#signals li")
        expect(items).to_have_text(["source 20: 35 bps, 151.50000000 US dollars"])
        publisher.send(identity(1) + arbitrage(2, 22, spread_bps=40, net_profit_usd_q8="-1"))
        expect(items.first).to_have_text("source 22: 40 bps, -1.00000000 US dollars")
        expect(page.locator("#state")).to_have_text("live")
        relay.stop()
        expect(page.locator("#state")).to_have_text("gone: shutdown")
        page.close()
