"""A real Chromium for the tests: whatever it complains about fails the test."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    WebError,
)

from tests.browser.chromium import MISSING, chromium, find_chromium
from tests.support import PATIENCE, Relay

SIZE = {"width": 1280, "height": 800}
"""Pixels of the part of the window that shows the page."""
POLL_MS = 10
"""How long the browser is listened to before it is looked whether it said something."""
SCREENSHOTS = Path(os.environ.get("TEST_ARTIFACTS") or "build/screenshots")


class Complaints:
    """What the browser had to say against any page of a context.

    That is errors on its console, where it also tells what the content security policy forbade and
    what could not be loaded, and exceptions that nothing caught.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.found: list[str] = []
        self._context = context
        context.on("console", self._add_error)
        context.on("weberror", self._add_exception)
        context.on("page", lambda page: page.on("crash", lambda _: self._add("the page crashed")))

    def take(self, pattern: str) -> list[str]:
        """Wait for one with the pattern, and return all that have it: they fail no test then."""
        deadline = time.monotonic() + PATIENCE
        while not (taken := [each for each in self.found if re.search(pattern, each)]):
            assert time.monotonic() < deadline, f"{pattern!r} is not among {self.found}"
            self._context.pages[0].wait_for_timeout(POLL_MS)
        self.found = [each for each in self.found if each not in taken]
        return taken

    def _add_error(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self._add(f"{said.text} ({said.location['url']})")

    def _add(self, text: str) -> None:
        self.found.append(text)

    def _add_exception(self, error: WebError) -> None:
        self._add(str(error.error))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A Chromium of its own."""
    path = find_chromium()
    if path is None:
        pytest.skip(MISSING)
    with chromium(path) as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Windows that share storage with each other, and with no other test."""
    context = browser.new_context(viewport=SIZE, locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(PATIENCE * 1000)
    yield context
    context.close()


@pytest.fixture
def complaints(context: BrowserContext) -> Iterator[Complaints]:
    """What the browser complains about, which fails the test unless the test takes it."""
    complaints = Complaints(context)
    yield complaints
    assert complaints.found == []


@pytest.fixture
def page(
    context: BrowserContext, complaints: Complaints, request: pytest.FixtureRequest
) -> Iterator[Page]:
    """An empty page; what it shows at the end of the test is kept as a picture."""
    page = context.new_page()
    yield page
    if not page.is_closed():
        name = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
        page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest.fixture(scope="package")
def relay() -> Iterator[Relay]:
    """A relay that tests share: they leave it without peers."""
    with Relay() as relay:
        yield relay
