"""The status document over HTTP, and what else may answer."""

import math
import socket
import threading
import time
from contextlib import suppress

import pytest

from alphapulse_relay.cli.snapshot import Silence, Snapshot, fetch, look, status_url
from alphapulse_relay.cli.words import Failure
from tests.cli.side_port import document, ok, side_port


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:9750", "http://127.0.0.1:9750/api/status"),
        ("http://[::1]:9750/", "http://[::1]:9750/api/status"),
        ("https://relay/other/status", "https://relay/other/status"),
        ("127.0.0.1:9750", "http://127.0.0.1:9750/api/status"),
        ("localhost:9750/", "http://localhost:9750/api/status"),
        ("[::1]:9750", "http://[::1]:9750/api/status"),
        ("http://relay/ä b?ü=%20", "http://relay/%C3%A4%20b?%C3%BC=%20"),
    ],
)
def test_url(text, url):
    assert status_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:///etc/passwd",
        "http://",
        "http://a:b",
        "http://.:1",
        f"http://{'a' * 64}.x:1",
    ],
)
def test_not_a_url(text):
    with pytest.raises(ValueError):  # noqa: PT011 (urllib has its own words for some)
        status_url(text)


def test_look():
    with side_port(lambda: ok(document(1.0))) as port:
        now = look(status_url(port.url))
    assert port.paths == ["/api/status"]
    assert (now.version, now.pid, now.uptime, now.ready) == ("0.1.0", 77, 11.0, True)
    assert (now.messages_in, now.dropped, now.missed) == (200, {"checksum": 3}, {})
    assert [(peer.number, peer.state, peer.messages_in) for peer in now.peers] == [
        (1, "live", 100),
        (2, "live", 100),
    ]
    assert (now.journal.used, now.journal.size, now.journal.failure) == (1 << 26, 1 << 30, "")
    assert [(party.name, party.reason) for party in now.departed] == [("gone", "overtaken")]


def test_proxies_are_not_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with side_port(lambda: ok(document())) as port:
        assert fetch(port.url) == document()


def altered(key: str, field: str, value: object) -> dict[str, object]:
    """The document with another value in the first entry of a list."""
    content = document()
    content[key][0][field] = value
    return content


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((404, b"No Such Resource"), "answers 404 Not Found"),
        ((200, b"<html>"), "answers, but not with a relay's status"),
        ((200, b"\xff"), "answers, but not with a relay's status"),
        ((200, b"[" * 100_000), "answers, but not with a relay's status"),
        (ok([]), "answers, but not with a relay's status"),
        (ok({}), "answers, but not with a relay's status"),
        (ok(document() | {"peers": [{}]}), "answers, but not with a relay's status"),
        (ok(document() | {"pid": None}), "answers, but not with a relay's status"),
        (ok(document() | {"counters": 3}), "answers, but not with a relay's status"),
        (ok(document() | {"journal": {}}), "answers, but not with a relay's status"),
        *[
            (ok(document() | {key: value}), "answers, but not with a relay's status")
            for key in ("pid", "held", "started_at", "uptime_seconds")
            for value in (math.inf, math.nan, 1e300, -1, "1", [], 10**4000)
        ],
        *[
            (ok(altered("departed", "at", value)), "answers, but not with a relay's status")
            for value in (math.inf, math.nan, 1e300, -1, None)
        ],
        *[
            (ok(altered("peers", key, value)), "answers, but not with a relay's status")
            for key in ("number", "pid", "messages_in", "bytes_behind")
            for value in (math.inf, 1.5, "\x1b[2J", {})
        ],
    ],
)
def test_something_else_answers(answer, told):
    with side_port(lambda: answer) as port, pytest.raises(Failure) as raised:
        look(port.url)
    assert raised.value.message.startswith(f"{port.url} {told}")


def test_redirected_to_nowhere():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            server.settimeout(5)
            accepted, _ = server.accept()
            accepted.recv(1000)
            accepted.sendall(b"HTTP/1.0 302 Found\r\nLocation: http://.:1/\r\n\r\n")
            accepted.close()

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(Failure, match="no answer from"):
            fetch(url)
        serving.join()


def test_nothing_answers():
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(Failure) as raised:
            fetch(url)
    assert raised.value.message.startswith(f"no answer from {url}: Connection refused: ")


def test_somebody_is_silent(monkeypatch):
    monkeypatch.setattr("alphapulse_relay.cli.snapshot.TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Silence, match="not all of it within 0 s"):
            fetch(url)


def test_an_answer_a_byte_at_a_time(monkeypatch):
    monkeypatch.setattr("alphapulse_relay.cli.snapshot.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            server.settimeout(5)
            accepted, _ = server.accept()
            with accepted, suppress(OSError):
                accepted.sendall(b"HTTP/1.0 200 OK\r\n\r\n{")
                for _ in range(250):
                    accepted.sendall(b" ")
                    time.sleep(0.02)

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(Silence, match="not all of it within 0 s"):
            fetch(url)
        serving.join()


def test_somebody_closes_without_an_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            server.settimeout(5)
            accepted, _ = server.accept()
            accepted.recv(1000)
            accepted.close()

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(Failure, match="no answer from"):
            fetch(url)
        serving.join()


def test_control_characters_are_replaced():
    now = Snapshot.read(document(name="\x1b[2Jevil"))
    assert now.peers[0].name == "?[2Jevil"
    content = document()
    content["peers"][0]["client_name"] = "\x1b[2J"
    content["journal"] |= {"directory": "/\x1b[2J", "failure": "\x1b[2J"}
    now = Snapshot.read(content)
    shown = (now.peers[0].name, now.journal.directory, now.journal.failure)
    assert shown == ("?[2J", "/?[2J", "?[2J")
