"""Files that others name, or may have put there: opened only if they are files, and read in bounds.

A named pipe would be waited for, and a device has no end (fifo(7), zero(4)). What the files hold is
not known here.
"""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple


class SmallFile(NamedTuple):
    """What a file holds, and its permissions."""

    content: bytes
    mode: int

    @property
    def is_open_to_others(self) -> bool:
        """Whether more than its owner and group may read or write it."""
        return bool(self.mode & (stat.S_IROTH | stat.S_IWOTH))


def open_regular(path: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """Open a file without waiting, as ``opener`` of :func:`open` does; ``flags`` as of open(2).

    Raises ``OSError``, also for what is no regular file.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))


def read_small(path: Path, most: int) -> SmallFile:
    """Read a file of at most so many bytes. Raises ``OSError``, also for one that has more."""
    with open(path, "rb", opener=open_regular) as file:
        mode, content = os.fstat(file.fileno()).st_mode, file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"More than {most} bytes", os.fspath(path))
    return SmallFile(content, stat.S_IMODE(mode))
