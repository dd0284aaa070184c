"""Which of a directory's files is in memory, and how to have it read from the disk again."""

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_FAILED = ctypes.c_void_p(-1).value
"""What mmap(2) returns for an error."""


def write_back(directory: Path) -> None:
    """Have all that was written to the files on the disk. Raises ``OSError``."""
    for descriptor, _ in _opened(directory):
        os.fdatasync(descriptor)


def drop(directory: Path) -> float:
    """Have the files leave memory; return which part of their bytes did.

    A page that a process has mapped stays (posix_fadvise(2)). Raises ``OSError``.
    """
    total = resident = 0
    for descriptor, size in _opened(directory):
        os.fdatasync(descriptor)  # what is not on the disk yet stays, too
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        total += size
        resident += _resident(descriptor, size)
    return 1 - resident / total if total else 0.0


def _opened(directory: Path) -> Iterator[tuple[int, int]]:
    """Yield descriptor and size of each file that is not empty, open for a turn of the loop."""
    for path in sorted(directory.iterdir()):
        with path.open("rb") as file:
            if size := os.fstat(file.fileno()).st_size:
                yield file.fileno(), size


def _resident(descriptor: int, size: int) -> int:
    """Return how many bytes of a file are in memory (mincore(2)). Raises ``OSError``."""
    # Python's own mmap gives the address of a mapping only if it is writable.
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    try:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        if _libc.mincore(address, size, pages):
            raise OSError(ctypes.get_errno(), "mincore")
    finally:
        _libc.munmap(address, size)
    return min(sum(page & 1 for page in pages) * mmap.PAGESIZE, size)
