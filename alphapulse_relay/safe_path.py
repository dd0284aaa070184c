"""Where a socket, or a journal, may lie: in a path that nobody else can lead elsewhere.

Looks at directories, and makes them. Who holds what is in them it does not know.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SUN_PATH_MAX = 107
"""Longest path in bytes: 108 in ``struct sockaddr_un``, less the null at its end (unix(7))."""
DIRECTORY_MODE = 0o755
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Fault(NamedTuple):
    """What is wrong with a directory, and how to mend it: for a person, without an end."""

    what: str
    mend: str


def faults(
    directory: Path, user: int, *, option: str = "--socket", private: bool = False
) -> Iterator[Fault]:
    """Yield by what others than root and that user could put another file in place of one there.

    Whoever may write to a directory on the way may rename the next one and put another in its
    place; so the same holds for all of them, those that links lead through included. The directory
    itself may not be a link, or people would believe it to be where it is not. The nearest comes
    first; what is missing is not wrong. A ``private`` one may not be sticky either: others could
    make files there before us. ``option`` is what names it. Raises ``OSError`` for what may not be
    looked at.
    """
    if directory.is_symlink():
        what = f"the directory {directory} is a symbolic link"
        yield Fault(what, f"give the path it leads to, {directory.resolve()}")
    elif directory.exists() and not directory.is_dir():
        yield Fault(f"{directory} is not a directory", f"choose another {option}")
    else:
        for place in _way_to(directory.absolute()):
            sticky = not private or place != directory.absolute()
            yield from _faults_of(place, user, option, may_be_sticky=sticky)


def _way_to(directory: Path) -> list[Path]:
    """Return all that is looked up on the way to a directory, links and what they lead through."""
    found: dict[Path, None] = {}
    left = [directory]
    while left:
        path = left.pop()
        for each in (path, *path.parents):
            if each not in found:
                found[each] = None
                if each.is_symlink():
                    left.append(each.parent / each.readlink())
    return list(found)


def _faults_of(place: Path, user: int, option: str, *, may_be_sticky: bool) -> Iterator[Fault]:
    try:
        status = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if status.st_uid not in (0, user):
        what = f"{place} belongs to another user (uid {status.st_uid})"
        yield Fault(what, f"choose another {option}, or chown it")
    mode = status.st_mode
    is_fit = may_be_sticky and mode & stat.S_ISVTX
    if stat.S_ISDIR(mode) and mode & _OTHERS_WRITE and not is_fit:
        what = f"others can write to the directory {place}"
        yield Fault(what, f"run chmod go-w on it, or choose another {option}")


def make_directory(directory: Path, mode: int = DIRECTORY_MODE) -> None:
    """Make a directory and its parents, if missing, with the same modes whatever the umask.

    Raises ``OSError``.
    """
    umask = os.umask(_OTHERS_WRITE)
    try:
        for each in reversed((directory, *directory.parents)):
            if not os.path.lexists(each):
                each.mkdir(mode if each == directory else DIRECTORY_MODE, exist_ok=True)
    finally:
        os.umask(umask)


def is_writable(directory: Path) -> bool:
    """Tell whether we can write to a directory, or make it where there is none yet."""
    return os.access(existing(directory), os.W_OK | os.X_OK, effective_ids=True)


def existing(path: Path) -> Path:
    """Return a path, or where it is missing what is there of its parents."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path
