"""The side port: what each address answers."""

import json
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from alphapulse_relay import __version__
from alphapulse_relay.web.site import build_site
from tests.hub.fakes import Events, Hub, message

PAGES = ["/", "/metrics", "/healthz", "/readyz", "/api/status"]


class Response:
    """A parsed answer of HTTP/1.1 with a length."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }


class Web:
    def __init__(self, hub: Hub) -> None:
        self.unready: str | None = None
        self.site = build_site(hub.factory, lambda: self.unready)

    def ask(self, path: str, method: str = "GET", **headers: str) -> Response:
        channel: Any = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport = StringTransport()
        channel.makeConnection(transport)
        lines = [f"{method} {path} HTTP/1.1", "Host: here"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        channel.dataReceived("\r\n".join([*lines, "", ""]).encode("latin-1"))
        channel.connectionLost(Failure(ConnectionDone()))
        return Response(transport.value())


@pytest.fixture
def web(hub: Hub) -> Web:
    return Web(hub)


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

    def test_is_not_to_be_kept_nor_guessed_at(self, web: Web, path: str) -> None:
        headers = web.ask(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    def test_cannot_be_changed(self, web: Web, path: str, method: str) -> None:
        response = web.ask(path, method)
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")

    def test_a_query_changes_nothing(self, web: Web, path: str) -> None:
        assert web.ask(f"{path}?a=b").status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path", ["/nothing", "/api", "/api/", "/api/nothing", "/metricsx", "/a/b/c"]
)
def test_not_found(web: Web, path: str, method: str) -> None:
    assert web.ask(path, method).status == 404


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
    def test_is_json_of_now(self, hub: Hub, web: Web) -> None:
        for count in (1, 2):
            hub.connect()
            response = web.ask("/api/status")
            assert response.headers["content-type"] == "application/json"
            assert len(json.loads(response.body)["peers"]) == count

    def test_readiness_is_told(self, web: Web) -> None:
        web.unready = "leaving"
        assert json.loads(web.ask("/api/status").body)["ready"] is False


def test_index_names_the_version_and_the_pages(web: Web) -> None:
    response = web.ask("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert __version__.encode() in response.body
    for path in PAGES[1:]:
        assert f'href="{path}"'.encode() in response.body


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


def test_silence_is_ended(hub: Hub) -> None:
    site = build_site(hub.factory, lambda: None)
    assert 0 < site.timeOut <= 60
