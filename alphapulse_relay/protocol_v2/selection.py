"""Which messages of a run match: by the types of their TLVs, their source and their sequence.

A run is whole messages end to end, as the log holds them; it ends where no whole message begins.
Everything here is one pass over it, compiled where it can be.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from alphapulse_relay.protocol_v2 import tlv
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import message_size
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, MAGIC_BYTES, Header
from alphapulse_relay.protocol_v2.native import load

SEQUENCE_LIMIT = 1 << 64
"""Sequences are below this: the header has eight bytes for them."""

_scan = load("alphapulse_relay.protocol_v2._scan")


@dataclass(frozen=True)
class Selector:
    """What is looked for; made once, used for many runs.

    A message matches if one of its TLVs has one of the ``types`` (where they are malformed: one of
    those before that), its publisher is one of the ``sources``, and its sequence is in
    ``sequences``, a range of step 1 (``ValueError`` for another). No types are any, and so are no
    sources and no range.
    """

    types: frozenset[int] = frozenset()
    sources: frozenset[int] = frozenset()
    sequences: range | None = None

    def __post_init__(self) -> None:
        if self.sequences is not None and self.sequences.step != 1:
            raise ValueError(f"a step of {self.sequences.step}: sequences are a range of step 1")

    @cached_property
    def compiled(self) -> Any:
        """What the compiled functions want; None without them."""
        if _scan is None:
            return None
        sources = bytes(not self.sources or number in self.sources for number in range(256))
        types = bytes(number in self.types for number in range(256)) if self.types else None
        first, stop = 0, SEQUENCE_LIMIT
        if self.sequences is not None:
            first = max(self.sequences.start, 0)
            stop = min(self.sequences.stop, SEQUENCE_LIMIT)
        if first >= stop:
            return _scan.CompiledSelector(types, bytes(256), 0, 0)
        return _scan.CompiledSelector(types, sources, first, stop - 1 - first)


class Selection(NamedTuple):
    """The messages of a run that match.

    ``ranges`` are the offsets where they begin and end, those that follow each other directly as
    one. ``skipped`` tells for each range how many messages lie between it and the one before, or
    the run's start. ``matched`` of ``total`` messages match.
    """

    ranges: list[tuple[int, int]]
    skipped: list[int]
    matched: int
    total: int


def select(run: bytes | memoryview, selector: Selector) -> Selection:
    """Find the messages that match."""
    if _scan is not None:
        return Selection(*_scan.select(run, selector.compiled))
    ranges: list[tuple[int, int]] = []
    skipped: list[int] = []
    matched = total = since = 0
    for start, stop in _messages(run):
        total += 1
        if not _matches(run, start, selector):
            since += 1
            continue
        matched += 1
        if ranges and not since:
            ranges[-1] = ranges[-1][0], stop
        else:
            ranges.append((start, stop))
            skipped.append(since)
        since = 0
    return Selection(ranges, skipped, matched, total)


def count(run: bytes | memoryview, selector: Selector) -> int:
    """Return how many messages match."""
    if _scan is not None:
        return int(_scan.count(run, selector.compiled))
    return sum(_matches(run, start, selector) for start, _ in _messages(run))


def walk(run: bytes | memoryview, target: int) -> tuple[int, int]:
    """Return where the message begins that offset ``target`` is in, and how many are before it.

    One that begins at the target is that message.
    """
    if _scan is not None:
        found: tuple[int, int] = _scan.walk(run, target)
        return found
    start = count = 0
    for _, stop in _messages(run):
        if stop > target:
            break
        start, count = stop, count + 1
    return start, count


def last_sequences(run: bytes | memoryview) -> dict[int, tuple[int, int]]:
    """Return for each source the sequence of its last message, and the offset behind that."""
    if _scan is not None:
        last: dict[int, tuple[int, int]] = _scan.last_sequences(run)
        return last
    found = {}
    for start, stop in _messages(run):
        header = Header.unpack(run, start)
        found[header.publisher] = header.sequence, stop
    return found


def _messages(run: bytes | memoryview) -> Iterator[tuple[int, int]]:
    """Yield where each whole message begins and ends."""
    view, start = memoryview(run), 0
    while len(view) - start >= HEADER_SIZE and view[start : start + 4] == MAGIC_BYTES:
        stop = start + message_size(view[start : start + HEADER_SIZE])
        if stop > len(view):
            return
        yield start, stop
        start = stop


def _matches(run: bytes | memoryview, start: int, selector: Selector) -> bool:
    header = Header.unpack(run, start)
    if selector.sources and header.publisher not in selector.sources:
        return False
    if selector.sequences is not None and header.sequence not in selector.sequences:
        return False
    if not selector.types:
        return True
    walk = tlv.legacy_spans if header.legacy else tlv.spans
    try:
        spans = walk(run, start + HEADER_SIZE, start + header.message_size)
        return any(span.type in selector.types for span in spans)
    except WireError:
        return False
