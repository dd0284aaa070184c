"""The relay's socket as a file: who may hold the path, and when it is removed.

Makes the directory, keeps a second relay out, removes what a dead one left behind and, at the end,
removes the socket if it is still the relay's own. Knows nothing of connections, and does not bind:
whoever binds the path does so between :meth:`SocketPath.claim` and :meth:`SocketPath.bound`.

Two things keep a second relay out. An flock(2) on ``<path>.lock`` is held while the relay lives,
so of two that start at once one wins. And since another program takes no lock, the socket is
connected to: a live one answers or is too busy to (EAGAIN), a stale one refuses (unix(7)).

The lock file is left where it is. Removing it would let two relays in: one that has opened the
file just before locks what no longer has a name, while another locks a new file of that name.

An abstract name (unix(7)) has no file and needs no lock: the kernel lets one bind it.
"""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import Protocol, Self

from twisted.logger import Logger

from alphapulse_relay.hub.credentials import credentials_of
from alphapulse_relay.safe_path import SUN_PATH_MAX, existing, faults, is_writable, make_directory

LOCK_MODE = 0o600


class StartError(Exception):
    """Why the relay cannot start: one line for a person, and the exit status (sysexits.h).

    EX_TEMPFAIL, 75, if another relay lives on the socket: trying later may help. EX_CONFIG, 78,
    if the path cannot be used at all.
    """

    def __init__(self, message: str, status: int = os.EX_CONFIG) -> None:
        super().__init__(message)
        self.status = status


class Claim(Protocol):
    """The address of a Unix socket, held by at most one relay.

    In order: :meth:`check` where a person still sees the answer, :meth:`claim`, then bind, then
    :meth:`bound`, and :meth:`release` when the listening socket is closed. ``lock`` and ``file``
    are descriptors by which it is held, for who takes over from us. ``owned`` is whether it is
    ours: what was lent by another relay, or given to it, is let go of but not removed.
    """

    lock: int | None
    file: int | None
    owned: bool

    def check(self, *, live: bool = False) -> None:
        """Look whether :meth:`claim` would succeed, and change nothing.

        Raises :class:`StartError` as that does, except for the lock, which is not looked at. With
        ``live`` another relay may live there.
        """

    def claim(self) -> None:
        """Take the address. Raises :class:`StartError`, with 75 if another relay has it."""

    def bound(self) -> None:
        """Take note that the socket was bound."""

    def own(self, mode: int) -> None:
        """Take note that it is ours alone, and give the socket's file those permissions."""

    def release(self) -> None:
        """Give the address up. May be called again."""

    def taken(self) -> StartError:
        """Return how to tell that somebody else has bound the address."""


class AbstractName:
    """An abstract name, ``address`` with its null before it. See :class:`Claim`."""

    def __init__(self, address: str) -> None:
        self.lock: int | None = None
        self.file: int | None = None
        self.owned = True
        self._address = address
        self._shown = shown(address)

    def check(self, *, live: bool = False) -> None:
        """Raise :class:`StartError` if the name is of no use, or a relay lives there."""
        length = len(os.fsencode(self._address))
        if length > SUN_PATH_MAX:
            raise StartError(
                f"the name of the socket is too long: {self._shown} has {length} bytes, at most "
                f"{SUN_PATH_MAX} are possible; choose a shorter --socket"
            )
        if not live:
            _refuses(self._address)

    def claim(self) -> None:
        """Raise :class:`StartError` as :meth:`check`: the name is taken by binding it."""
        self.check()

    def bound(self) -> None:
        """Do nothing: the name is held for as long as the socket is open."""

    def own(self, mode: int) -> None:
        """Do nothing: there is no file."""

    def release(self) -> None:
        """Do nothing: the kernel does it."""

    def taken(self) -> StartError:
        """Return how to tell that another has the name."""
        return _live(self._shown, None)


