"""The relay's status document, as it is fetched over HTTP.

Knows the document's keys and how to tell that something else answers; how it is shown, it does
not.
"""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import click

from alphapulse_relay.cli.deadline import opener
from alphapulse_relay.cli.words import Failure, printable

DEFAULT_URL = "http://127.0.0.1:9750"
PATH = "/api/status"
TIMEOUT = 5.0
"""Seconds until a side port that has not answered, all of it, counts as missing."""
LARGEST = 1 << 64
"""More than any count of a relay's; of such numbers a board can still be made."""
LATEST = 1e11
"""Seconds since the epoch that a calendar still has: in the year 5138."""
SIZE_LIMIT = 64 * 1024 * 1024
"""Bytes of an answer that are read: 10,000 peers take 4 MiB."""


class Silence(Failure):
    """Somebody is there, and does not answer in time."""


_IN_PATH = "/%!$&'()*+,;=:@"
_IN_QUERY = f"{_IN_PATH}?"


@dataclass(frozen=True)
class Party:
    """Who is, or was, at the other end of a connection.

    ``certificate`` has the names in it, and is empty without one.
    """

    number: int
    pid: int | None
    uid: int | None
    name: str
    certificate: str
    messages_in: int
    messages_out: int

    @staticmethod
    def fields(entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return what these fields are in an entry of the document."""
        return {
            "number": _count(entry["number"]),
            "pid": _id(entry["pid"]),
            "uid": _id(entry["uid"]),
            "name": printable(_name(entry)),
            "certificate": printable(", ".join(entry.get("certificate") or ())),
            "messages_in": _count(entry["messages_in"]),
            "messages_out": _count(entry["messages_out"]),
        }


@dataclass(frozen=True)
class Peer(Party):
    """A connected peer; while ``replaying`` it is sent what others have had.

    ``rule`` is the access rule that let it in; empty without rules.
    """

    rule: str
    state: str
    replaying: bool
    bytes_behind: int

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """Read an entry of ``peers``."""
        fields = cls.fields(entry)
        return cls(
            **fields,
            rule=printable(entry.get("rule") or ""),
            state=printable(entry["state"]),
            replaying=bool(entry["replaying"]),
            bytes_behind=_count(entry["bytes_behind"]),
        )


@dataclass(frozen=True)
class Departed(Party):
    """A connection that ended; ``at`` is in seconds since the epoch."""

    reason: str
    at: float

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """Read an entry of ``departed``."""
        fields = cls.fields(entry)
        return cls(**fields, reason=printable(entry["reason"]), at=_seconds(entry["at"]))


@dataclass(frozen=True)
class Journal:
    """Where the relay keeps its log, in ``used`` bytes of ``size``; ``failure`` may be empty.

    ``kept`` bytes of messages are in it.
    """

    directory: str
    used: int
    size: int
    kept: int
    damages: int
    failure: str

    @classmethod
    def read(cls, entry: Mapping[str, Any] | None, log: Mapping[str, Any]) -> Self | None:
        """Read ``journal``, if there is one, and ``log``."""
        if entry is None:
            return None
        return cls(
            printable(entry["directory"]),
            used=_count(entry["bytes"]),
            size=_count(entry["size"]),
            kept=_count(log["head"]) - _count(log["tail"]),
            damages=_count(entry["damages"]),
            failure=printable(entry["failure"] or ""),
        )


@dataclass(frozen=True)
class Snapshot:
    """What the relay says of itself at one moment; ``uptime`` is in seconds."""

    version: str
    pid: int
    started_at: float
    uptime: float
    ready: bool
    held: int
    messages_in: int
    messages_out: int
    dropped: dict[str, int]
    missed: dict[str, int]
    refused: dict[str, int]
    journal: Journal | None
    peers: tuple[Peer, ...]
    departed: tuple[Departed, ...]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read the document."""
        counters = document["counters"]
        return cls(
            version=printable(document["version"]),
            pid=_count(document["pid"]),
            started_at=_seconds(document["started_at"]),
            uptime=_seconds(document["uptime_seconds"]),
            ready=bool(document["ready"]),
            held=_count(document["held"]),
            messages_in=_count(counters["messages_received"]),
            messages_out=_count(counters["messages_delivered"]),
            dropped=_nonzero(counters["dropped"]),
            missed=_nonzero(counters["missed"]),
            refused=_nonzero(counters["connections"]["refused"]),
            journal=Journal.read(document["journal"], document["log"]),
            peers=tuple(map(Peer.read, document["peers"])),
            departed=tuple(map(Departed.read, document["departed"])),
        )


def _name(entry: Mapping[str, Any]) -> str:
    """Return what it calls itself, what its program is called, or where it came from."""
    named = entry.get("client_name") or entry["name"]
    return str(named or entry["address"] or entry["transport"])


def _nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    return {printable(reason): _count(number) for reason, number in counts.items() if number}


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError("not a count")
    return value


def _id(value: object) -> int | None:
    return None if value is None else _count(value)


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= LATEST:
        raise ValueError("not a time in seconds")
    return float(value)


def url_option(
    purpose: str, default: str | None = DEFAULT_URL
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the option that names the relay's side port, as the address of its status."""
    return click.option(
        "--url",
        "-u",
        default=default,
        envvar="SIGNAL_RELAY_URL",
        show_default=True,
        show_envvar=True,
        callback=lambda _ctx, _param, text: None if text is None else _given_url(text),
        help=purpose,
    )


def _given_url(text: str) -> str:
    try:
        return status_url(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from None


def status_url(text: str) -> str:
    """Return the document's URL; ``http://`` and path may be left out. Raises ``ValueError``."""
    parts = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not a URL such as http://127.0.0.1:9750")
    _ = parts.port  # raises
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise ValueError(f"{parts.hostname!r} cannot be the name of a host") from None
    path = PATH if parts.path in {"", "/"} else urllib.parse.quote(parts.path, _IN_PATH)
    return parts._replace(path=path, query=urllib.parse.quote(parts.query, _IN_QUERY)).geturl()


def fetch(url: str, token: str | None = None) -> dict[str, Any]:
    """Return the document; raises :class:`Failure` with what to do if there is none."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 (status_url looked)
        # The relay is near: a proxy from the environment would not find it.
        with opener(TIMEOUT).open(request) as answer:
            text = answer.read(SIZE_LIMIT)
    except urllib.error.HTTPError as error:
        see = "--token-file" if error.code == http.client.UNAUTHORIZED else "--url"
        with error:
            raise Failure(f"{url} answers {error.code} {error.reason}: see {see}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # ValueError: where a redirection leads to need not be a URL.
        reason = _reason_of(error)
        kind = Silence if isinstance(reason, TimeoutError) else Failure
        raise kind(
            f"no answer from {url}: {_text_of(reason)}: is the relay running, and its side port "
            "where --url says (twistd -n signal-relay --web)?"
        ) from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise not_a_status(url) from None
    if not isinstance(document, dict):
        raise not_a_status(url)
    return document


def look(url: str, token: str | None = None) -> Snapshot:
    """Return what the document says; raises :class:`Failure`."""
    document = fetch(url, token)
    try:
        return Snapshot.read(document)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise not_a_status(url) from None


def not_a_status(url: str) -> Failure:
    """Return how to tell that something else answers."""
    return Failure(f"{url} answers, but not with a relay's status: see --url")


def _reason_of(error: Exception) -> object:
    return error.reason if isinstance(error, urllib.error.URLError) else error


def _text_of(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return f"not all of it within {TIMEOUT:.0f} s"
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
