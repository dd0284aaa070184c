"""The query of ``/signals``: what a WebSocket asks for, in words that fit an address.

Knows words and their meaning; neither requests nor the hub. Parameters and their defaults stand in
``docs/browser.md``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from alphapulse_relay.protocol_v2.control import LIST_MAX, NAME_MAX, Start, Subscribe, Wish

SAMPLE_MAX = 1000
"""Most messages in a sample: ten times a second, far more than anybody reads."""
_NS = 1_000_000_000
_U64 = (1 << 64) - 1
_WISHES = {
    "positions": Wish.POSITIONS,
    "stop-at-head": Wish.STOP_AT_HEAD,
    "heartbeats": Wish.HEARTBEATS,
    "acknowledge": Wish.ACKNOWLEDGE,
}
_STARTS = ("last", "since", "position")


class Format(StrEnum):
    """What the frames are that a WebSocket is sent."""

    BINARY = "binary"
    """Whole messages as they were published."""
    JSON = "json"
    """Texts, each an array of decoded messages."""


@dataclass(frozen=True)
class Query:
    """What is asked for; ``sample`` is how many messages at a time, at most, 0 for all."""

    asked: Subscribe
    format: Format
    sample: int


class QueryError(ValueError):
    """A query that is not understood; ``str()`` is one line that names the parameter."""


def parse_query(parameters: Mapping[str, list[str]]) -> Query:
    """Return what the parameters, each with all its values, ask for.

    Raises :class:`QueryError` for the first that is wrong, unknown, or there twice.
    """
    values = {}
    for name, texts in parameters.items():
        if name not in _READERS:
            raise QueryError(f"{name!r} is not known, but {', '.join(_READERS)}")
        if len(texts) > 1:
            raise QueryError(f"{name} is given {len(texts)} times")
        try:
            values[name] = _READERS[name](texts[0])
        except ValueError as error:
            raise QueryError(f"{name}={texts[0]!r} is not {error}") from None
    return _query(values)


def _query(values: dict[str, Any]) -> Query:
    starts = [name for name in _STARTS if name in values]
    if len(starts) > 1:
        raise QueryError(f"{' and '.join(starts)} are given: a subscription begins in one place")
    start = values[starts[0]] if starts else {}
    subscribe = Subscribe(
        wishes=values.get("wishes", Wish(0)) | values.get("behind", Wish.SKIP_WHEN_BEHIND),
        types=values.get("types", frozenset()),
        sources=values.get("sources", frozenset()),
        name=values.get("name", ""),
        **start,
    )
    return Query(subscribe, values.get("format", Format.BINARY), values.get("sample", 0))


def _numbers(most: int) -> Callable[[str], frozenset[int]]:
    def read(text: str) -> frozenset[int]:
        words = text.split(",")
        if not all(re.fullmatch("[0-9]{1,3}", word) and int(word) <= most for word in words):
            raise ValueError(f"numbers from 0 to {most}, separated by commas")
        numbers = frozenset(map(int, words))
        if len(numbers) > LIST_MAX:
            raise ValueError(f"{LIST_MAX} numbers at most: leave it out for all")
        return numbers

    return read


def _name(text: str) -> str:
    if not text or not text.isprintable() or len(text.encode()) > NAME_MAX:
        raise ValueError(f"a printable name of at most {NAME_MAX} bytes")
    return text


def _wishes(text: str) -> Wish:
    wishes = Wish(0)
    for word in text.split(","):
        if word not in _WISHES:
            raise ValueError(f"among {', '.join(_WISHES)}")
        wishes |= _WISHES[word]
    return wishes


def _behind(text: str) -> Wish:
    if text not in ("skip", "wait"):
        raise ValueError("skip or wait")
    return Wish.SKIP_WHEN_BEHIND if text == "skip" else Wish(0)


def _format(text: str) -> Format:
    if text not in list(Format):
        raise ValueError(" or ".join(Format))
    return Format(text)


def _sample(text: str) -> int:
    return _count(text, SAMPLE_MAX)


def _last(text: str) -> dict[str, object]:
    return {"start": Start.LAST, "start_value": _count(text, 10**15)}


def _count(text: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,16}", text) or not 1 <= int(text) <= most:
        raise ValueError(f"a whole number from 1 to {most}")
    return int(text)


def _since(text: str) -> dict[str, object]:
    match = re.fullmatch(r"([0-9]{1,11})(?:\.([0-9]{1,9})[0-9]*)?", text)
    if match is not None:
        moment = int(match[1]) * _NS + int((match[2] or "").ljust(9, "0"))
    else:
        moment = _moment(text)
    return {"start": Start.TIME, "start_value": min(max(moment, 0), _U64)}


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        raise ValueError("unix seconds, or a time such as 2026-05-04T12:30:00Z") from None


def _position(text: str) -> dict[str, object]:
    match = re.fullmatch("([0-9]{1,20}):([0-9]{1,20})", text)
    if match is None or max(int(match[1]), int(match[2])) > _U64:
        raise ValueError("an epoch and a position, as 5210932210387215873:216680")
    return {"start": Start.POSITION, "start_value": int(match[2]), "epoch": int(match[1])}


_READERS: dict[str, Callable[[str], Any]] = {
    "types": _numbers(254),
    "sources": _numbers(255),
    "last": _last,
    "since": _since,
    "position": _position,
    "name": _name,
    "format": _format,
    "behind": _behind,
    "wishes": _wishes,
    "sample": _sample,
}
