"""The live page while a flood goes by: it must answer its user, and not grow."""

import threading
import time
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.traffic import flood
from tests.support import Relay

PIECE_SECONDS = 0.02
"""Between two pieces of the flood."""
CLICK_MAX = 1.0
"""Seconds until the page must have painted what a click does."""
GROWTH_MAX = 10 << 20
"""Bytes that the page's memory may grow by in the second half of the time."""
LOOK_MS = 500
"""Between two tries whether the page answers."""
PRESS = """() => new Promise((answered) => {
  const began = performance.now();
  document.getElementById("theme").click();
  requestAnimationFrame(() => setTimeout(() => answered(performance.now() - began)));
})"""
"""Press a button, and wait until what it does is painted; in milliseconds."""


@dataclass(frozen=True)
class Result:
    """``rate`` is what was published, in messages a second; times in seconds, sizes in bytes."""

    rate: float
    slowest_click: float
    median_click: float
    heap_bytes: int
    heap_growth: int
    """Of the second half of the time."""
    drawn_rows: int
    nodes: int


class Flood:
    """Publishes so many messages a second beside the page."""

    def __init__(self, relay: Relay, rate: int) -> None:
        self.sent = 0
        self._client = relay.connect(joined=False)
        self._rate = rate
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Flood":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._over.wait(PIECE_SECONDS):
            due = int((time.monotonic() - began) * self._rate) - self.sent
            self._client.send(flood(due, self.sent))
            self.sent += due


def watch(page: Page, relay: Relay, rate: int, seconds: float) -> Result:
    """Let the flood go by for so long, press a button again and again, and look what it took."""
    page.goto(f"http://127.0.0.1:{relay.port}/")
    expect(page.locator("#state")).to_contain_text("live")
    clicks: list[float] = []
    began = time.monotonic()
    with Flood(relay, rate) as torrent:
        expect(page.locator("#signals tbody tr").first).to_be_visible()
        halfway = 0
        while (passed := time.monotonic() - began) < seconds:
            clicks.append(page.evaluate(PRESS) / 1000)
            if not halfway and passed > seconds / 2:
                halfway = heap(page)["JSHeapUsedSize"]
            page.wait_for_timeout(LOOK_MS)
        metrics = heap(page)
        drawn = page.locator("#signals tbody tr").count()
        took = time.monotonic() - began
    return Result(
        torrent.sent / took,
        max(clicks),
        sorted(clicks)[len(clicks) // 2],
        int(metrics["JSHeapUsedSize"]),
        int(metrics["JSHeapUsedSize"]) - int(halfway),
        drawn,
        int(metrics["Nodes"]),
    )


def heap(page: Page) -> dict[str, Any]:
    """Return what Chromium counts, after it has cleaned up (DevTools protocol, "Performance")."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return {metric["name"]: metric["value"] for metric in metrics}
