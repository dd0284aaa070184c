"""The side port: what an address asks of ``/signals``, and which headers let it in.

What must hold:

- A query is understood, and then it can be said on the wire, or refused with a QueryError of one
  line.
- Whether a request is let in is decided, whatever is in its headers. :func:`check_decision` says by
  other means what must have been there for that: who is let in from elsewhere has the token; a
  page that gets a WebSocket comes from an origin that is allowed, or from the host that it asks.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.address import IPv4Address
from twisted.web.http_headers import Headers

from alphapulse_relay.hub.permission import AccessRules, Rule
from alphapulse_relay.protocol_v2.control import build_control, parse_control
from alphapulse_relay.web import access, query
from alphapulse_relay.web.access import PUBLIC, Access
from alphapulse_relay.web.query import QueryError, parse_query
from fuzz.choices import Choices

MODULES = (access, query)
MAX_LEN = 200
COMPARISONS = True
SECRET = "correct-horse.battery_staple~1"  # noqa: S105
ORIGINS = ("https://desk.example", "http://grid.example:8080")
RULES_SECRET = "another-horse.battery_staple~2"  # noqa: S105
_RULES = AccessRules((Rule("desk", token=RULES_SECRET),))
ACCESSES = (
    Access((), None, publish=False),
    Access(ORIGINS, SECRET, publish=True),
    Access(ORIGINS, None, publish=True, rules=_RULES),
    Access(ORIGINS, SECRET, publish=True, rules=_RULES),
)
ADDRESSES = (IPv4Address("TCP", "127.0.0.1", 9750), IPv4Address("TCP", "192.0.2.1", 9750))
NAMES = (b"host", b"origin", b"authorization", b"sec-websocket-protocol", b"upgrade")
PATHS = (b"", b"page", b"signals", b"metrics", b"api")
HEADERS_MAX = 6
_ASKED, _LET_IN = 0, 1
WORDS = (
    *query._READERS,
    *query._WISHES,
    *("binary", "json", "skip", "wait", "=", "&", "%C3%BC", "2026-05-04T12:30:00Z", "7:216680"),
    *("localhost", "127.0.0.1", "[::1]", "null", "://", "Bearer ", "bearer.", "websocket"),
    *(SECRET, RULES_SECRET, *ORIGINS, "desk.example", "grid.example:8080"),
)


def run(data: bytes) -> None:
    """Parse a query, or decide on a request; see above."""
    choices = Choices(data)
    if choices.byte() % 2 == _ASKED:
        check_query(choices.rest().decode("latin-1"))
    else:
        check_decision(choices)


def seeds() -> Iterator[bytes]:
    """Yield what to begin with: queries, and requests of each kind."""
    for text in (
        *("", "types=21,22&sources=0,255", "last=100&name=b%C3%BCro+2", "format=json&sample=10"),
        *("since=1795398161.25", "since=2026-05-04T12:30:00Z", "since=1970-01-01T01:00:00%2B01:00"),
        *("position=7:216680&behind=wait", "wishes=positions,heartbeats,acknowledge,stop-at-head"),
    ):
        yield bytes([_ASKED]) + text.encode()
    host = [(0, b"localhost:9750")]
    websocket = [(4, b"websocket")]
    for headers in (
        host,
        [*host, *websocket, (1, b"http://localhost:9750")],
        [*host, *websocket, (1, b"https://desk.example")],
        [*host, *websocket, (1, b"https://desk.example.evil")],
        [(0, b"[::1]:9750"), *websocket, (1, b"http://[::1]:9750")],
        [(0, b"desk.example"), (2, b"Bearer " + SECRET.encode())],
        [(2, b"Bearer " + RULES_SECRET.encode()), *websocket],
        [(3, b"chat, bearer." + SECRET.encode()), *websocket],
        [(0, b"evil.example"), (2, b"Basic abc")],
    ):
        said = b"".join(bytes([name, len(value)]) + value for name, value in headers)
        for local, situation, path in product(range(2), range(len(ACCESSES)), range(len(PATHS))):
            yield bytes([_LET_IN, local, situation, path]) + said


def check_query(text: str) -> None:
    """Parse a query, and say on the wire what it asks for."""
    try:
        parameters = parse_qs(text, keep_blank_values=True)
    except ValueError:  # too many of them
        return
    try:
        asked = parse_query(parameters).asked
    except QueryError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return
    assert parse_control(build_control(asked, timestamp=1)) == asked


class Request:
    """As much of a request as decisions are made by."""

    def __init__(self, choices: Choices) -> None:
        self.local, self.situation = choices.byte() % 2 == 0, choices.byte() % len(ACCESSES)
        self.postpath = [PATHS[choices.byte() % len(PATHS)]]
        self.requestHeaders = Headers()
        self.given: dict[bytes, list[str]] = {name: [] for name in NAMES}
        while choices and sum(map(len, self.given.values())) < HEADERS_MAX:
            name = NAMES[choices.byte() % len(NAMES)]
            # What a parser of HTTP lets through has no line ends, and no blanks around it.
            value = b" ".join(choices.take(choices.byte()).splitlines()).strip()
            self.requestHeaders.addRawHeader(name, value)
            self.given[name].append(value.decode("latin-1"))

    def getHost(self) -> IPv4Address:
        """Return where it came to."""
        return ADDRESSES[0 if self.local else 1]

    def has_token_for(self, path: bytes) -> bool:
        """Tell whether a token is somewhere in it that is enough for a path."""
        enough = {SECRET} if self.situation in {1, 3} else set()
        if self.situation in {2, 3} and path == b"signals":
            enough.add(RULES_SECRET)
        said = " ".join(value for values in self.given.values() for value in values)
        return any(secret in said for secret in enough)

    @property
    def is_welcome(self) -> bool:
        """Whether its origin is allowed, or that of the host that it asks for, or there is none."""
        origins, hosts = self.given[b"origin"], self.given[b"host"]
        if not origins:
            return True
        origin = origins[0].lower()
        own = {self._with_port(f"{scheme}://{host.lower()}") for scheme in ("http", "https")
               for host in hosts}  # fmt: skip
        allowed = ORIGINS if self.situation else ()
        return len(origins) == 1 and (origin in allowed or self._with_port(origin) in own)

    @staticmethod
    def _with_port(origin: str) -> tuple[str, str, int]:
        scheme, _, host = origin.partition("://")
        name, colon, port = host.rpartition(":")
        if not colon or host.endswith("]"):
            return scheme, host, {"http": 80, "https": 443}.get(scheme, 0)
        return scheme, name, int(port) if port.isascii() and port.isdigit() else -1


def check_decision(choices: Choices) -> None:
    """Decide on a request."""
    made: Any = Request(choices)
    one = ACCESSES[made.situation]
    denial, may_publish = one.denial(made), one.may_publish(made)
    assert not may_publish or made.has_token_for(b"signals")
    if denial is not None:
        return
    path = made.postpath[0]
    assert made.local or path in PUBLIC or made.has_token_for(path)
    if any("websocket" in value.lower() for value in made.given[b"upgrade"]):
        assert made.is_welcome, made.given
