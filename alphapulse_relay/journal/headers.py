"""A segment's header, of which each of its two files has a copy.

Knows where the copies are and which one counts; nothing of records and messages.
"""

from contextlib import suppress
from mmap import mmap
from pathlib import Path

from alphapulse_relay.journal.format import (
    MAGIC,
    PAGE,
    FormatError,
    Header,
    data_path,
    index_path,
)

HEADER_BYTES = 64


def data_name(slot: int) -> str:
    """Return the name of a slot's messages."""
    return data_path(Path(), slot).name


def index_name(slot: int) -> str:
    """Return the name of a slot's index."""
    return index_path(Path(), slot).name


def header_of(
    slot: int, data: memoryview | mmap, index: memoryview | mmap, size: int | None = None
) -> Header | None:
    """Return the header by either of its copies; None if there is none, or if they differ.

    Where both are damaged, by one that has a single bit wrong.
    """
    front = _unpack(index_name(slot), index, 0)
    room = front.size if front is not None else size
    if room is None or room > len(data) - PAGE:
        room = len(data) - PAGE
    back = _unpack(data_name(slot), data, room)
    copies = [copy for copy in (front, back) if copy is not None]
    if not copies and not is_spare(data, index):
        mended = (_mended_header(index, 0), _mended_header(data, room))
        copies = [copy for copy in mended if copy is not None]
    copies = [copy for copy in copies if copy.size <= len(data) - PAGE]
    # Two that differ: the files are not of one segment, and where it begins cannot be told.
    return copies[0] if len(set(copies)) == 1 else None


def _unpack(name: str, file: memoryview | mmap, offset: int) -> Header | None:
    try:
        return Header.unpack(bytes(file[offset : offset + HEADER_BYTES]))
    except FormatError as error:
        raise FormatError(f"{name}: {error}") from None


def _mended_header(file: memoryview | mmap, offset: int) -> Header | None:
    damaged = bytearray(file[offset : offset + HEADER_BYTES])
    for bit in range(HEADER_BYTES * 8):
        byte, mask = bit // 8, 1 << bit % 8
        damaged[byte] ^= mask
        with suppress(FormatError):
            header = Header.unpack(bytes(damaged))
            if header is not None:
                return header
        damaged[byte] ^= mask
    return None


def is_spare(data: memoryview | mmap, index: memoryview | mmap) -> bool:
    """Whether both copies of the header are marked as such, or were never written."""
    unused = bytes(len(MAGIC))
    trailer = len(data) - PAGE
    return index[: len(MAGIC)] == unused == data[trailer : trailer + len(MAGIC)]


def is_blank(file: memoryview | mmap | bytes) -> bool:
    """Whether nothing was ever written in a file: it is all zeros."""
    zeros = bytes(PAGE)
    return all(file[start : start + PAGE] == zeros for start in range(0, len(file), PAGE))
