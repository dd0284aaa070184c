"""Which messages of a damaged stretch of bytes are still good.

Knows the wire; nothing of records, positions or files. Bytes that are damaged are never mended: a
message is good if its own checksum fits, or it is lost.
"""

import struct
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from alphapulse_relay.protocol_v2.header import HEADER_SIZE, MAGIC, MAGIC_BYTES, checksum

VAIN_MAX = 64 * 1024 * 1024
"""Bytes that may be checked in vain while looking for where messages go on: payloads can be made of
nothing but beginnings of messages."""

_FIELDS = struct.Struct("<I20xII")
"""magic, payload_size, checksum."""


class Verdict(Enum):
    """What can be told of the bytes where a message should begin."""

    GOOD = auto()
    """Its checksum fits."""
    UNCHECKED = auto()
    """It has none."""
    FALSE = auto()
    """Its checksum does not fit."""
    UNFRAMED = auto()
    """No message begins here that ends in time."""


class Salvage(NamedTuple):
    """What is left of a stretch: ``good`` messages; the ``holes`` are offsets, sorted, disjoint."""

    good: int
    holes: list[tuple[int, int]]


def judge(data: bytes | memoryview, start: int, limit: int) -> tuple[Verdict, int]:
    """Look at the message at ``start``, which must end at or before ``limit``; tell its end."""
    if limit - start < HEADER_SIZE:
        return Verdict.UNFRAMED, start
    magic, size, crc = _FIELDS.unpack_from(data, start)
    stop = start + HEADER_SIZE + size
    if magic != MAGIC or stop > limit:
        return Verdict.UNFRAMED, start
    if not crc:
        return Verdict.UNCHECKED, stop
    fits = checksum(data[start:stop]) == crc
    return (Verdict.GOOD if fits else Verdict.FALSE), stop


def count_whole(data: bytes | memoryview, start: int, stop: int) -> int | None:
    """Count the messages in ``data[start:stop]``.

    None unless they are whole, end to end, and every checksum that is set fits.
    """
    messages = 0
    while start < stop:
        verdict, start = judge(data, start, stop)
        if verdict in {Verdict.FALSE, Verdict.UNFRAMED}:
            return None
        messages += 1
    return messages


def salvage(run: bytes) -> Salvage:
    """Find the messages of a damaged run that are good for certain: their own checksum fits.

    Where framing is broken, it goes on at the next message whose checksum fits. Where all are good
    none is: they are not those that were there.
    """
    holes: list[tuple[int, int]] = []
    view, vain = memoryview(run), VAIN_MAX
    start = hole = good = 0
    while start < len(run):
        verdict, stop = judge(view, start, len(run))
        if verdict is Verdict.GOOD:
            if hole < start:
                holes.append((hole, start))
            good += 1
            start = hole = stop
        else:
            start, vain = _next(run, start, vain)
    if hole < len(run):
        holes.append((hole, len(run)))
    if run and not holes:
        return Salvage(0, [(0, len(run))])
    return Salvage(good, holes)


def _next(run: bytes, start: int, vain: int) -> tuple[int, int]:
    """Return where to go on behind the lost message at ``start``, and what is left of ``vain``.

    By its size, as it is or with one bit of it wrong, if a message follows there: a message in the
    payload of the lost one is none of the stream's.
    """
    for stop in _possible_ends(run, start):
        if stop == len(run) or judge(run, stop, len(run))[0] is not Verdict.UNFRAMED:
            return stop, vain
    return _search(run, start + 1, vain)


def _possible_ends(run: bytes, start: int) -> Iterator[int]:
    if len(run) - start < HEADER_SIZE:
        return
    _, size, _ = _FIELDS.unpack_from(run, start)
    for change in (0, *(1 << bit for bit in range(32))):
        stop = start + HEADER_SIZE + (size ^ change)
        if stop <= len(run):
            yield stop


def _search(run: bytes, start: int, vain: int) -> tuple[int, int]:
    """Return the next place where a message with a fitting checksum begins, or the run's end."""
    view = memoryview(run)
    while (start := run.find(MAGIC_BYTES, start)) >= 0 and vain > 0:
        verdict, stop = judge(view, start, len(run))
        if verdict is Verdict.GOOD:
            return start, vain
        vain -= stop - start
        start += 1
    return len(run), vain
