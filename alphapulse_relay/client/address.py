"""Where a relay is, as a text says it. Knows no socket.

``unix:PATH``, or just the path, where ``@NAME`` is an abstract name (unix(7)); ``tcp:HOST:PORT``;
or ``tls:HOST:PORT``, with ``:ca=FILE``, ``:cert=FILE``, ``:key=FILE`` and ``:name=NAME`` as needed.
A colon or backslash in a part has a backslash before it; an IPv6 address may stand in brackets
instead.
"""

import os
import re
from dataclasses import dataclass

SCHEMES = ("unix:", "tcp:", "tls:")
"""What a text begins with that is more than a path."""
_PART = r"(?:\\.|[^:\\])"
_HOST = rf"\[[0-9A-Fa-f:.]+\]|(?!\[){_PART}+"
_PLACE = re.compile(rf"(tcp|tls):({_HOST}):([0-9]{{1,5}})((?::{_PART}*)*)")
_OPTION = re.compile(rf":({_PART}*)")
_OPTIONS = ("ca", "cert", "key", "name")


@dataclass(frozen=True)
class UnixAddress:
    """A Unix socket. The ``path`` of an abstract name has a null before it, for the kernel."""

    path: str


@dataclass(frozen=True)
class TCPAddress:
    """A port that does not encrypt."""

    host: str
    port: int


@dataclass(frozen=True)
class TLSAddress:
    """A port that encrypts.

    ``ca`` is the file of the authorities that its certificate must be of, None for those that the
    system trusts, and ``name`` the one that must be in it. ``cert`` is the file of this end's own
    certificate, ``key`` that of its key, if it is asked for one.
    """

    host: str
    port: int
    name: str
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


Place = UnixAddress | TCPAddress | TLSAddress
Address = str | os.PathLike[str] | tuple[str, int]
"""An address as a program may give it: a text, a Unix socket's path, or host and port."""


def parse_address(address: Address) -> Place:
    """Return where that is. Raises ``ValueError`` if a text is wrong."""
    if isinstance(address, tuple):
        return TCPAddress(*address)
    if not isinstance(address, str):
        return UnixAddress(os.fspath(address))
    if not address.startswith(("tcp:", "tls:")):
        path = address.removeprefix("unix:")
        return UnixAddress(f"\0{path[1:]}" if path.startswith("@") else path)
    match = _PLACE.fullmatch(address)
    if match is None or not 0 < int(match[3]) < 1 << 16:
        raise ValueError(f"{address!r} is not such as tcp:HOST:PORT or tls:HOST:PORT:ca=FILE")
    host, port = _host(match[2].strip("[]")), int(match[3])
    if match[1] == "tls":
        return _tls_address(host, port, _OPTION.findall(match[4]))
    if match[4]:
        raise ValueError(f"{address!r}: nothing may follow the port of a tcp: address")
    return TCPAddress(host, port)


def _tls_address(host: str, port: int, parts: list[str]) -> TLSAddress:
    found: dict[str, str] = {}
    for part in parts:
        option, _, value = part.partition("=")
        if option not in _OPTIONS or option in found or not value:
            raise ValueError(
                f"{part!r} cannot be in a tls: address: there may be one each of ca=, cert=, key= "
                "and name="
            )
        found[option] = _host(value) if option == "name" else _unescaped(value)
    if ("cert" in found) != ("key" in found):
        raise ValueError("cert= and key= go together in a tls: address")
    return TLSAddress(host, port, **{"name": host} | found)


def _host(part: str) -> str:
    """Return the name of a host, or its address."""
    name = _unescaped(part)
    try:
        name.encode("idna")  # as those do who look it up, or for it in a certificate
    except UnicodeError as error:
        raise ValueError(f"{name!r} is not the name of a host") from error
    return name


def _unescaped(part: str) -> str:
    return re.sub(r"\\(.)", r"\1", part)
