"""The records of one segment's index: followed from the first on, found and written.

Knows what a record is; nothing of the messages that it covers.
"""

import struct
import sys
import zlib
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

from alphapulse_relay.journal.format import (
    PAGE,
    RECORD_SIZE,
    Header,
    Record,
    index_capacity,
)

BLOCK = 1024
"""Records that are looked at in one go; in a block with a fault each one is."""
_POSITION = struct.Struct("<Q40x")
_LENGTH = struct.Struct("<I")
_LENGTH_OFFSET = 32
_U64_PER_RECORD, _U32_PER_RECORD = RECORD_SIZE // 8, RECORD_SIZE // 4


class Index:
    """The records in an index file's bytes. ``limit`` is a position that none of them passes."""

    def __init__(self, index: memoryview, header: Header, limit: int) -> None:
        self.capacity = index_capacity(len(index))
        self._index = index
        self._epoch = header.epoch
        self._limit = limit

    def follow(self, slot: int, position: int) -> tuple[int, int]:
        """Return the first slot from ``slot`` on without the record that is due, and its position.

        ``position`` is what is due in ``slot``.
        """
        while slot < self.capacity:
            count = min(BLOCK, self.capacity - slot)
            stop = self._follow_block(slot, count, position)
            if stop is None:
                return self._follow_each(slot, position)
            slot, position = slot + count, stop
        return slot, position

    def record(self, slot: int) -> Record | None:
        """Return the whole record in a slot, if there is one."""
        record = Record.unpack(self._index, slot, self._epoch)
        return record if record is not None and record.stop <= self._limit else None

    def spans(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Yield position, length and crc of the records ``[first, last)``."""
        yield from _SPAN.iter_unpack(self._slice(first, last - first))

    def write(self, slot: int, record: Record) -> None:
        """Put a record into a slot."""
        self._slice(slot, 1)[:] = record.pack(self._epoch)

    def mended(self, slot: int, position: int) -> Record | None:
        """Return the record at ``position`` that the slot holds but for one wrong bit."""
        damaged = bytearray(self._slice(slot, 1))
        for bit in range(RECORD_SIZE * 8):
            byte, mask = bit // 8, 1 << bit % 8
            damaged[byte] ^= mask
            if zlib.crc32(damaged, self._epoch & 0xFFFFFFFF) == _RESIDUE:
                record = Record(*_FIELDS.unpack(damaged))
                if record.position == position and record.stop <= self._limit:
                    return record
            damaged[byte] ^= mask
        return None

    def later(self, slot: int, position: int) -> tuple[int, Record] | None:
        """Return the next slot behind ``slot`` with a record at ``position`` or later.

        What is left of earlier use has lower positions.
        """
        for start in range(slot + 1, self.capacity, BLOCK):
            block = self._slice(start, min(BLOCK, self.capacity - start))
            if block == _UNUSED[: len(block)]:
                continue  # as most of an index is: a start must not take long for it
            for number, found in enumerate(_positions(block), start):
                if position <= found <= self._limit:
                    record = self.record(number)
                    if record is not None:
                        return number, record
        return None

    def unknown_origins(self, records: int) -> Iterator[int]:
        """Yield which of so many records are nobody's."""
        for start in range(0, records, BLOCK):
            block = self._slice(start, min(BLOCK, records - start))
            for number, (origin,) in enumerate(_ORIGIN.iter_unpack(block), start):
                if origin == 0:
                    yield number

    def _slice(self, slot: int, count: int) -> memoryview:
        start = PAGE + slot * RECORD_SIZE
        return self._index[start : start + count * RECORD_SIZE]

    def _follow_block(self, slot: int, count: int, position: int) -> int | None:
        """Return where these records end; None if they are not all whole and due."""
        block = self._slice(slot, count)
        if zlib.crc32(block, self._epoch & 0xFFFFFFFF) != _check_of(count, self._epoch):
            return None
        stops = list(accumulate(_lengths(block), initial=position))
        if _positions(block) != stops[:-1] or stops[-1] > self._limit:
            return None
        return stops[-1]

    def _follow_each(self, slot: int, position: int) -> tuple[int, int]:
        while slot < self.capacity:
            record = self.record(slot)
            if record is None or record.position != position:
                break
            slot, position = slot + 1, record.stop
        return slot, position


@lru_cache(maxsize=8)
def _check_of(count: int, epoch: int) -> int:
    """Return the CRC-32 of any so many whole records in a row, begun as that of one record is.

    A CRC over bytes and their own CRC is the same for all bytes (the residue); so after each whole
    record the CRC of all is at a value that depends on their number only.
    """
    return zlib.crc32(Record(0, 0, 0, 0, 0, 0, 0).pack(epoch) * count, epoch & 0xFFFFFFFF)


_RESIDUE = _check_of(1, 0)
_UNUSED = bytes(BLOCK * RECORD_SIZE)
_FIELDS = struct.Struct("<QQQQIII4x")
_SPAN = struct.Struct("<Q24xI4xI4x")
_ORIGIN = struct.Struct("<16xQ24x")


def _positions(block: memoryview) -> list[int]:
    if sys.byteorder == "little":
        return block.cast("Q")[::_U64_PER_RECORD].tolist()
    return [position for (position,) in _POSITION.iter_unpack(block)]


def _lengths(block: memoryview) -> list[int]:
    if sys.byteorder == "little":
        return block.cast("I")[_LENGTH_OFFSET // 4 :: _U32_PER_RECORD].tolist()
    return [
        _LENGTH.unpack_from(block, offset)[0]
        for offset in range(_LENGTH_OFFSET, len(block), RECORD_SIZE)
    ]
