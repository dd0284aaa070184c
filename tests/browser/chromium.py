"""The Chromium that tests and soaks look at the page with."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

COMMANDS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MISSING = "there is no Chromium (on Debian: apt-get install chromium)"


def find_chromium() -> str | None:
    """Return the path of the first Chromium there is."""
    return next(filter(None, map(shutil.which, COMMANDS)), None)


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """Run a Chromium without a window and with a profile of its own; it is never downloaded."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which root cannot have
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS, *sandbox])
        yield browser
        browser.close()
