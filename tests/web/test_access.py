"""Who may ask the side port for what: hosts, origins and tokens."""

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

from alphapulse_relay.hub.peer import Refusal
from alphapulse_relay.hub.permission import AccessRules, Rule
from alphapulse_relay.web.access import (
    HOST,
    NO_TOKEN,
    ORIGIN,
    TOKEN,
    WRONG_TOKEN,
    Access,
    Denial,
    is_local,
)

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 9750)
ABROAD = IPv4Address("TCP", "192.0.2.1", 9750)
SECRET = "correct-horse.battery_staple~1"
OPEN = Access((), None, publish=False)
ORIGINS = ("https://desk.example", "http://grid.example:8080")
LOCKED = Access(ORIGINS, SECRET, publish=True)
RULE_TOKEN = "one.of-an_access~rule"
RULES = AccessRules((Rule("users"), Rule("desk", token=RULE_TOKEN)))


def asked(path: str = "/api/status", at: IAddress = LOOPBACK, **headers: str | list[str]) -> Any:
    """Return as much of a request as decisions are made by."""
    request: Any = type("Request", (), {})()
    request.getHost = lambda: at
    request.postpath = path.encode()[1:].split(b"/")
    request.requestHeaders = Headers()
    for name, given in {"host": "localhost:9750", **headers}.items():
        for value in [given] if isinstance(given, str) else given:
            raw = name.replace("_", "-").encode()
            request.requestHeaders.addRawHeader(raw, value.encode("latin-1"))
    return request


def bearer(token: str = SECRET) -> dict[str, Any]:
    return {"authorization": f"Bearer {token}"}


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [
            *("localhost", "localhost:9750", "LocalHost", "relay.localhost:1", "127.0.0.1:9750"),
            *("[::1]:9750", "[::1]", "192.0.2.7", "desk.example", "grid.example:9750"),
        ],
    )
    def test_own(self, host: str) -> None:
        assert LOCKED.denial(asked(host=host)) is None

    @pytest.mark.parametrize(
        "host",
        [
            *("evil.example", "evil.example:9750", "localhost.evil.example", "notlocalhost", ""),
            *("127.0.0.1.evil.example", "desk.example.evil", ":9750", "localhost:port", "\xff"),
            *("localhost@evil.example", "evil.example/localhost", "[evil]", "local host"),
        ],
    )
    @pytest.mark.parametrize("path", ["/", "/page/main.js", "/healthz", "/metrics", "/signals"])
    def test_of_others(self, host: str, path: str) -> None:
        assert LOCKED.denial(asked(path, host=host, **bearer())) is HOST

    def test_origins_are_hosts_only_where_they_are_given(self) -> None:
        assert OPEN.denial(asked(host="desk.example")) is HOST

    def test_more_than_one(self) -> None:
        assert LOCKED.denial(asked(host=["localhost", "localhost"])) is HOST

    def test_none_is_no_browser(self) -> None:
        assert OPEN.denial(asked(host=[])) is None

    @pytest.mark.parametrize(
        "at", [IPv4Address("TCP", "127.9.9.9", 1), IPv6Address("TCP", "::1", 1), UNIXAddress("/s")]
    )
    def test_is_looked_at_on_each_kind_of_loopback(self, at: IAddress) -> None:
        assert OPEN.denial(asked(at=at)) is None
        assert OPEN.denial(asked(at=at, host="evil.example")) is HOST

    def test_does_not_matter_elsewhere(self) -> None:
        """There the token does, which a page that pretends does not have."""
        assert LOCKED.denial(asked(at=ABROAD, host="relay.example", **bearer())) is None


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (IPv4Address("TCP", "127.0.0.1", 1), True),
        (IPv4Address("TCP", "127.255.0.9", 1), True),
        (IPv4Address("TCP", "10.0.0.1", 1), False),
        (IPv4Address("TCP", "0.0.0.0", 1), False),
        (IPv6Address("TCP", "::1", 1), True),
        (IPv6Address("TCP", "::ffff:127.0.0.1", 1), True),
        (IPv6Address("TCP", "::ffff:10.0.0.1", 1), False),
        (IPv6Address("TCP", "fe80::1%eth0", 1), False),
        (UNIXAddress("/run/web.sock"), True),
        (UNIXAddress(None), True),
        (None, False),
    ],
)
def test_what_is_local(address: Any, local: bool) -> None:
    assert is_local(address) is local