class SocketPath:
    """The path of a Unix socket, held by at most one relay. See :class:`Claim`.

    ``guarded`` is whether a lock is to be taken: not for one beside a path whose lock is ours.
    """

    log = Logger()

    def __init__(self, path: Path, *, guarded: bool = True) -> None:
        self.path = path
        self.lock_path = path.parent / f"{path.name}.lock"
        self.lock: int | None = None
        self.file: int | None = None
        self.owned = True
        self._guarded = guarded

    @classmethod
    def lent(cls, path: Path, lock: int | None, file: int | None) -> Self:
        """Return the path that another relay holds, and has given us its descriptors of."""
        held = cls(path)
        held.lock, held.file, held.owned = lock, file, False
        return held

    def check(self, *, live: bool = False) -> None:
        """Look whether :meth:`claim` would succeed, and change nothing.

        Raises :class:`StartError` as that does, except for the lock, which is not looked at. With
        ``live`` another relay may live there.
        """
        self._check_path()
        self._check_directory()
        directory = self.path.parent
        if os.path.lexists(directory) and not live:
            self._is_stale()
        if not is_writable(directory):
            raise StartError(
                f"cannot write to the directory {existing(directory)}: let this user write there, "
                "or choose another --socket"
            )

    def claim(self) -> None:
        """Take the path: make the directory, take the lock, remove a stale socket.

        Raises :class:`StartError` with status 75 if another relay lives on the socket or is about
        to, and with 78 if the path is of no use: too long, not a socket, in a directory that
        others control, or out of reach.
        """
        self._check_path()
        self._make_directory()
        self._check_directory()
        try:
            if self._guarded:
                self._take_lock()
            if self._is_stale():
                self._remove_stale()
        except StartError:
            self._drop_lock()
            raise

    def bound(self) -> None:
        """Remember the socket that has just been bound as the one to remove at the end.

        The file is held open (O_PATH, open(2)): so nothing else can get its inode number.
        """
        self.file = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)

    def own(self, mode: int) -> None:
        """Take note that the socket is ours alone, and give it those permissions."""
        self.owned = True
        try:
            # By the descriptor: what is at the path may be another by now.
            os.chmod(f"/proc/self/fd/{self.file}", mode)
        except OSError as error:
            self.log.warn(
                "cannot change the permissions of {path}: {reason}",
                path=self.path,
                reason=error.strerror,
            )

    def release(self) -> None:
        """Remove the socket if it is still ours, and give up the lock. May be called again.

        A socket that cannot be removed is logged; the next relay removes it.
        """
        if self.file is not None:
            if self.owned:
                self._remove_own(self.file)
            os.close(self.file)
            self.file = None
        self._drop_lock()

    def taken(self) -> StartError:
        """Return how to tell that somebody else has bound the path just now."""
        return _live(os.fspath(self.path), None)

    def _check_path(self) -> None:
        if not self.path.name:
            raise StartError(f"{self.path} is a directory: choose another --socket")
        length = len(os.fsencode(self.path))
        if length > SUN_PATH_MAX:
            raise StartError(
                f"the path of the socket is too long: {self.path} has {length} bytes, at most "
                f"{SUN_PATH_MAX} are possible; choose a shorter --socket"
            )

    def _make_directory(self) -> None:
        try:
            make_directory(self.path.parent)
        except OSError as error:
            message = f"cannot make the directory {self.path.parent}: {error.strerror}"
            raise StartError(f"{message}; make it, or choose another --socket") from error

    def _check_directory(self) -> None:
        """Refuse a directory in which somebody else could put another socket in our place."""
        directory = self.path.parent
        try:
            fault = next(faults(directory, os.geteuid()), None)
        except OSError as error:
            message = f"cannot look at the directory {error.filename or directory}"
            raise StartError(f"{message}: {error.strerror}; choose another --socket") from error
        if fault is not None:
            raise StartError(f"{fault.what}: {fault.mend}")

    def _take_lock(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self.lock = os.open(self.lock_path, flags, LOCK_MODE)
            self._check_lock_file(self.lock)
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._is_stale()  # raises, with the pid, if the holder listens already
            raise self.taken() from None
        except OSError as error:
            message = f"cannot take the lock {self.lock_path}: {error.strerror}"
            raise StartError(f"{message}; remove it, or choose another --socket") from error

    def _check_lock_file(self, lock: int) -> None:
        """Refuse a lock file that somebody else could hold for ever."""
        status = os.fstat(lock)
        if status.st_uid not in (0, os.geteuid()) or not stat.S_ISREG(status.st_mode):
            message = f"the lock file {self.lock_path} is not a file of this user"
            raise StartError(f"{message}: remove it, or choose another --socket")

    def _drop_lock(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def _is_stale(self) -> bool:
        """Return whether a socket is there that nobody listens on; False if nothing is there.

        Raises :class:`StartError` if it is live, cannot be asked, or is something else.
        """
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unusable(os.fspath(self.path), error) from error
        if not stat.S_ISSOCK(mode):
            message = f"{self.path} is there and is not a socket"
            raise StartError(f"{message}: move it away, or choose another --socket")
        return _refuses(os.fspath(self.path))

    def _remove_stale(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            message = f"cannot remove the stale socket {self.path}: {error.strerror}"
            raise StartError(f"{message}; remove it, or choose another --socket") from error

    def _remove_own(self, own: int) -> None:
        try:
            if os.path.samestat(os.fstat(own), self.path.lstat()):
                self.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            self.log.warn(
                "cannot remove the socket {path}: {reason}", path=self.path, reason=error.strerror
            )


def claim_of(address: str, *, guarded: bool = True) -> Claim:
    """Return how an address is held: a path, or an abstract name with a null before it."""
    if address.startswith("\0"):
        return AbstractName(address)
    return SocketPath(Path(address), guarded=guarded)


def shown(address: str) -> str:
    """Return an address as a person writes it."""
    return address.replace("\0", "@")


def _refuses(address: str) -> bool:
    """Connect, without waiting, and tell whether nobody listens though something is there.

    Raises :class:`StartError` if somebody does, or it cannot be told.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            return True
        except FileNotFoundError:
            return False
        except BlockingIOError:
            raise _live(shown(address), None) from None
        except OSError as error:
            raise _unusable(shown(address), error) from error
        raise _live(shown(address), peer_of(probe)[0])


def _live(where: str, pid: int | None) -> StartError:
    who = f"another relay (pid {pid})" if pid else "another relay"
    message = f"{who} lives on {where}: stop it, or choose another --socket"
    return StartError(message, os.EX_TEMPFAIL)


def _unusable(where: str, error: OSError) -> StartError:
    reason = error.strerror
    if error.errno == errno.EPROTOTYPE:
        reason = "it is no stream socket"
    message = f"cannot tell whether a relay lives on {where}: {reason}"
    return StartError(f"{message}; look who holds it, or choose another --socket")


def peer_of(connection: socket.socket) -> tuple[int | None, int]:
    """Return pid and uid of who is at the other end; at a listener's, of who called listen(2).

    The pid is None where the kernel does not say: for a process of another pid namespace (0).
    """
    pid, uid, _ = credentials_of(connection)
    return pid or None, uid
