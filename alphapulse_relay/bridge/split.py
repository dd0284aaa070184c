"""Runs by type: so that a far relay pulls only what it wants, and has it in its relay's order.

A message with TLVs of several types is in the part of each. Behind a part's messages stands where
they were in the run: pairs of u32 (little-endian), how many messages to leave out, how many follow.
"""

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from alphapulse_relay.protocol_v2 import tlv
from alphapulse_relay.protocol_v2.errors import WireError
from alphapulse_relay.protocol_v2.framing import message_size, split
from alphapulse_relay.protocol_v2.header import HEADER_SIZE, Header
from alphapulse_relay.protocol_v2.selection import Selector, count, select

UNTYPED = 256
"""Stands for no type: of messages without a TLV that can be read."""
_PAIR = struct.Struct("<II")
_EVERY = frozenset(range(UNTYPED))
_ALL = Selector()


class OrderError(ValueError):
    """What stands behind a part's messages is not their order."""


class Part(NamedTuple):
    """The messages of a run that have a type, and ``order`` pairs that tell where they were."""

    type: int
    payload: bytes
    order: int


def parts_of(run: bytes) -> list[Part]:
    """Return a run's parts by type, in ascending order."""
    return [_part(run, type_) for type_ in types_of(run)]


def types_of(run: bytes) -> list[int]:
    """Return all types of a run's messages; UNTYPED last, if any message has none."""
    left = _EVERY
    while (found := select(run, _selector(left))).matched:
        left -= _types(run, found.ranges[0][0])
    typed = select(run, _selector(_EVERY))
    return [*sorted(_EVERY - left), *([UNTYPED] if typed.matched < typed.total else [])]


def _types(run: bytes, start: int) -> frozenset[int]:
    """Return the types of the message there, as far as its TLVs can be read."""
    header, types = Header.unpack(run, start), set()
    walk = tlv.legacy_spans if header.legacy else tlv.spans
    try:
        for span in walk(run, start + HEADER_SIZE, start + header.message_size):
            types.add(span.type)
    except WireError:
        pass
    return frozenset(types)


def _part(run: bytes, type_: int) -> Part:
    ranges = list(_ranges(run, type_))
    messages = b"".join([run[start:stop] for _, start, stop in ranges])
    pairs = [_PAIR.pack(skipped, count(run[start:stop], _ALL)) for skipped, start, stop in ranges]
    return Part(type_, messages + b"".join(pairs), len(pairs))


def _ranges(run: bytes, type_: int) -> Iterator[tuple[int, int, int]]:
    """Yield how many messages come before a stretch of those of a type, and where it lies."""
    if type_ != UNTYPED:
        found = select(run, _selector(frozenset({type_})))
        yield from ((s, *each) for s, each in zip(found.skipped, found.ranges, strict=True))
        return
    typed, end, since = select(run, _selector(_EVERY)), 0, 0
    for start, stop in [*typed.ranges, (len(run), len(run))]:
        if start > end:
            yield since, end, start
            since = 0
        since += count(run[start:stop], _ALL)
        end = stop


@lru_cache(maxsize=512)
def _selector(types: frozenset[int]) -> Selector:
    return Selector(types=types)


def merge(parts: Iterable[Part]) -> bytes:
    """Return the messages of parts of one run, each once, in its order.

    Raises :class:`OrderError`. What :func:`messages_of` returns must be whole messages.
    """
    messages: dict[int, bytes] = {}
    for part in parts:
        messages.update(_placed(part))
    return b"".join([messages[place] for place in sorted(messages)])


def messages_of(part: Part) -> bytes:
    """Return the messages of a part. Raises :class:`OrderError`."""
    size = len(part.payload) - part.order * _PAIR.size
    if size < 0:
        raise OrderError(f"{part.order} pairs do not fit into {len(part.payload)} bytes")
    return part.payload[:size]


def _placed(part: Part) -> Iterator[tuple[int, bytes]]:
    """Yield each message, and which of the run it was."""
    data = messages_of(part)
    messages, place = split(data), 0
    for skipped, number in _PAIR.iter_unpack(part.payload[len(data) :]):
        place += skipped
        for _ in range(number):
            message = next(messages, None)
            if message is None or message_size(message) != len(message):
                raise OrderError("its order has more messages than it has")
            yield place, message
            place += 1
    if next(messages, None) is not None:
        raise OrderError("its order has fewer messages than it has")