class TestTokenAbroad:
    @pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/", "/healthz", "/readyz", "/?a"])
    @pytest.mark.parametrize("access", [OPEN, LOCKED])
    def test_what_is_for_everybody(self, access: Access, path: str) -> None:
        assert access.denial(asked(path.partition("?")[0], ABROAD)) is None

    @pytest.mark.parametrize(
        "path", ["/metrics", "/api/status", "/api/rates", "/signals", "/nothing", "/pages", "/api"]
    )
    @pytest.mark.parametrize(("access", "denial"), [(OPEN, NO_TOKEN), (LOCKED, TOKEN)])
    def test_what_is_not(self, access: Access, denial: Denial, path: str) -> None:
        assert access.denial(asked(path, ABROAD)) is denial

    def test_with_it(self) -> None:
        assert LOCKED.denial(asked(at=ABROAD, **bearer())) is None
        assert OPEN.denial(asked(at=ABROAD, **bearer())) is NO_TOKEN

    @pytest.mark.parametrize("value", [f"Basic {SECRET}", SECRET, "Bearer", "Bearer ", ""])
    def test_not_as_a_bearer_s(self, value: str) -> None:
        assert LOCKED.denial(asked(at=ABROAD, authorization=value)) is TOKEN

    def test_in_the_query_it_is_none(self) -> None:
        """Where it would be written down by whatever stands between."""
        assert LOCKED.denial(asked(f"/api/status?token={SECRET}", ABROAD)) is TOKEN


WRONG = [SECRET[:-1], SECRET + "1", SECRET.upper(), "", "\xff" * 16, f"{SECRET} {SECRET}"]


class TestTokenOnLoopback:
    def test_is_not_needed_to_read(self) -> None:
        assert LOCKED.denial(asked()) is None

    @pytest.mark.parametrize("path", ["/", "/healthz", "/api/status", "/signals"])
    @pytest.mark.parametrize("token", WRONG)
    def test_a_wrong_one_is_refused(self, path: str, token: str) -> None:
        assert LOCKED.denial(asked(path, **bearer(token))) is (WRONG_TOKEN if token else TOKEN)

    def test_none_can_be_right_where_there_is_none(self) -> None:
        assert OPEN.denial(asked(**bearer())) is NO_TOKEN

    def test_a_password_of_something_else_is_no_token(self) -> None:
        assert LOCKED.denial(asked(authorization="Basic dXNlcjpwYXNz")) is None

    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_scheme(self, scheme: str) -> None:
        assert LOCKED.denial(asked(authorization=f"{scheme} {SECRET}")) is None
        assert LOCKED.denial(asked(authorization=f"{scheme} no")) is WRONG_TOKEN


class TestTokenAsSubprotocol:
    @pytest.mark.parametrize(
        "offer",
        [
            f"bearer.{SECRET}",
            f"signal-relay, bearer.{SECRET}",
            f"bearer.{SECRET},signal-relay",
            ["signal-relay", f"bearer.{SECRET}"],
        ],
    )
    def test_right(self, offer: str | list[str]) -> None:
        request = asked("/signals", ABROAD, sec_websocket_protocol=offer)
        assert LOCKED.denial(request) is None
        assert LOCKED.may_publish(request)

    @pytest.mark.parametrize(
        ("offer", "denial"),
        [
            (f"bearer.{SECRET}x", WRONG_TOKEN),
            ("bearer.", TOKEN),
            (f"Bearer.{SECRET}", TOKEN),
            (SECRET, TOKEN),
        ],
    )
    def test_wrong(self, offer: str, denial: Denial) -> None:
        request = asked("/signals", ABROAD, sec_websocket_protocol=offer)
        assert LOCKED.denial(request) is denial

    def test_all_must_be_right(self) -> None:
        right, wrong = f"bearer.{SECRET}", "bearer.wrong"
        assert LOCKED.denial(asked(sec_websocket_protocol=right, **bearer())) is None
        assert LOCKED.denial(asked(sec_websocket_protocol=wrong, **bearer())) is WRONG_TOKEN
        assert LOCKED.denial(asked(sec_websocket_protocol=f"{right}, {wrong}")) is WRONG_TOKEN


