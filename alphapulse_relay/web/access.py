"""Who may ask the side port for what. Decides on a request, and does nothing.

Knows three dangers. A page of another site, open in the browser of somebody who can reach the
relay, may ask for a WebSocket: browsers send its *origin* along. It may also have its own name lead
to this machine (DNS rebinding), so that it is of the same origin, but for the *host* that it asks
for. And whoever reaches a port that is not on loopback may ask for anything: there a *token* is
needed.
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.web.http import FORBIDDEN, UNAUTHORIZED
from twisted.web.server import Request

from alphapulse_relay.hub.peer import Refusal
from alphapulse_relay.hub.permission import AccessRules

PUBLIC = {b"", b"page", b"healthz", b"readyz"}
"""First parts of the paths that need no token: they hold no secrets, or tell no more than whether
the relay is well."""
RULED = PUBLIC | {b"signals"}
"""Of those that need a token, what the token of an access rule is enough for."""
OFFERED_TOKEN = "bearer."  # noqa: S105
"""What goes before a token that is offered as a subprotocol: a page cannot send a header."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@/\[\]]+))(?::([0-9]{1,5}))?")
"""A host, an IPv6 address in brackets, and a port (RFC 9110, section 7.2)."""

NOWHERE = ("", None)
"""What is no host."""


@dataclass(frozen=True)
class Denial:
    """Why a request is refused: for HTTP, for the counters, and in words that say what to do."""

    status: int
    reason: Refusal
    text: str


HOST = Denial(
    FORBIDDEN,
    Refusal.HOST,
    "this name is not known to lead here: ask localhost, or give the relay --web-origin",
)
ORIGIN = Denial(
    FORBIDDEN,
    Refusal.ORIGIN,
    "pages of this origin may not read signals: give the relay --web-origin",
)
NO_TOKEN = Denial(
    FORBIDDEN,
    Refusal.TOKEN,
    "this relay knows no token: give it --web-token-file, or ask it by loopback and without one",
)
TOKEN = Denial(
    UNAUTHORIZED,
    Refusal.TOKEN,
    "the token of --web-token-file is needed: send it as Authorization: Bearer TOKEN",
)
WRONG_TOKEN = Denial(
    UNAUTHORIZED,
    Refusal.TOKEN,
    "the token is not the one of --web-token-file: send that as Authorization: Bearer TOKEN",
)


class Access:
    """What the options ``--web-origin``, ``--web-token-file`` and ``--web-publish`` allow.

    ``origins`` are as browsers write them; ``token`` is None if there is none. ``rules`` are those
    for access, if there are any: their tokens are known too, for signals.
    """

    def __init__(
        self,
        origins: Iterable[str],
        token: str | None,
        publish: bool,
        rules: AccessRules | None = None,
    ) -> None:
        self.change(origins, token, publish, rules)

    def change(
        self,
        origins: Iterable[str],
        token: str | None,
        publish: bool,
        rules: AccessRules | None = None,
    ) -> None:
        """Decide by these from now on."""
        self._origins = frozenset(origins)
        self._hosts = {_split(origin.partition("://")[2])[0] for origin in self._origins}
        self._token = token
        self._publish = publish
        self._rules = rules

    def denial(self, request: Request) -> Denial | None:
        """Return why a request must not be answered; None if it may be."""
        local = is_local(request.getHost())
        if local and not self._leads_here(request):
            return HOST
        if not self._has_token_needed(request, local):
            if self._token is None and not (self._rules and self._rules.have_tokens):
                return NO_TOKEN
            return WRONG_TOKEN if any(given_tokens(request)) else TOKEN
        if _wants_websocket(request) and not self._is_welcome(request):
            return ORIGIN
        return None

    def may_publish(self, request: Request) -> bool:
        """Return whether who asks may also publish, by the WebSocket that it gets."""
        tokens = given_tokens(request)
        return self._publish and (self._is_right(tokens) or self._is_of_rule(tokens))

    def _leads_here(self, request: Request) -> bool:
        """Return whether the host that is asked for is surely not another site's.

        Who names none is no browser.
        """
        hosts = _values(request, "host")
        return not hosts or (len(hosts) == 1 and self._is_own(_split(hosts[0])[0]))

    def _is_own(self, name: str) -> bool:
        return (
            name == "localhost"
            or name.endswith(".localhost")
            or name in self._hosts
            or _is_address(name)
        )

    def _has_token_needed(self, request: Request, local: bool) -> bool:
        """Return whether the token is right, or neither there nor needed."""
        tokens = given_tokens(request)
        path = request.postpath or [b""]
        if self._is_of_rule(tokens) and not self._is_right(tokens):
            return local or path[0] in RULED
        if tokens:
            return self._is_right(tokens)
        return local or path[0] in PUBLIC

    def _is_of_rule(self, tokens: list[str]) -> bool:
        """Return whether there is a token, and all are an access rule's."""
        return self._rules is not None and self._rules.know(tokens)

    def _is_right(self, tokens: list[str]) -> bool:
        """Return whether there is a token, and none is wrong."""
        if self._token is None or not tokens:
            return False
        right = self._token.encode()
        return all(hmac.compare_digest(token.encode("latin-1"), right) for token in tokens)

    def _is_welcome(self, request: Request) -> bool:
        """Return whether the page that asks comes from here, or from where pages may.

        Who names no origin is no browser.
        """
        origins = _values(request, "origin")
        return not origins or (
            len(origins) == 1
            and (origins[0].lower() in self._origins or _is_same_host(origins[0], request))
        )


def is_local(address: IAddress) -> bool:
    """Return whether only this machine can have connected to an address."""
    if isinstance(address, UNIXAddress):
        return True
    try:
        ip = ip_address(getattr(address, "host", ""))
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback


def given_tokens(request: Request) -> list[str]:
    """Return the tokens that come with a request: as a bearer's, or as a subprotocol."""
    found = []
    for value in _values(request, "authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            found.append(token.strip())
    for value in _values(request, "sec-websocket-protocol"):
        offers = [offer.strip() for offer in value.split(",")]
        found += [
            offer.removeprefix(OFFERED_TOKEN) for offer in offers if offer.startswith(OFFERED_TOKEN)
        ]
    return found


def _wants_websocket(request: Request) -> bool:
    return any("websocket" in value.lower() for value in _values(request, "upgrade"))


def _is_same_host(origin: str, request: Request) -> bool:
    """Return whether an origin has the host, and port, that the request asks for."""
    scheme, _, host = origin.lower().partition("://")
    implied = _DEFAULT_PORTS.get(scheme)
    if implied is None:
        return False
    page, here = _split(host), _split("".join(_values(request, "host")))
    return page != NOWHERE and (page[0], page[1] or implied) == (here[0], here[1] or implied)


def _split(host: str) -> tuple[str, int | None]:
    """Return a host's name, or its address without brackets, and its port if it has one."""
    match = _HOST.fullmatch(host.lower())
    if match is None:
        return NOWHERE
    return match[1] or match[2], int(match[3]) if match[3] else None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _values(request: Request, name: str) -> list[str]:
    """Return the values of a header, as text whatever they are."""
    raw = request.requestHeaders.getRawHeaders(name.encode(), [])
    return [value.decode("latin-1") for value in raw]
