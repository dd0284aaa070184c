"""Listening sockets that the process was given: by systemd, or by the relay it takes over from.

Whoever would bind the address of one takes it instead. Knows where they come from and how an
address is compared; who listens on them, it does not.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from twisted.logger import Logger

FIRST_DESCRIPTOR = 3
"""The first descriptor that systemd passes in (``SD_LISTEN_FDS_START``, sd_listen_fds(3))."""
FAMILIES = frozenset({socket.AF_UNIX, socket.AF_INET, socket.AF_INET6})

_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_log = Logger()


@dataclass(frozen=True)
class Passed:
    """A listening socket. ``lock`` and ``file`` are the descriptors of a path that a relay holds.

    They are those of :class:`unix_socket.SocketPath`, None if the path is another's, as systemd's.
    """

    socket: socket.socket
    lock: int | None = None
    file: int | None = None

    @property
    def address(self) -> str:
        """The address for a person."""
        address = self.socket.getsockname()
        if self.socket.family == socket.AF_UNIX:
            return os.fsdecode(address).replace("\0", "@")
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def parts(self) -> Iterator[tuple[str, int]]:
        """Yield its descriptors, each with what it is: the socket comes first."""
        yield "socket", self.socket.fileno()
        if self.lock is not None:
            yield "lock", self.lock
        if self.file is not None:
            yield "file", self.file

    def close(self) -> None:
        """Close the socket here; who else has it can go on with it."""
        self.socket.close()
        for descriptor in (self.lock, self.file):
            if descriptor is not None:
                os.close(descriptor)


class PassedSockets:
    """Those that nobody has taken yet."""

    def __init__(self, sockets: Iterable[Passed] = ()) -> None:
        self._left: list[Passed] = []
        self.add(sockets)

    def add(self, sockets: Iterable[Passed]) -> None:
        """Take more in. One that is there already, by whatever way it came, is closed."""
        for new in sockets:
            if any(_same(new, known) for known in self._left):
                new.close()
            else:
                self._left.append(new)

    def has_unix(self, path: str) -> bool:
        """Tell whether :meth:`take_unix` would return one."""
        return any(self._of_path(path))

    def take_unix(self, path: str) -> Passed | None:
        """Return the socket of that path, or abstract name with a null before it, if it is here."""
        return self._take(self._of_path(path))

    def take_tcp(self, interface: str, port: int) -> Passed | None:
        """Return the socket of that port, on an interface as ``IReactorTCP`` has it."""
        wanted = (_host(interface or "0.0.0.0"), port)  # noqa: S104 - as it says
        return self._take(
            each
            for each in self._left
            if each.socket.family != socket.AF_UNIX
            and (_host(each.socket.getsockname()[0]), each.socket.getsockname()[1]) == wanted
        )

    def take_descriptor(self, descriptor: int) -> Passed | None:
        """Return the socket of that number, if it is here."""
        return self._take(each for each in self._left if each.socket.fileno() == descriptor)

    def rest(self) -> list[Passed]:
        """Return those that nobody has taken; they are the caller's."""
        left, self._left = self._left, []
        return left

    def _of_path(self, path: str) -> Iterator[Passed]:
        wanted = _resolved(path)
        for each in self._left:
            if each.socket.family == socket.AF_UNIX:
                name = os.fsdecode(each.socket.getsockname())
                if _resolved(name) == wanted:
                    yield each

    def _take(self, found: Iterable[Passed]) -> Passed | None:
        taken = next(iter(found), None)
        if taken is not None:
            self._left.remove(taken)
        return taken


def environment() -> dict[str, str]:
    """Return the environment that the process was started with, and unset systemd's variables.

    They may be gone from ``os.environ``: Twisted's endpoints take them when they are imported.
    """
    for name in _VARIABLES:
        os.environ.pop(name, None)
    entries = Path("/proc/self/environ").read_bytes().split(b"\0")  # proc(5)
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if entry)
    return {name: value for name, _, value in pairs}


def from_systemd(environ: Mapping[str, str]) -> list[Passed]:
    """Return what systemd passed to this process, as an environment tells (sd_listen_fds(3)).

    What is not a listening stream socket is left alone, with a warning.
    """
    pid, number = environ.get("LISTEN_PID"), environ.get("LISTEN_FDS", "")
    if pid != str(os.getpid()) or not re.fullmatch("[0-9]{1,10}", number):
        return []
    found = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(number)):
        try:
            found.append(Passed(listening_socket(descriptor)))
        except ValueError:
            _log.warn(
                "descriptor {descriptor}, which systemd passed in, is no listening stream socket",
                descriptor=descriptor,
            )
        except OSError:
            break  # there are no more
    return found


def from_parts(parts: Iterable[tuple[str, int]]) -> list[Passed]:
    """Return the sockets that :meth:`Passed.parts` gave these for, with other numbers.

    Raises ``ValueError`` or ``OSError`` if they do not fit.
    """
    found = list[Passed]()
    try:
        for name, descriptor in parts:
            if name == "socket":
                found.append(Passed(listening_socket(descriptor)))
            elif name in ("lock", "file") and found:
                found[-1] = replace(found[-1], **{name: descriptor})  # type: ignore[arg-type]
            else:
                raise ValueError(f"{name!r} is not known")
    except BaseException:
        for passed in found:
            passed.socket.detach()  # the caller has all descriptors, and closes them
        raise
    return found


def listening_socket(descriptor: int) -> socket.socket:
    """Return a descriptor as a socket that does not block and that children do not get.

    Raises ``ValueError`` if it is no listening stream socket, ``OSError`` if there is none such.
    """
    os.fstat(descriptor)
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        raise ValueError(descriptor) from None
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if found.family not in FAMILIES or found.type != socket.SOCK_STREAM or not listens:
        found.detach()
        raise ValueError(descriptor)
    found.setblocking(False)
    found.set_inheritable(False)
    return found


def _same(one: Passed, other: Passed) -> bool:
    return os.path.samestat(os.fstat(one.socket.fileno()), os.fstat(other.socket.fileno()))


def _resolved(path: str) -> str:
    """Return a path by which two can be compared; the last part may not be a link."""
    if path.startswith("\0"):
        return path
    directory, name = os.path.split(path)
    return os.path.join(os.path.realpath(directory), name)


def _host(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host's address as it can be compared; None for a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
