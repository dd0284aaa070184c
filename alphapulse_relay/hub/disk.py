"""The journal's system calls: slots of two mapped files each, made, touched, read and synced.

What makes, clears, loads or syncs a slot may wait for the disk, so that is for a thread. What is in
the files it does not know, but for what tells a used slot from a spare one.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alphapulse_relay.journal.format import (
    FILE_MODE,
    MAGIC,
    PAGE,
    data_path,
    index_path,
    make_file,
    sync_directory,
)
from alphapulse_relay.small_files import open_regular

TOUCH_SIZE = 16 << 20
"""Bytes touched at once, some milliseconds' work. For each such piece the thread must wait its turn
for Python once, which where the relay is busy takes as long."""
TOUCHED_INDEX = 2 << 20
"""Bytes of an index that are touched: enough where messages come many at a time. Where small ones
come one by one, the pages behind it are touched one by one, each for 85 of them."""
_POPULATE_READ, _POPULATE_WRITE = 22, 23
"""madvise(2), since Linux 5.14."""
_ZERO_RANGE = 0x10
"""fallocate(2), on ext4, XFS and others."""
_MS_SYNC = 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


class Span(NamedTuple):
    """From where to where the two files of a slot were written, each in bytes."""

    begin: tuple[int, int]
    end: tuple[int, int]


@dataclass(eq=False)
class Slot:
    """Two mapped files that hold a segment, or are spare.

    They are open until it is closed, or nobody has it any more.
    """

    number: int
    data: mmap.mmap
    index: mmap.mmap
    descriptors: tuple[int, int]
    """Of the messages' file and the index's."""
    removed: bool = False
    """Whether its files were removed, as nobody wants them."""

    def __post_init__(self) -> None:
        self._close = weakref.finalize(self, _close_all, self.descriptors)

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return len(self.data) + len(self.index)

    def close(self) -> None:
        """Close the files; the memory goes when nobody looks at it any more."""
        self._close()


class Disk:
    """The files of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def make(self, number: int, data_size: int, index_size: int) -> Slot:
        """Make a spare slot whose room is taken on the disk. Raises ``OSError``."""
        paths = data_path(self.directory, number), index_path(self.directory, number)
        # Whoever opens the journal would take half a slot for a damaged one.
        new = [path.with_name(f"{path.name}.new") for path in paths]
        try:
            data = self._make_file(new[0], data_size)
            try:
                index = self._make_file(new[1], index_size)
            except OSError:
                os.close(data)
                raise
            slot = self.map(number, data, index)
            self._touch_pages(slot)
        except OSError:
            for path in new:
                path.unlink(missing_ok=True)
            raise
        for made, path in zip(new, paths, strict=True):
            made.replace(path)
        sync_directory(self.directory)
        return slot

    def is_free(self, number: int) -> bool:
        """Tell whether there are no files of that number yet."""
        paths = data_path(self.directory, number), index_path(self.directory, number)
        return not any(path.exists() for path in paths)

    def map(self, number: int, data: int, index: int) -> Slot:
        """Map two open files. Raises ``OSError``."""
        return Slot(number, mmap.mmap(data, 0), mmap.mmap(index, 0), (data, index))

    def open(self, number: int) -> Slot:
        """Open and map the files of a slot that is there. Raises ``OSError``."""
        flags = os.O_RDWR | os.O_NOFOLLOW
        data = open_regular(data_path(self.directory, number), flags)
        index = open_regular(index_path(self.directory, number), flags)
        return self.map(number, data, index)

    def clear(self, slot: Slot) -> None:
        """Make a used slot a spare one, its messages' file all zeros, and both so on the disk.

        What the file held would be taken for what is written next, where of that a page does not
        reach the disk. Raises ``OSError``.
        """
        trailer = len(slot.data) - PAGE
        self._populate(slot.index, 0, _POPULATE_WRITE, PAGE)
        self._populate(slot.data, trailer, _POPULATE_WRITE, PAGE)
        slot.index[: len(MAGIC)] = bytes(len(MAGIC))
        slot.data[trailer : trailer + len(MAGIC)] = bytes(len(MAGIC))
        self._sync_part(slot.index, 0, PAGE)
        self._sync_part(slot.data, trailer, len(slot.data))
        self._zero(slot.descriptors[0], len(slot.data))
        self._touch_pages(slot)

    def _zero(self, descriptor: int, size: int) -> None:
        """Have zeros in the place of a file's bytes, on the disk too."""
        # Where the file system can, it only takes note of it: nothing is read or written.
        if _libc.fallocate(descriptor, _ZERO_RANGE, 0, size):
            zeros, start = bytes(TOUCH_SIZE), 0
            while start < size:
                start += os.pwrite(descriptor, memoryview(zeros)[: size - start], start)
        os.fsync(descriptor)

    def _touch_pages(self, slot: Slot) -> None:
        """Have all pages mapped for writing, so that no append waits for one."""
        for start in range(0, len(slot.data), TOUCH_SIZE):
            self._populate(slot.data, start, _POPULATE_WRITE)
        self._populate(slot.index, 0, _POPULATE_WRITE, TOUCHED_INDEX)

    def load(self, slot: Slot, start: int, stop: int) -> None:
        """Read bytes of the messages' file into memory. Raises ``OSError``."""
        for piece in range(start - start % PAGE, stop, TOUCH_SIZE):
            length = min(TOUCH_SIZE, stop - piece)
            os.posix_fadvise(slot.descriptors[0], piece, length, os.POSIX_FADV_WILLNEED)
            self._populate(slot.data, piece, _POPULATE_READ, length)

    def resident(self, slot: Slot, start: int, stop: int) -> bool:
        """Tell whether bytes of the messages' file are in memory (mincore(2))."""
        start -= start % PAGE
        vector = (ctypes.c_ubyte * ((stop - start + PAGE - 1) // PAGE))()
        if _libc.mincore(_address(slot.data) + start, stop - start, vector):
            return True  # cannot be told: nothing would be gained by asking again
        return all(page & 1 for page in vector)

    def unmap(self, slot: Slot) -> None:
        """Take the pages of the messages out of the mapping; who looks at them gets them back.

        To be done before what is not written any more is synced: else each page is taken out for
        writing on its own, for which the processor that the relay runs on is interrupted.
        """
        _libc.madvise(_address(slot.data), len(slot.data), mmap.MADV_DONTNEED)

    def sync(self, slot: Slot, span: Span | None = None) -> None:
        """Have what was written on the disk: the messages, then the index. Raises ``OSError``.

        With a ``span`` no more than that: the rest has been touched and would be written too. On
        Linux fdatasync(2) also writes what was written through a mapping.
        """
        if any(os.fstat(each).st_nlink == 0 for each in slot.descriptors) and not slot.removed:
            raise OSError(errno.ENOENT, "somebody has removed its files")
        if span is None:
            for descriptor in slot.descriptors:
                os.fdatasync(descriptor)
            return
        if not any(span.begin):
            self._sync_part(slot.data, len(slot.data) - PAGE, len(slot.data))
        for memory, start, stop in zip((slot.data, slot.index), span.begin, span.end, strict=True):
            self._sync_part(memory, start, stop)

    def release(self, slot: Slot) -> None:
        """Let go of a slot's messages in memory, as far as they are on the disk."""
        self.unmap(slot)
        os.posix_fadvise(slot.descriptors[0], 0, 0, os.POSIX_FADV_DONTNEED)

    def remove(self, slot: Slot) -> None:
        """Remove a slot's files; their room is free when nobody has it any more."""
        slot.removed = True
        for path in (index_path, data_path):
            with suppress(FileNotFoundError):
                path(self.directory, slot.number).unlink()

    def lock(self, path: Path) -> int | None:
        """Take the exclusive lock of a file, and keep it; None if another process has it.

        Raises ``OSError`` if the file cannot be had.
        """
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor

    def _make_file(self, path: Path, size: int) -> int:
        descriptor = make_file(path)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _sync_part(self, memory: mmap.mmap, start: int, stop: int) -> None:
        """Have some of a mapping on the disk (msync(2))."""
        start -= start % PAGE
        if stop > start and _libc.msync(_address(memory) + start, stop - start, _MS_SYNC):
            failure = ctypes.get_errno()
            raise OSError(failure, os.strerror(failure))

    def _populate(
        self, memory: mmap.mmap, start: int, advice: int, length: int = TOUCH_SIZE
    ) -> None:
        """Map pages at once; without the system's help they are when they are touched."""
        length = min(length, len(memory) - start)
        # A call by ctypes does not hold up the other threads.
        if _libc.madvise(_address(memory) + start, length, advice):
            failure = ctypes.get_errno()
            if failure != errno.EINVAL:
                raise OSError(failure, os.strerror(failure))


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(memory))
