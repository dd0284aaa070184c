"""The browser itself: it shows what a relay serves, and none of its complaints goes unseen."""

import pytest
from playwright.sync_api import Page, Route
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.browser.conftest import Complaints
from tests.support import Relay

ADDRESS = "http://page.test/"


def show(page: Page, body: str, policy: str = "") -> None:
    """Have a page that nobody serves, and that comes with a content security policy."""

    def answer(route: Route) -> None:
        headers = {"Content-Security-Policy": policy} if policy else {}
        route.fulfill(body=f"<!doctype html>{body}", headers=headers, content_type="text/html")

    page.route(ADDRESS, answer)
    page.goto(ADDRESS)


def test_shows_what_a_relay_serves(page: Page, relay: Relay) -> None:
    answer = page.goto(f"http://127.0.0.1:{relay.port}/")
    assert answer is not None
    assert answer.status == 200
    assert page.title() == "Signal Relay"


@pytest.mark.parametrize(
    ("body", "policy", "complaint"),
    [
        ("<script>console.error('told')</script>", "", "told"),
        ("<script>throw new Error('thrown')</script>", "", "thrown"),
        ("<script>Promise.reject(new Error('rejected'))</script>", "", "rejected"),
        ("<script>document.title = 'ran'</script>", "script-src 'none'", "Content Security Policy"),
        ("<b style='color: red'>red</b>", "style-src 'self'", "Content Security Policy"),
    ],
    ids=["console", "exception", "promise", "script", "style"],
)
def test_a_complaint_is_seen(
    page: Page, complaints: Complaints, body: str, policy: str, complaint: str
) -> None:
    show(page, body, policy)
    assert len(complaints.take(complaint)) == 1


async def test_the_reactor_turns_beside_it(page: Page) -> None:
    show(page, "<title>beside</title>")
    await deferLater(reactor, 0, lambda: None)  # type: ignore[arg-type]
    assert page.title() == "beside"
