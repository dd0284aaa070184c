"""A segment's two files as memory, whole even where they are not.

Knows how large the files are made; nothing of what is wrong with their content.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from alphapulse_relay.journal.format import (
    FILE_MODE,
    PAGE,
    FormatError,
    Header,
    data_path,
    index_path,
    index_size,
)
from alphapulse_relay.small_files import open_regular


@dataclass(frozen=True)
class Maps:
    """The two files of a slot. The ``short`` ones, by name, go on with zeros."""

    data: mmap.mmap
    index: mmap.mmap
    short: list[str]

    def close(self) -> None:
        """Give the memory back."""
        self.data.close()
        self.index.close()


def map_slot(directory: Path, slot: int, *, writable: bool) -> Maps:
    """Map the files of a slot.

    Writable, they are shared with whoever has them mapped, and a file that is missing or too short
    is made whole with zeros. Otherwise nothing that is written there reaches the files. Raises
    ``OSError`` and :class:`FormatError`.
    """
    data, index = data_path(directory, slot), index_path(directory, slot)
    data_bytes, index_bytes = _size(data), _size(index)
    header = _header(index)
    full_data = header.size + PAGE if header else _whole_pages(data_bytes)
    full_index = max(_whole_pages(index_bytes), index_size(full_data))
    is_short = {data.name: data_bytes < full_data, index.name: index_bytes < full_index}
    open_map = _map_writable if writable else _map_private
    short = [name for name, is_it in is_short.items() if is_it]
    return Maps(open_map(data, full_data), open_map(index, full_index), short)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _whole_pages(size: int) -> int:
    return max(-(-size // PAGE), 1) * PAGE


def _header(path: Path) -> Header | None:
    try:
        with open(path, "rb", opener=open_regular) as file:
            return Header.unpack(file.read(PAGE))
    except FileNotFoundError:
        return None
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def _map_writable(path: Path, size: int) -> mmap.mmap:
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    try:
        present = os.fstat(descriptor).st_size
        if present < size:
            os.posix_fallocate(descriptor, present, size - present)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _map_private(path: Path, size: int) -> mmap.mmap:
    if _size(path) >= size:
        with open(path, "rb", opener=open_regular) as file:
            return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    memory = mmap.mmap(-1, size)
    if path.exists():
        with open(path, "rb", opener=open_regular) as file:
            memory.write(file.read(size))
    return memory
