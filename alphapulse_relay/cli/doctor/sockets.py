"""The socket, its directory, who listens on it, and whether this user may connect.

Nobody is connected to: the relay would take it for a peer.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.finding import Finding, note, ok, wrong
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.words import printable

PATH_MAX = 107
"""Bytes of a socket's path (unix(7))."""
START = 'start one with "twistd -n signal-relay", or name its socket with --socket'
_MODE = 0o7777


def check_directory(subject: Subject) -> Iterator[Finding]:
    """Whether somebody else could put another socket in the relay's place."""
    if subject.is_abstract:
        return
    path = subject.settings.socket.parent
    try:
        status = path.lstat()
    except FileNotFoundError:
        yield note(f"{path} is not there: the relay makes it")
        return
    found = list(_wrong_with(path, status, subject.uid))
    yield from found
    if not found:
        owner = system.user_name(status.st_uid)
        kind = system.mount_of(path).kind
        yield ok(f"{path}: mode {status.st_mode & _MODE:o}, of {owner}, on {kind}")


def _wrong_with(path: Path, status: os.stat_result, uid: int | None) -> Iterator[Finding]:
    relay = os.geteuid() if uid is None else uid
    if stat.S_ISLNK(status.st_mode):
        yield wrong(f"{path} is a symbolic link", f"give the path it leads to, {path.resolve()}")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield wrong(f"{path} is not a directory", "choose another --socket")
        return
    if status.st_uid not in {0, relay}:
        who = f"{system.user_name(status.st_uid)}, the relay's user is {system.user_name(relay)}"
        yield wrong(f"{path} belongs to {who}", f"chown {system.user_name(relay)} {path}")
    if status.st_mode & 0o022:
        if status.st_mode & stat.S_ISVTX:
            yield note(
                f"{path}: others can take the path while no relay runs", "use one of its own"
            )
        else:
            yield wrong(
                f"{path}: others can write there, and replace the socket", f"chmod go-w {path}"
            )


def check_socket(subject: Subject) -> Iterator[Finding]:
    """Whether it is there, is a socket, and has the mode that is wanted."""
    if subject.is_abstract:
        yield ok(f"{subject.socket} is abstract: it has no file, and no permissions")
        return
    path, wanted = subject.settings.socket, subject.settings.socket_mode
    if len(os.fsencode(path)) > PATH_MAX:
        yield wrong(f"{path} is longer than {PATH_MAX} bytes", "choose a shorter --socket")
        return
    try:
        status = path.lstat()
    except FileNotFoundError:
        yield wrong(f"no relay: there is no socket {path}", START)
        return
    if not stat.S_ISSOCK(status.st_mode):
        yield wrong(f"{path} is not a socket", "move it away, or choose another --socket")
        return
    mode = stat.S_IMODE(status.st_mode)
    owners = f"{system.user_name(status.st_uid)}:{system.group_name(status.st_gid)}"
    if mode != wanted:
        mend = f"chmod {wanted:o} {path}, or tell doctor the relay's --socket-mode"
        yield note(f"{path} has mode {mode:o}, --socket-mode is {wanted:o}", mend)
    elif mode & stat.S_IWOTH:
        yield note(f"{path} has mode {mode:o}: every user of this machine may connect and publish")
    else:
        yield ok(f"{path}: mode {mode:o}, of {owners}")


def check_listener(subject: Subject) -> Iterator[Finding]:
    """Whether anybody listens, and who that is."""
    if not subject.listens:
        if subject.is_abstract:
            yield wrong(f"no relay: nobody listens on {subject.socket}", START)
        elif os.path.lexists(subject.socket):
            yield wrong(
                f"nobody listens on {subject.socket}: a relay left it behind, or listens in another"
                " network namespace",
                "start the relay: it replaces the socket",
            )
        return
    if subject.pid is None:
        yield note(f"somebody listens on {subject.socket}: who, only its user and root can see")
        return
    user = system.user_name(system.owner_of(subject.pid))
    words = printable(" ".join(system.command_of(subject.pid)[:1]))
    yield ok(f"pid {subject.pid} of {user} listens ({words})")


def check_permission(subject: Subject) -> Iterator[Finding]:
    """Whether this user may connect."""
    path = subject.settings.socket
    if subject.is_abstract:
        return
    user = system.user_name(os.geteuid())
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    except PermissionError:
        mend = "let this user search the directory, or run doctor as one who may connect"
        yield wrong(f"{user} may not search {path.parent}", mend)
        return
    if os.access(path, os.W_OK, effective_ids=True):
        yield ok(f"{user} may connect")
        return
    mend = "start the relay with another --socket-mode, or group"
    if status.st_gid:  # not root's, which is nobody's to join
        mend = f"join the group {system.group_name(status.st_gid)}, or {mend}"
    yield wrong(
        f"{user} may not connect to {path}: its mode is {stat.S_IMODE(status.st_mode):o}", mend
    )
