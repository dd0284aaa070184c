"""The relay's status document, as it is fetched over HTTP.

Knows the document's keys and how to tell that something else answers; how it is shown, it does
not.
"""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from alphapulse_relay.cli.words import Failure, printable

PATH = "/api/status"
TIMEOUT = 5.0
"""Seconds until a side port that does not answer counts as missing."""
SIZE_LIMIT = 64 * 1024 * 1024
"""Bytes of an answer that are read: 10,000 peers take 4 MiB."""


@dataclass(frozen=True)
class Party:
    """Who is, or was, at the other end of a connection."""

    number: int
    pid: int | None
    uid: int | None
    name: str
    messages_in: int
    messages_out: int

    @staticmethod
    def fields(entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return what these fields are in an entry of the document."""
        return {
            "number": int(entry["number"]),
            "pid": entry["pid"],
            "uid": entry["uid"],
            "name": printable(str(entry["name"] or entry["address"] or entry["transport"])),
            "messages_in": int(entry["messages_in"]),
            "messages_out": int(entry["messages_out"]),
        }


@dataclass(frozen=True)
class Peer(Party):
    """A connected peer."""

    state: str
    bytes_behind: int

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """Read an entry of ``peers``."""
        fields = cls.fields(entry)
        return cls(
            **fields, state=printable(entry["state"]), bytes_behind=int(entry["bytes_behind"])
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
        return cls(**fields, reason=printable(entry["reason"]), at=float(entry["at"]))


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
    peers: tuple[Peer, ...]
    departed: tuple[Departed, ...]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read the document."""
        counters = document["counters"]
        return cls(
            version=printable(document["version"]),
            pid=int(document["pid"]),
            started_at=float(document["started_at"]),
            uptime=float(document["uptime_seconds"]),
            ready=bool(document["ready"]),
            held=int(document["held"]),
            messages_in=int(counters["messages_received"]),
            messages_out=int(counters["messages_delivered"]),
            dropped=_nonzero(counters["dropped"]),
            missed=_nonzero(counters["missed"]),
            peers=tuple(map(Peer.read, document["peers"])),
            departed=tuple(map(Departed.read, document["departed"])),
        )


def _nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    return {printable(reason): int(number) for reason, number in counts.items() if number}


def status_url(text: str) -> str:
    """Return the document's URL; the path may be left out. Raises ``ValueError``."""
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not a URL such as http://127.0.0.1:9750")
    _ = parts.port  # raises
    return parts._replace(path=PATH if parts.path in {"", "/"} else parts.path).geturl()


def fetch(url: str) -> dict[str, Any]:
    """Return the document; raises :class:`Failure` with what to do if there is none."""
    # The relay is near: a proxy from the environment would not find it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT) as answer:
            text = answer.read(SIZE_LIMIT)
    except urllib.error.HTTPError as error:
        with error:
            raise Failure(f"{url} answers {error.code} {error.reason}: see --url") from None
    except (OSError, http.client.HTTPException) as error:
        raise Failure(
            f"no answer from {url}: {_reason(error)}: is the relay running, and its side port "
            "where --url says (twistd -n signal-relay --web)?"
        ) from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _not_a_status(url) from None
    if not isinstance(document, dict):
        raise _not_a_status(url)
    return document


def look(url: str) -> Snapshot:
    """Return what the document says; raises :class:`Failure`."""
    document = fetch(url)
    try:
        return Snapshot.read(document)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _not_a_status(url) from None


def _not_a_status(url: str) -> Failure:
    return Failure(f"{url} answers, but not with a relay's status: see --url")


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"nothing for {TIMEOUT:.0f} s"
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__
