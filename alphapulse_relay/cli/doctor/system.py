"""What Linux tells of processes, sockets, locks and file systems (proc(5)).

Knows the files below ``/proc``; nothing of a relay. All raise ``OSError`` where there is no such
file, or this user may not read it.
"""

import grp
import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
UNLIMITED = 1 << 62
"""More than any limit."""
_ACCEPTS = 1 << 16
"""``SO_ACCEPTCON`` among a socket's flags in ``/proc/net/unix``."""
_OCTAL = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}
"""How ``mountinfo`` writes what would end a field."""


@dataclass(frozen=True)
class Mount:
    """A file system and where it is mounted."""

    point: Path
    kind: str


def listening_inodes(path: str) -> list[int]:
    """Return the inodes of the Unix sockets that listen at a path (``@name`` if abstract)."""
    found = []
    for line in (PROC / "net/unix").read_text("utf-8", "surrogateescape").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & _ACCEPTS and _is_same(fields[7], path):
            found.append(int(fields[6]))
    return found


def _is_same(bound: str, path: str) -> bool:
    """Tell whether a path that was bound is this one, be it by another directory's name."""
    if bound == path:
        return True
    if bound.startswith("@") or Path(bound).name != Path(path).name:
        return False
    with suppress(OSError, ValueError):
        return Path(bound).samefile(path)
    return False


def holders(inode: int) -> list[int]:
    """Return which processes have a socket open, as far as this user may look, highest first."""
    wanted = f"socket:[{inode}]"
    return sorted((pid for pid in _processes() if wanted in _open_files(pid)), reverse=True)


def _processes() -> Iterator[int]:
    return (int(each.name) for each in PROC.iterdir() if each.name.isdecimal())


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for number in os.listdir(PROC / str(pid) / "fd"):
            with suppress(OSError):
                yield os.readlink(PROC / str(pid) / "fd" / number)


def lock_holder(path: Path) -> int | None:
    """Return which process has taken the flock(2) of a file; None if none has."""
    status = path.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    for line in (PROC / "locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5] == f"{device}:{status.st_ino}":
            return int(fields[4])
    return None


def is_alive(pid: int) -> bool:
    """Tell whether there is such a process."""
    return (PROC / str(pid)).exists()


def is_stopped(pid: int) -> bool:
    """Tell whether a process was stopped, by SIGSTOP or a debugger, and waits to be continued."""
    return _line_of(pid, "status", "State:").split()[1] in {"T", "t"}


def owner_of(pid: int) -> int:
    """Return the user that a process runs as.

    The directory's own owner is root where a process has changed its user.
    """
    return int(_line_of(pid, "status", "Uid:").split()[2])


def command_of(pid: int) -> list[str]:
    """Return the words that a process was started with."""
    words = (PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    return [os.fsdecode(word) for word in words]


def commands() -> Iterator[tuple[int, list[str]]]:
    """Yield all processes, with the words that they were started with, as far as may be seen."""
    for pid in _processes():
        with suppress(OSError):
            yield pid, command_of(pid)


def open_files_limits(pid: int) -> tuple[int, int]:
    """Return how many files a process may have open, and how many it may allow itself."""
    soft, hard = _line_of(pid, "limits", "Max open files").split()[3:5]
    return _limit(soft), _limit(hard)


def _line_of(pid: int, name: str, beginning: str) -> str:
    path = PROC / str(pid) / name
    for line in path.read_text().splitlines():
        if line.startswith(beginning):
            return line
    raise OSError(f"{path} does not tell: {beginning}")


def _limit(text: str) -> int:
    return UNLIMITED if text == "unlimited" else int(text)


def kernel_number(name: str) -> int:
    """Return a kernel parameter, such as ``net.core.somaxconn`` (sysctl(8))."""
    return int((PROC / "sys" / name.replace(".", "/")).read_text())


def mount_of(path: Path) -> Mount:
    """Return the file system that a path is on."""
    path, best = path.resolve(), None
    for line in (PROC / "self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split()
        point = fields[4]
        for code, char in _OCTAL.items():
            point = point.replace(code, char)
        deeper = best is None or len(Path(point).parts) >= len(best.point.parts)
        if deeper and path.is_relative_to(point):  # a later one is mounted over an earlier one
            best = Mount(Path(point), fields[fields.index("-") + 1])
    if best is None:
        raise OSError(f"no file system is mounted at {path}")
    return best


def groups_of(uid: int) -> set[int]:
    """Return the groups of a user as it logs in; none of one that is not known here."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return set()
    return set(os.getgrouplist(user.pw_name, user.pw_gid))


def user_name(uid: int) -> str:
    """Return a user's name, or number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return a group's name, or number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
