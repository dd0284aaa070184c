"""The live page in a real Chromium, on a real relay with real traffic."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from alphapulse_relay.client.blocking import Client
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, build_message
from tests.browser.conftest import SCREENSHOTS, Complaints
from tests.browser.traffic import arbitrage, flood, identity
from tests.soak.page import CLICK_MAX, watch
from tests.support import PATIENCE, Relay

PROGRAM = Path("/proc/self/comm").read_text().strip()
"""What the kernel calls this process: who publishes here."""
RATE = 50_000
"""Messages a second that the page has to bear."""


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as relay:
        yield relay


@pytest.fixture
def live(relay: Relay, page: Page) -> Iterator[Page]:
    """The page, once it is live."""
    page.goto(f"http://127.0.0.1:{relay.port}/")
    expect(page.locator("#state")).to_have_text(re.compile("live"))
    yield page
    page.close()  # before the relay, which it would miss


def rows(page: Page) -> Locator:
    return page.locator("#signals tbody tr.message")


def picture(page: Page, name: str) -> None:
    page.screenshot(path=SCREENSHOTS / f"page-{name}.png")


class TestSignals:
    def test_the_table_fills_with_decoded_fields(self, live: Page, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        publisher.send(arbitrage(1) + identity(1) + arbitrage(2, net_profit_usd_q8="-3.25"))
        expect(rows(live)).to_have_count(3)
        first, second, third = (rows(live).nth(place) for place in range(3))
        for cell, text in [
            ("type", "ArbitrageSignal"),
            ("source", "20"),
            ("sequence", "2"),
            ("spread", "35"),
            ("profit", "180.25"),
            ("net", "\N{MINUS SIGN}3.25"),
            ("capital", "25,000.00"),
            ("venues", "200 \N{RIGHTWARDS ARROW} 300"),
        ]:
            expect(first.locator(f"td.{cell}")).to_have_text(text)
        expect(first.locator("td.expires")).to_have_text(re.compile(r"^5\d s$|^1 min"))
        expect(second.locator("td.type")).to_have_text("SignalIdentity")
        expect(third.locator("td.sequence")).to_have_text("1")
        picture(live, "signals")

    def test_expiry_counts_down_and_age_grows(self, live: Page, relay: Relay) -> None:
        relay.connect(joined=False).send(arbitrage(1))
        expires, age = rows(live).locator("td.expires"), rows(live).locator("td.age")
        before, young = expires.inner_text(), age.inner_text()
        expect(expires).not_to_have_text(before)
        expect(age).not_to_have_text(young)

    def test_filters_by_type_source_and_text(self, live: Page, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        publisher.send(arbitrage(1) + identity(1))
        expect(rows(live)).to_have_count(2)
        live.locator("#filter-type").click()
        live.locator("#menu-type").get_by_text("SignalIdentity").click()
        live.keyboard.press("Escape")
        relay.wait_for_log("peer connected: .* [(]websocket")
        relay.wait_until(lambda status: {"types": [22], "sources": []} in filters(status))
        publisher.send(arbitrage(2) + identity(2))
        expect(rows(live).locator("td.type").first).to_have_text("SignalIdentity")
        expect(rows(live).filter(has_text="ArbitrageSignal")).to_have_count(0)
        live.locator("#filter-clear").click()
        relay.wait_until(lambda status: None in filters(status))
        publisher.send(b"".join(arbitrage(number, 20 + number % 3) for number in range(3, 9)))
        expect(rows(live).filter(has_text="ArbitrageSignal")).not_to_have_count(0)
        live.locator("#filter-text").fill("1000007")
        expect(rows(live)).to_have_count(1)
        expect(rows(live).locator("td.sequence")).to_have_text("7")

    def test_pause_holds_still_and_goes_on(self, live: Page, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        publisher.send(arbitrage(1))
        expect(rows(live)).to_have_count(1)
        live.keyboard.press("Space")
        expect(live.locator("#pause")).to_have_attribute("aria-pressed", "true")
        publisher.send(arbitrage(2))
        expect(live.locator("#feed-rate")).to_contain_text("1 new")
        expect(rows(live)).to_have_count(1)
        live.locator("#pause").click()
        expect(rows(live)).to_have_count(2)

    def test_a_row_opens_to_all_fields_and_bytes(self, live: Page, relay: Relay) -> None:
        sent = arbitrage(9)
        relay.connect(joined=False).send(sent)
        rows(live).first.click()
        details = live.locator("#details")
        expect(details).to_be_visible()
        for text in ("slippage_tolerance_bps", "151.50", "1000009", sent[:4].hex(" ")):
            expect(details).to_contain_text(text)
        picture(live, "details")
        live.keyboard.press("Escape")
        expect(details).to_be_hidden()

    def test_by_keyboard_alone(self, live: Page, relay: Relay) -> None:
        relay.connect(joined=False).send(arbitrage(1) + arbitrage(2) + arbitrage(3))
        expect(rows(live)).to_have_count(3)
        live.keyboard.press("4")
        for key in ("ArrowDown", "ArrowDown", "Enter"):
            live.keyboard.press(key)
        expect(live.locator("#details")).to_contain_text("1000002")
        live.keyboard.press("Escape")
        live.keyboard.press("/")
        live.keyboard.type("1000003")
        expect(live.locator("#filter-text")).to_have_value("1000003")
        live.keyboard.press("Escape")
        expect(live.locator("#filter-text")).to_have_value("")
        expect(live.locator("#filter-text")).to_be_focused()
        live.keyboard.press("Escape")
        live.keyboard.press("?")
        expect(live.locator("#help")).to_be_visible()

    def test_a_time_of_another_day_has_its_date(self, live: Page, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        for seconds in (time.time() - 2 * 86400, 1e9, time.time()):
            payload = arbitrage(1)[HEADER_SIZE:]
            timestamp = int(seconds * 1e9)
            publisher.send(build_message(payload, source=20, sequence=1, timestamp=timestamp))
        times = rows(live).locator("td.time")
        expect(times.nth(0)).to_have_text(re.compile(r"^\d\d:\d\d:\d\d[.]\d{3}$"))
        expect(times.nth(1)).to_have_text("9 Sept 2001")
        expect(times.nth(2)).to_have_text(re.compile(r"^\d+ [A-Z][a-z]+( 20\d\d| \d\d:\d\d:\d\d)$"))

    def test_it_says_when_it_shows_a_sample(self, live: Page, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        with Feeder(lambda number: publisher.send(flood(100, 100 * number)), 0.02):
            expect(live.locator("#feed-rate")).to_have_text(re.compile(r"^a sample: .*/s of .*/s$"))
            live.locator("#filter-text").fill("occurs nowhere")
            expect(live.locator("#signals-empty")).to_contain_text("only a sample was searched")
            live.locator("#filter-text").fill("")
            live.locator("#pause").click()
            new = live.locator("#feed-rate")
            expect(new).to_have_text(re.compile(r"^\d{2},\d{3} new ones since$"))
            live.locator("#filter-source").click()
            live.locator("#menu-source").get_by_text("source 20").click()
            live.keyboard.press("Escape")
            expect(rows(live).first).to_be_visible()
            live.locator("#pause").click()
            expect(new).to_have_text(re.compile(r"^at least [\d,]+ new ones since$"))

    def test_looks_back_into_the_journal(self, live: Page, relay: Relay) -> None:
        publisher, witness = relay.connect(joined=False), relay.connect(joined=False)
        past = b"".join(arbitrage(number) for number in range(1, 701))
        publisher.send(past)
        witness.receive(len(past))
        live.locator("#lookback-open").click()
        live.locator("[data-ago='600']").click()
        expect(live.locator("#past")).to_be_visible()
        expect(rows(live)).to_have_count(500)
        expect(rows(live).first.locator("td.sequence")).to_have_text("1")
        picture(live, "past")
        live.locator("#past-next").click()
        expect(rows(live)).to_have_count(200)
        expect(rows(live).last.locator("td.sequence")).to_have_text("700")
        expect(live.locator("#past-next")).to_be_disabled()
        live.locator("#past-live").click()
        publisher.send(arbitrage(701))
        expect(rows(live).first.locator("td.sequence")).to_have_text("701")

    def test_looks_back_for_a_text(self, live: Page, relay: Relay) -> None:
        publisher, witness = relay.connect(joined=False), relay.connect(joined=False)
        past = arbitrage(1) + flood(20_600, 0) + arbitrage(2)
        publisher.send(past)
        witness.receive(len(past))
        text, empty = live.locator("#past-text"), live.locator("#signals-empty")
        live.locator("#filter-text").fill("1000002 strategy_id=7")
        live.locator("#lookback-open").click()
        live.locator("[data-ago='60']").click()
        expect(empty).to_have_text("None of 20,000 looked at matches. Next goes on.")
        live.locator("#past-next").click()
        expect(text).to_contain_text("1 of 602 looked at matches")
        expect(text).to_contain_text("that is all until now")
        expect(rows(live).locator("td.sequence")).to_have_text("2")
        live.locator("#filter-text").fill("occurs nowhere")
        expect(empty).to_have_text(re.compile(r"^None of \d+ looked at matches[.]$"))
        live.locator("[data-jump='-60']").click()
        expect(empty).to_have_text("None of 20,000 looked at matches. Next goes on.")
        live.locator("#filter-text").fill("")
        expect(rows(live)).to_have_count(500)


def filters(status: dict[str, object]) -> list[object]:
    """Return what the WebSockets of a status ask for."""
    peers = status["peers"]
    assert isinstance(peers, list)
    return [peer["filter"] for peer in peers if peer["transport"] == "websocket"]


class TestFlow:
    def test_plots_have_points(self, live: Page, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        feeder = Feeder(lambda number: publisher.send(flood(100, 100 * number)), 0.1)
        with feeder:
            expect(live.locator("#figure-messages")).to_have_text(re.compile(r"^[89]\d\d|1,"))
            for plot in ("plot-types", "plot-sources"):
                expect(live.locator(f"#{plot} .scatterlayer path.js-line").first).to_be_attached()
                live.wait_for_function(POINTS, arg=plot)
            for source in ("source 20", "source 21"):
                expect(live.locator("#legend-sources")).to_contain_text(source)
            expect(live.locator("#legend-types")).to_contain_text("ArbitrageSignal")
            picture(live, "flow")
            assert live.evaluate(GRID_FOLLOWS_THEME)

    def test_plots_show_local_time(self, browser: Browser, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        publisher.send(arbitrage(1))
        with browser.new_context(locale="en-GB", timezone_id="America/New_York") as context:
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{relay.port}/")
            tick = page.locator("#plot-types .xtick").last
            expect(tick).to_have_text(re.compile(r"^\d\d:\d\d$"))
            hour, minute = map(int, tick.text_content().split(":"))  # type: ignore[union-attr]
            now = page.evaluate("new Date().getHours() * 60 + new Date().getMinutes()")
            assert (now - 60 * hour - minute) % (24 * 60) <= 2
            row = rows(page).locator("td.time").inner_text()
            assert (now - 60 * int(row[:2]) - int(row[3:5])) % (24 * 60) <= 2


POINTS = """(id) => document.getElementById(id).data
  .some((series) => series.y.filter((rate) => rate > 0).length >= 3)"""


GRID_FOLLOWS_THEME = """() => {
  const stroke = () => getComputedStyle(document.querySelector(".gridlayer path")).stroke;
  const before = stroke();
  document.getElementById("theme").click();
  return stroke() !== before;
}"""


class Feeder:
    """Calls something again and again beside the test: ``send(number)`` every so many seconds."""

    def __init__(self, send: Callable[[int], None], every: float) -> None:
        self._send = send
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        number = 0
        while not self._over.wait(self._every):
            self._send(number)
            number += 1


class TestPeersAndTroubles:
    def test_who_is_connected(self, live: Page, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        publisher.send(arbitrage(1))
        peers = live.locator("#peers tbody tr")
        expect(peers).to_have_count(2)
        expect(peers.filter(has_text="unix")).to_contain_text(PROGRAM)
        expect(peers.filter(has_text="websocket")).to_contain_text("Chrome/")
        publisher.close()
        expect(peers).to_have_count(1)
        picture(live, "peers")

    def test_a_bridge_is_shown_as_one(self, live: Page, relay: Relay) -> None:
        with Client(str(relay.socket), name="bridge") as bridge:
            bridge.publish(arbitrage(1))  # connects
            badge = live.locator(".badge:not([hidden])")
            peer = live.locator("#peers tbody tr", has=badge)
            expect(peer).to_have_count(1)
            expect(peer.locator(".badge")).to_have_text(re.compile("^bridge to NATS"))
            others = live.locator("#peers tbody tr", has_not=badge)
            expect(others).to_have_count(1)
            expect(others.locator(".badge")).to_be_hidden()
            picture(live, "bridge")

    def test_what_is_wrong(self, live: Page, relay: Relay) -> None:
        expect(live.locator("#trouble-verdict")).to_have_text(re.compile("Nothing is wrong"))
        publisher = relay.connect(joined=False)
        bad = bytearray(arbitrage(1))
        bad[-1] ^= 1
        publisher.send(bytes(bad) + arbitrage(1) + arbitrage(5) + arbitrage(5))
        findings = live.locator("#findings tbody")
        expect(findings).to_contain_text("checksum")
        expect(findings).to_contain_text(re.compile("missing|jumped", re.I))
        expect(findings).to_contain_text(re.compile("repeat", re.I))
        expect(live.locator("#health")).not_to_have_text(re.compile("^ok$"))
        picture(live, "trouble")

    def test_what_went_wrong_before_it_was_opened(self, page: Page, relay: Relay) -> None:
        publisher = relay.connect(joined=False)
        publisher.send(bytes(100))
        relay.wait_for_log("peer disconnected: .* reason=magic")
        page.goto(f"http://127.0.0.1:{relay.port}/")
        findings = page.locator("#findings tbody tr")
        expect(findings).to_have_count(1)
        expect(findings).to_have_attribute("data-level", "warn")
        expect(findings.locator("td.number")).to_have_text(["1", "1"])
        expect(findings).to_contain_text(
            re.compile(rf"last at \d\d:.* {PROGRAM}[)]: byte 0: found 00")
        )
        page.close()


class TestGone:
    def test_it_tells_and_comes_back_by_itself(
        self, page: Page, complaints: Complaints, tmp_path: Path
    ) -> None:
        port = free_port()
        options = ("--web", f"tcp:{port}:interface=127.0.0.1")
        state = page.locator("#state")
        with Relay(*options) as relay:
            page.goto(f"http://127.0.0.1:{port}/")
            expect(state).to_have_text(re.compile("live"))
            relay.stop()
            expect(state).to_have_text(re.compile("gone"))
            picture(page, "gone")
        with Relay(*options) as relay:
            expect(state).to_have_text(
                re.compile(r"the relay was restarted at \d\d:\d\d:\d\d [(]gone \d+ s[)]")
            )
            relay.wait_for_log("peer connected: .* [(]websocket")
            relay.connect(joined=False).send(arbitrage(3))
            expect(rows(page).first.locator("td.sequence")).to_have_text("3")
            page.goto("about:blank")  # it asks on while there is a relay, and after it
        complaints.take("ERR_CONNECTION|WebSocket")
        complaints.found = [each for each in complaints.found if "Failed to load" not in each]


def free_port() -> int:
    """Return a port that nobody has: the page must find a second relay where the first one was."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert isinstance(port, int)
        return port


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_sticks_out(relay: Relay, page: Page, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"http://127.0.0.1:{relay.port}/")
    relay.connect(joined=False).send(b"".join(arbitrage(number) for number in range(1, 40)))
    expect(rows(page).first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3]))
    assert (brightness > 3 * 128) == (scheme == "light")
    picture(page, f"{width}-{scheme}")