class TestOrigin:
    @staticmethod
    def denial(origin: str | list[str], host: str = "localhost:9750", **more: Any) -> Denial | None:
        request = asked("/signals", host=host, origin=origin, upgrade="websocket", **more)
        return LOCKED.denial(request)

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("http://localhost:9750", "localhost:9750"),
            ("http://LOCALHOST:9750", "localhost:9750"),
            ("http://localhost", "localhost"),
            ("http://localhost", "localhost:80"),
            ("https://localhost", "localhost"),
            ("https://localhost:443", "localhost"),
            ("https://localhost", "localhost:443"),
            ("http://[::1]:9750", "[::1]:9750"),
            ("http://127.0.0.1:9750", "127.0.0.1:9750"),
            ("https://desk.example", "localhost:9750"),
            ("http://grid.example:8080", "127.0.0.1:9750"),
        ],
    )
    def test_welcome(self, origin: str, host: str) -> None:
        assert self.denial(origin, host) is None

    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            ("http://evil.example", "localhost:9750"),
            ("http://localhost:9751", "localhost:9750"),
            ("http://localhost", "localhost:443"),
            ("https://localhost", "localhost:80"),
            ("http://127.0.0.1:9750", "localhost:9750"),
            ("http://desk.example", "localhost:9750"),
            ("https://desk.example:8443", "localhost:9750"),
            ("https://desk.example.evil", "localhost:9750"),
            ("http://grid.example", "localhost:9750"),
            ("null", "localhost:9750"),
            ("", "localhost:9750"),
            ("file://", "localhost:9750"),
            ("ftp://localhost:9750", "localhost:9750"),
            ("localhost:9750", "localhost:9750"),
            ("http://localhost:9750/", "localhost:9750"),
            ("http://u@localhost:9750", "localhost:9750"),
            ("http://", "localhost"),
            ("http://localhost:", "localhost"),
            ("\xff", "localhost"),
        ],
    )
    def test_not_welcome(self, origin: str, host: str) -> None:
        assert self.denial(origin, host) is ORIGIN

    def test_a_right_token_does_not_make_a_page_welcome(self) -> None:
        assert self.denial("http://evil.example", **bearer()) is ORIGIN

    def test_none_is_no_browser(self) -> None:
        assert LOCKED.denial(asked("/signals", upgrade="websocket")) is None

    def test_more_than_one(self) -> None:
        assert self.denial(["http://localhost:9750", "http://localhost:9750"]) is ORIGIN

    def test_without_a_host_nothing_is_the_same(self) -> None:
        request = asked("/signals", host=[], origin="http://", upgrade="websocket")
        assert LOCKED.denial(request) is ORIGIN

    @pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c, websocket"])
    def test_however_it_is_asked_for(self, upgrade: str) -> None:
        request = asked("/anything", origin="http://evil.example", upgrade=upgrade)
        assert LOCKED.denial(request) is ORIGIN

    def test_does_not_matter_for_pages(self) -> None:
        """Browsers do not let other sites read them."""
        assert LOCKED.denial(asked(origin="http://evil.example")) is None


class TestPublishing:
    def test_with_the_token(self) -> None:
        assert LOCKED.may_publish(asked(**bearer())) is True

    def test_not_without_it(self) -> None:
        assert LOCKED.may_publish(asked()) is False

    @pytest.mark.parametrize("token", WRONG)
    def test_not_with_a_wrong_one(self, token: str) -> None:
        assert LOCKED.may_publish(asked(**bearer(token))) is False

    def test_not_unless_the_relay_is_told_so(self) -> None:
        assert Access((), SECRET, publish=False).may_publish(asked(**bearer())) is False


@pytest.mark.parametrize(
    ("denial", "status", "reason", "way_out"),
    [
        (HOST, 403, Refusal.HOST, "--web-origin"),
        (ORIGIN, 403, Refusal.ORIGIN, "--web-origin"),
        (NO_TOKEN, 403, Refusal.TOKEN, "--web-token-file"),
        (TOKEN, 401, Refusal.TOKEN, "Authorization: Bearer TOKEN"),
    ],
)
def test_denials_say_what_to_do(denial: Denial, status: int, reason: str, way_out: str) -> None:
    assert (denial.status, denial.reason) == (status, reason)
    assert way_out in denial.text
    assert "\n" not in denial.text


class TestTokenOfARule:
    RULED = Access(ORIGINS, SECRET, True, RULES)
    ALONE = Access((), None, False, RULES)

    @pytest.mark.parametrize("access", [RULED, ALONE])
    def test_opens_signals_and_nothing_else(self, access: Access) -> None:
        token = bearer(RULE_TOKEN)
        assert access.denial(asked("/signals", ABROAD, **token)) is None
        for path in ("/metrics", "/api/status", "/signal", "/signals2"):
            assert access.denial(asked(path, ABROAD, **token)) is WRONG_TOKEN
            assert access.denial(asked(path, ABROAD)) is TOKEN

    def test_is_no_wrong_one_where_none_is_needed(self) -> None:
        for path in ("/", "/api/status", "/signals"):
            assert self.RULED.denial(asked(path, **bearer(RULE_TOKEN))) is None
            assert self.RULED.denial(asked(path, **bearer("a-wrong-one_of-16"))) is WRONG_TOKEN

    def test_is_one_to_publish_with(self) -> None:
        assert self.RULED.may_publish(asked(**bearer(RULE_TOKEN)))
        assert self.RULED.may_publish(asked(**bearer()))
        assert not self.RULED.may_publish(asked(**bearer("a-wrong-one_of-16")))
        assert not self.RULED.may_publish(asked())
        assert not self.ALONE.may_publish(asked(**bearer(RULE_TOKEN)))

    def test_two_of_different_ones_are_wrong(self) -> None:
        both = {**bearer(), "sec_websocket_protocol": f"bearer.{RULE_TOKEN}"}
        assert self.RULED.denial(asked("/signals", **both)) is WRONG_TOKEN

    def test_the_other_one_opens_all(self) -> None:
        assert self.RULED.denial(asked("/metrics", ABROAD, **bearer())) is None

    def test_rules_without_tokens_know_none(self) -> None:
        access = Access((), None, False, AccessRules((Rule("users"),)))
        assert access.denial(asked("/signals", ABROAD)) is NO_TOKEN

    def test_other_rules(self) -> None:
        access = Access((), None, False, RULES)
        access.change((), None, False)
        assert access.denial(asked("/signals", **bearer(RULE_TOKEN))) is NO_TOKEN
