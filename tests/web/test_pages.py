"""The kinds of pages: what they answer to which request, and how fast it is written."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.web.resource import Resource
from twisted.web.server import Site

from alphapulse_relay.web.pages import (
    HEADERS,
    PAGE_POLICY,
    PIECE_SIZE,
    PLAIN,
    Directory,
    Notice,
    Page,
    StaticFile,
)
from tests.web.asking import Caller, Response

LARGE = bytes(range(256)) * 1024 + b"end"

Serve = Callable[[Resource], Caller]


@pytest.fixture
def serve(clock: Any) -> Iterator[Serve]:
    """Return a caller of a Site with that one page at /page."""
    callers: list[Caller] = []

    def connect(page: Resource) -> Caller:
        root = Directory()
        root.putChild(b"page", page)
        site = Site(root, reactor=clock)
        site.timeOut = None
        callers.append(Caller(site))
        return callers[-1]

    yield connect
    for caller in callers:
        caller.lose()
    assert not clock.getDelayedCalls()


def file(tmp_path: Path, name: str = "app.js", content: bytes = b"let a = 1\n") -> StaticFile:
    (tmp_path / name).write_bytes(content)
    return StaticFile(tmp_path / name)


class TestPage:
    def test_is_made_anew_each_time(self, serve: Serve) -> None:
        bodies = iter([b"one", b"three"])
        caller = serve(Page(lambda _: next(bodies), PLAIN))
        for body in (b"one", b"three"):
            response = caller.ask("/page")
            assert (response.status, response.body) == (200, body)
            assert response.headers["content-length"] == str(len(body))
            assert response.headers["content-type"] == PLAIN
            assert response.headers["cache-control"] == "no-store"

    def test_head(self, serve: Serve) -> None:
        response = serve(Page(lambda _: b"body", PLAIN)).ask("/page", "HEAD")
        assert (response.status, response.body) == (200, b"")
        assert response.headers["content-length"] == "4"

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "GETX"])
    def test_can_only_be_read(self, serve: Serve, method: str) -> None:
        response = serve(Page(lambda _: b"body", PLAIN)).ask("/page", method)
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
        assert response.body == b"a page can only be read\n"

    def test_an_empty_one(self, serve: Serve) -> None:
        response = serve(Page(lambda _: b"", PLAIN)).ask("/page")
        assert (response.status, response.headers["content-length"]) == (200, "0")


class TestPace:
    """What is written is no more than is taken, but for what a transport holds."""

    def test_a_large_page_comes_in_pieces(self, serve: Serve) -> None:
        caller = serve(Page(lambda _: LARGE, PLAIN))
        caller.transport.room = 0
        written = []
        for _ in range(len(LARGE) // PIECE_SIZE + 1):
            before = len(caller.transport.value())
            caller.ask("/page") if not written else caller.transport.take(0)
            written.append(len(caller.transport.value()) - before)
        assert max(written) < PIECE_SIZE + 1000
        caller.transport.take()
        assert caller.response.body == LARGE

    def test_who_has_gone_is_written_nothing(self, serve: Serve) -> None:
        caller = serve(Page(lambda _: LARGE, PLAIN))
        caller.transport.room = 0
        caller.ask("/page")
        written = len(caller.transport.value())
        caller.transport.producer.stopProducing()  # as a transport does that is gone
        caller.lose()
        assert len(caller.transport.value()) == written

    @pytest.mark.parametrize(
        "size", [0, 1, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 2 * PIECE_SIZE]
    )
    @pytest.mark.parametrize("room", [0, 1e9])
    def test_any_size(self, serve: Serve, size: int, room: float) -> None:
        caller = serve(Page(lambda _: bytes(size), PLAIN))
        caller.transport.room = room
        caller.ask("/page")
        for _ in range(3):
            caller.transport.take(room)
        assert caller.response.body == bytes(size)
        assert caller.ask("/page").status == 200


class TestStaticFile:
    @pytest.mark.parametrize(
        ("name", "content_type"),
        [
            ("app.js", "text/javascript; charset=utf-8"),
            ("style.css", "text/css; charset=utf-8"),
            ("index.html", "text/html; charset=utf-8"),
        ],
    )
    def test_is_as_it_is(self, serve: Serve, tmp_path: Path, name: str, content_type: str) -> None:
        response = serve(file(tmp_path, name, LARGE)).ask("/page")
        assert (response.status, response.body) == (200, LARGE)
        assert response.headers["content-type"] == content_type
        assert response.headers["content-length"] == str(len(LARGE))
        assert response.headers["cache-control"] == "no-cache"

    def test_a_page_for_people_is_bound_to_what_comes_from_here(
        self, serve: Serve, tmp_path: Path
    ) -> None:
        policy = "content-security-policy"
        page = serve(file(tmp_path, "index.html")).ask("/page")
        assert page.headers[policy] == PAGE_POLICY
        assert "unsafe" not in PAGE_POLICY
        assert policy not in serve(file(tmp_path, "app.js")).ask("/page").headers

    def test_head(self, serve: Serve, tmp_path: Path) -> None:
        caller = serve(file(tmp_path))
        response = caller.ask("/page", "HEAD")
        assert (response.status, response.body) == (200, b"")
        assert response.headers["content-length"] == "10"
        assert response.headers["etag"] == caller.ask("/page").headers["etag"]

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_is_not_sent_again(self, serve: Serve, tmp_path: Path, method: str) -> None:
        caller = serve(file(tmp_path))
        tag = caller.ask("/page").headers["etag"]
        response = caller.ask("/page", method, if_none_match=tag)
        assert (response.status, response.body) == (304, b"")
        assert response.headers["etag"] == tag

    @pytest.mark.parametrize("tag", ['"another"', "", "\xff", "W/", "app"])
    def test_is_sent_for_another_tag(self, serve: Serve, tmp_path: Path, tag: str) -> None:
        response = serve(file(tmp_path)).ask("/page", if_none_match=tag)
        assert (response.status, response.body) == (200, b"let a = 1\n")

    def test_is_sent_again_when_it_has_changed(self, serve: Serve, tmp_path: Path) -> None:
        caller = serve(file(tmp_path))
        tag = caller.ask("/page").headers["etag"]
        path = tmp_path / "app.js"
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        assert caller.ask("/page", if_none_match=tag).status == 200

    def test_one_that_is_gone(self, serve: Serve, tmp_path: Path) -> None:
        caller = serve(file(tmp_path))
        (tmp_path / "app.js").unlink()
        assert caller.ask("/page").status == 404

    def test_one_that_becomes_shorter_while_it_is_sent(self, serve: Serve, tmp_path: Path) -> None:
        """The caller must see that something is missing."""
        caller = serve(file(tmp_path, content=LARGE))
        caller.transport.room = 0
        caller.ask("/page")
        os.truncate(tmp_path / "app.js", PIECE_SIZE)
        caller.transport.take()
        assert len(caller.response.body) == PIECE_SIZE
        assert caller.ended == "closed"

    def test_can_only_be_read(self, serve: Serve, tmp_path: Path) -> None:
        assert serve(file(tmp_path)).ask("/page", "POST").status == 405


class TestNotice:
    def test_has_a_status_a_line_and_headers(self, serve: Serve) -> None:
        caller = serve(Notice(403, "leave", retry_after="5"))
        response: Response = caller.ask("/page")
        assert (response.status, response.body) == (403, b"leave\n")
        assert response.headers["retry-after"] == "5"
        assert response.headers["content-type"] == PLAIN

    def test_whatever_is_asked(self, serve: Serve) -> None:
        caller = serve(Notice(404, "nothing"))
        for method in ("POST", "GET", "BREW"):
            assert caller.ask("/page", method).status == 404
        assert caller.ask("/page", "HEAD").body == b""


@pytest.mark.parametrize("path", ["/", "/a", "/page/", "/page/a", "/page/../a", "/%2e%2e/a"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_directory_has_nothing_else(serve: Serve, path: str, method: str) -> None:
    response = serve(Directory()).ask(path, method)
    assert response.status == 404
    assert response.body in {b"", b"there is no such page: see /\n"}


def test_headers_that_every_answer_has() -> None:
    assert HEADERS == {
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