def test_what_matters_most_fits(live: Page, relay: Relay) -> None:
    relay.connect(joined=False).send(arbitrage(1))
    rows(live).first.click()
    expect(live.locator("#details")).to_be_visible()
    for cell in ("net", "capital"):
        assert live.evaluate(ENDS_WITHIN, [f"#signals td.{cell}", "#signals-box"])
    live.keyboard.press("Escape")
    live.set_viewport_size({"width": 390, "height": 844})
    for cell in ("in", "out", "lag", "state"):
        expect(live.locator(f"#peers tr:first-child td.{cell}")).to_be_visible()
        assert live.evaluate(ENDS_WITHIN, [f"#peers td.{cell}", "#peers-box"])
    expect(live.locator("html")).to_have_attribute("style", re.compile(r"--bar: \d{2,3}px"))
    high = live.locator(".bar").bounding_box()
    live.set_viewport_size({"width": 1280, "height": 800})
    live.wait_for_function(BAR_IS_FOLLOWED)
    low = live.locator(".bar").bounding_box()
    assert high is not None
    assert low is not None
    assert low["height"] < high["height"]


ENDS_WITHIN = """(selectors) => {
  const [inner, outer] = selectors.map((each) => document.querySelector(each));
  return inner.getBoundingClientRect().right <= outer.getBoundingClientRect().right;
}"""
BAR_IS_FOLLOWED = """() => {
  const bar = getComputedStyle(document.documentElement).getPropertyValue("--bar");
  return bar === `${document.querySelector(".bar").offsetHeight}px` && parseInt(bar) < 80;
}"""


def test_it_stays_responsive_in_a_flood(relay: Relay, page: Page) -> None:
    result = watch(page, relay, RATE, 8.0)
    assert result.rate > 0.5 * RATE, "the publisher was too slow for the test to show anything"
    assert result.slowest_click < CLICK_MAX
    assert result.drawn_rows <= 250
    assert result.heap_bytes < 100 << 20
    picture(page, "flood")
