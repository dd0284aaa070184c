"""The side port: what each address answers, and to whom."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.internet.address import IPv4Address, UNIXAddress

from alphapulse_relay.hub.peer import Refusal
from alphapulse_relay.web import signals, site
from alphapulse_relay.web import site as module
from alphapulse_relay.web.access import Access
from alphapulse_relay.web.pages import CONTENT_TYPES, HEADERS, PAGE_POLICY
from alphapulse_relay.web.rates import Rates
from alphapulse_relay.web.site import PAGE, Kept, build_site
from alphapulse_relay.web.status import SettingsRead
from tests.hub.fakes import Events, Hub, message
from tests.web.asking import LOOPBACK, Caller, Response

DATA = ["/metrics", "/healthz", "/readyz", "/api/status", "/api/rates", "/api/layouts"]
FILES = [f"/page/{path.name}" for path in sorted(PAGE.glob("*")) if path.suffix in CONTENT_TYPES]
PAGES = ["/", *DATA, "/page/app.js", "/page/style.css"]
ABROAD = IPv4Address("TCP", "192.0.2.1", 9750)
SECRET = "correct-horse-battery"
OPEN = Access((), None, publish=False)
LOCKED = Access(("https://desk.example",), SECRET, publish=False)


class Web:
    """The side port of a hub, asked over a connection for each request."""

    def __init__(self, hub: Hub, clock: Any, access: Access = OPEN) -> None:
        self.unready: str | None = None
        self.rates = Rates(hub.factory, clock)
        self.site = build_site(
            hub.factory, lambda: self.unready, access, self.rates, SettingsRead()
        )

    def ask(self, path: str, method: str = "GET", at: Any = LOOPBACK, **headers: str) -> Response:
        caller = Caller(self.site, at)
        response = caller.ask(path, method, **headers)
        caller.lose()
        return response


class TestKept:
    def test_is_made_again_after_some_times_as_long(self) -> None:
        times, used = iter([10.0, 10.5, 12.4, 12.6, 13.0]), iter([1.0, 1.5, 1.5, 2.0])
        made = iter([b"first", b"second"])
        kept = Kept(lambda: next(made), lambda: next(times), lambda: next(used))
        assert [kept.get() for _ in range(3)] == [b"first", b"first", b"second"]

    def test_what_is_made_fast_is_always_new_however_long_others_had_the_processor(self) -> None:
        times, used = iter([10.0, 10.5, 10.5, 11.0]), iter([1.0, 1.001, 1.001, 1.002])
        made = iter([b"first", b"second"])
        kept = Kept(lambda: next(made), lambda: next(times), lambda: next(used))
        assert [kept.get() for _ in range(2)] == [b"first", b"second"]


UPGRADE = {"upgrade": "websocket", "connection": "Upgrade"}


class TestSignals:
    """Refusals of WebSockets; what they are like is tested by those that speak them."""

    @pytest.fixture(params=["full", "too many WebSockets", "leaving"])
    def state(
        self, request: pytest.FixtureRequest, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> Refusal:
        if request.param == "full":
            hub.factory.max_peers = 0
            return Refusal.TOO_MANY_PEERS
        if request.param == "leaving":
            hub.factory.drain.begun = True
            return Refusal.LEAVING
        monkeypatch.setattr(signals, "WEBSOCKETS_MAX", 0)
        return Refusal.TOO_MANY_WEB_CONNECTIONS

    def test_when_there_is_no_room(self, hub: Hub, web: Web, state: Refusal) -> None:
        response = web.ask("/signals", **UPGRADE)
        assert response.status == 503
        assert response.body.count(b"\n") == 1
        assert {reason: n for reason, n in hub.counters.refused.items() if n} == {state: 1}

    @pytest.mark.parametrize(
        ("headers", "body"),
        [
            ({}, b"only a WebSocket is to be had\n"),
            ({"upgrade": "h2c"}, b"only a WebSocket is to be had\n"),
        ],
    )
    def test_who_wants_something_else(
        self, hub: Hub, web: Web, headers: dict[str, str], body: bytes
    ) -> None:
        response = web.ask("/signals", **headers)
        assert (response.status, response.body) == (400, body)
        assert hub.counters.refused[Refusal.REQUEST] == 1


@pytest.fixture
def web(hub: Hub, clock: Any) -> Web:
    return Web(hub, clock)


@pytest.mark.parametrize("path", PAGES)
class TestEach:
    def test_answers(self, web: Web, path: str) -> None:
        response = web.ask(path)
        assert response.status == 200
        assert len(response.body) == int(response.headers["content-length"]) > 0

    def test_head_has_the_same_headers_and_no_body(self, web: Web, path: str) -> None:
        get, head = web.ask(path), web.ask(path, "HEAD")
        assert head.status == 200
        assert head.body == b""
        names = set(get.headers) - {"date"}
        assert set(head.headers) - {"date"} == names
        for name in names - {"content-length"}:
            assert head.headers[name] == get.headers[name]

    def test_is_not_to_be_guessed_at_nor_shown_elsewhere(self, web: Web, path: str) -> None:
        headers = web.ask(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS
        assert headers["cache-control"] == ("no-store" if path in DATA else "no-cache")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    def test_cannot_be_changed(self, web: Web, path: str, method: str) -> None:
        response = web.ask(path, method)
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")

    def test_a_query_changes_nothing(self, web: Web, path: str) -> None:
        assert web.ask(f"{path}?a=b").status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        *("/nothing", "/api", "/api/", "/api/nothing", "/metricsx", "/a/b/c", "/page", "/page/"),
        *("/page/nothing.js", "/page/../site.py", "/page/%2e%2e/site.py", "/page/..%2fsite.py"),
    ],
)
def test_not_found(web: Web, path: str, method: str) -> None:
    response = web.ask(path, method)
    assert response.status == 404
    assert {name: response.headers[name] for name in HEADERS} == HEADERS


class TestPage:
    def test_is_bound_to_what_comes_from_here(self, web: Web) -> None:
        response = web.ask("/")
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["content-security-policy"] == PAGE_POLICY
        assert response.body == (PAGE / "index.html").read_bytes()

    def test_all_its_files_are_served(self, web: Web) -> None:
        for path in FILES:
            response = web.ask(path)
            assert response.status == 200
            assert response.headers["content-type"] == CONTENT_TYPES[Path(path).suffix]

    def test_is_not_sent_again(self, web: Web) -> None:
        tag = web.ask("/").headers["etag"]
        assert web.ask("/", if_none_match=tag).status == 304


class TestPlotly:
    """The library that the page plots with comes out of an installed package, if it is."""

    @pytest.fixture
    def found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Has a package be found, or not."""

        def find(*, installed: bool) -> None:
            spec = ModuleSpec("plotly", None, is_package=True)
            spec.submodule_search_locations = [str(tmp_path)]
            monkeypatch.setattr(module, "find_spec", lambda _: spec if installed else None)

        return find

    def test_served(self, hub: Hub, clock: Any, found: Any, tmp_path: Path) -> None:
        (tmp_path / "package_data").mkdir()
        (tmp_path / "package_data" / "plotly.min.js").write_text("plot()")
        found(installed=True)
        response = Web(hub, clock).ask("/page/plotly.min.js")
        assert (response.status, response.body) == (200, b"plot()")
        assert response.headers["content-type"] == "text/javascript; charset=utf-8"
        assert "etag" in response.headers

    @pytest.mark.parametrize("installed", [True, False])
    def test_without_it_what_to_install_is_told(
        self, hub: Hub, clock: Any, found: Any, installed: bool
    ) -> None:
        """Also where the package is another one than was expected."""
        found(installed=installed)
        response = Web(hub, clock).ask("/page/plotly.min.js")
        assert response.status == 404
        assert response.body == (
            b"plots need another package: pip install 'alphapulse-signal-relay[page]'\n"
        )

    def test_is_not_loaded(self) -> None:
        code = (
            "import sys\n"
            "from alphapulse_relay.web.site import page_files\n"
            "page_files()\n"
            "print('plotly' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout == b"False\n"


class TestWhoMayAsk:
    @pytest.fixture
    def web(self, hub: Hub, clock: Any) -> Web:
        return Web(hub, clock, LOCKED)

    def refused(self, hub: Hub) -> dict[str, int]:
        return {reason: n for reason, n in hub.factory.counters.refused.items() if n}

    def test_another_host(self, web: Web, hub: Hub) -> None:
        for path in PAGES:
            response = web.ask(path, host="evil.example")
            assert (response.status, response.headers["content-type"]) == (
                403,
                "text/plain; charset=utf-8",
            )
            assert b"\n" not in response.body[:-1]
            assert b"--web-origin" in response.body
        assert self.refused(hub) == {Refusal.HOST: len(PAGES)}

    def test_another_origin_for_a_websocket(self, web: Web, hub: Hub) -> None:
        asked = {"upgrade": "websocket", "origin": "https://evil.example"}
        assert web.ask("/signals", **asked).status == 403
        assert self.refused(hub) == {Refusal.ORIGIN: 1}

    @pytest.mark.parametrize("path", ["/metrics", "/api/status", "/api/rates", "/signals", "/x"])
    def test_without_a_token_from_elsewhere(self, web: Web, hub: Hub, path: str) -> None:
        response = web.ask(path, at=ABROAD)
        assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")
        assert b"Authorization: Bearer TOKEN" in response.body
        assert self.refused(hub) == {Refusal.TOKEN: 1}

    def test_with_a_token_from_elsewhere(self, web: Web, hub: Hub) -> None:
        for path in PAGES:
            token = f"Bearer {SECRET}"
            assert web.ask(path, at=ABROAD, authorization=token).status == 200
        assert self.refused(hub) == {}

    @pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/page/app.js"])
    def test_what_needs_none(self, web: Web, path: str) -> None:
        assert web.ask(path, at=ABROAD, host="relay.example").status == 200

    def test_without_any_token_nothing_is_told_elsewhere(self, hub: Hub, clock: Any) -> None:
        response = Web(hub, clock).ask("/metrics", at=ABROAD)
        assert response.status == 403
        assert b"--web-token-file" in response.body
        assert "www-authenticate" not in response.headers

    def test_a_wrong_one_on_loopback(self, web: Web, hub: Hub) -> None:
        assert web.ask("/healthz", authorization="Bearer wrong").status == 401
        assert self.refused(hub) == {Refusal.TOKEN: 1}

    def test_over_a_unix_socket(self, web: Web) -> None:
        assert web.ask("/metrics", at=UNIXAddress("/run/web.sock")).status == 200

    def test_what_is_refused_has_the_headers_too(self, web: Web) -> None:
        headers = web.ask("/", host="evil.example").headers
        assert {name: headers[name] for name in HEADERS} == HEADERS

    def test_is_logged_with_who_it_was_at_a_bounded_rate(self, web: Web, logged: Events) -> None:
        for _ in range(30):
            web.ask("/", host="evil.example")
        lines = logged.lines()
        assert len(lines) == 10
        assert lines[0] == "connection refused: 1 (tcp 192.168.1.1:54321), reason=host"


class TestMetrics:
    def test_text(self, hub: Hub, web: Web) -> None:
        hub.connect().send(message())
        response = web.ask("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = {s.name: s.value for f in parse_text(response.body.decode()) for s in f.samples}
        assert samples["signal_relay_messages_received_total"] == 1

    def test_openmetrics(self, web: Web) -> None:
        response = web.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        kind = response.headers["content-type"]
        assert kind.startswith("application/openmetrics-text; version=1.0.0")
        assert list(parse_open(response.body.decode()))

    @pytest.mark.parametrize(
        "accept", ["\xff", "", ";q=", "application/openmetrics-text;\xff=\xff"]
    )
    def test_whatever_is_accepted(self, web: Web, accept: str) -> None:
        assert web.ask("/metrics", Accept=accept).status == 200

    def test_readiness_is_told(self, web: Web) -> None:
        web.unready = "leaving"
        assert b"\nsignal_relay_ready 0.0\n" in web.ask("/metrics").body


class TestHealth:
    @pytest.mark.parametrize("unready", [None, "the disk is full"])
    def test_alive_whatever_else(self, web: Web, unready: str | None) -> None:
        web.unready = unready
        response = web.ask("/healthz")
        assert (response.status, response.body) == (200, b"alive\n")

    def test_ready(self, web: Web) -> None:
        response = web.ask("/readyz")
        assert (response.status, response.body) == (200, b"ready\n")

    @pytest.mark.parametrize(("method", "told"), [("GET", b"not ready: no disk\n"), ("HEAD", b"")])
    def test_not_ready(self, web: Web, method: str, told: bytes) -> None:
        web.unready = "no disk"
        response = web.ask("/readyz", method)
        assert (response.status, response.body) == (503, told)

    def test_ready_again(self, web: Web) -> None:
        web.unready = "starting"
        web.ask("/readyz")
        web.unready = None
        assert web.ask("/readyz").status == 200


class TestStatus:
    def test_is_json_of_now(self, hub: Hub, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(site, "KEPT_FROM", math.inf)
        for count in (1, 2):
            hub.connect()
            response = web.ask("/api/status")
            assert response.headers["content-type"] == "application/json"
            assert len(json.loads(response.body)["peers"]) == count

    def test_readiness_is_told(self, web: Web) -> None:
        web.unready = "leaving"
        assert json.loads(web.ask("/api/status").body)["ready"] is False


class TestRates:
    def test_of_the_last_minutes(self, web: Web, clock: Any) -> None:
        web.rates.start()
        clock.pump([1.0] * 3)
        web.rates.stop()
        response = web.ask("/api/rates")
        assert response.headers["content-type"] == "application/json"
        assert len(json.loads(response.body)["samples"]) == 3

    @pytest.mark.parametrize(
        ("query", "since"), [("", None), ("?since=", None), ("?since=1795367003.25", 1795367003.25)]
    )
    def test_since(
        self, web: Web, monkeypatch: pytest.MonkeyPatch, query: str, since: float | None
    ) -> None:
        monkeypatch.setattr(web.rates, "describe", lambda moment: {"since": moment})
        assert json.loads(web.ask(f"/api/rates{query}").body) == {"since": since}

    @pytest.mark.parametrize("since", ["now", "nan", "inf", "1e999", "%ff"])
    def test_no_time(self, web: Web, since: str) -> None:
        response = web.ask(f"/api/rates?since={since}")
        assert (response.status, response.headers["content-type"]) == (
            400,
            "text/plain; charset=utf-8",
        )
        assert response.body == b"since is not a time in seconds since 1970\n"


def test_layouts(web: Web) -> None:
    response = web.ask("/api/layouts")
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.body)["21"]["fields"]


def test_requests_are_not_logged(web: Web, logged: Events) -> None:
    for path in [*PAGES, "/nothing"]:
        web.ask(path)
    assert logged.lines() == []


def test_a_page_that_fails_is_an_error_and_the_next_request_is_answered(
    hub: Hub, web: Web, logged: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patch:
        patch.setattr("alphapulse_relay.web.status._counters", fail)
        response = web.ask("/api/status")
    assert response.status == 500
    assert b"Traceback" not in response.body
    assert [str(error) for error in logged.flush_failures()] == ["no"]
    assert web.ask("/api/status").status == 200
