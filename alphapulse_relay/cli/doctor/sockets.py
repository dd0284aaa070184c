"""The socket, its directory, who listens on it, and whether this user may connect.

Nobody is connected to: the relay would take it for a peer.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import Finding, note, ok, wrong
from alphapulse_relay.cli.words import printable
from alphapulse_relay.safe_path import SUN_PATH_MAX, faults

_START = 'start one with "twistd -n signal-relay", or name its socket with --socket'
_OTHERS = 3
"""Other relays that are named."""
_MODE = 0o7777
_OTHERS_WRITE = 0o022
_PLUGIN = "signal-relay"


def check_directory(subject: Subject) -> Iterator[Finding]:
    """Whether somebody else could put another socket in the relay's place."""
    if subject.is_abstract:
        return
    path = subject.settings.socket.parent
    relay = os.geteuid() if subject.uid is None else subject.uid
    found = [wrong(*fault) for fault in faults(path, relay)]
    yield from found
    try:
        status = path.lstat()
    except FileNotFoundError:
        yield note(f"{path} is not there: the relay makes it")
        return
    if found:
        return
    if status.st_mode & _OTHERS_WRITE:  # and sticky
        yield note(f"{path}: others can take the path while no relay runs", "use one of its own")
    else:
        owner = system.user_name(status.st_uid)
        kind = system.mount_of(path).kind
        yield ok(f"{path}: mode {status.st_mode & _MODE:o}, of {owner}, on {kind}")


def check_socket(subject: Subject) -> Iterator[Finding]:
    """Whether it is there, is a socket, and has the mode that is wanted."""
    if subject.is_abstract:
        yield ok(f"{subject.socket} is abstract: it has no file, and no permissions")
        return
    path, wanted = subject.settings.socket, subject.settings.socket_mode
    if len(os.fsencode(path)) > SUN_PATH_MAX:
        yield wrong(f"{path} is longer than {SUN_PATH_MAX} bytes", "choose a shorter --socket")
        return
    try:
        status = path.lstat()
    except FileNotFoundError:
        yield _missing(subject)
        return
    if not stat.S_ISSOCK(status.st_mode):
        yield wrong(f"{path} is not a socket", "move it away, or choose another --socket")
        return
    mode = stat.S_IMODE(status.st_mode)
    owners = f"{system.user_name(status.st_uid)}:{system.group_name(status.st_gid)}"
    if mode != wanted and subject.is_guessed("socket-mode"):
        yield note(f"{path} has mode {mode:o}; which is wanted, the settings leave open")
    elif mode != wanted:
        mend = f"chmod {wanted:o} {path}, or tell doctor the relay's --socket-mode"
        yield note(f"{path} has mode {mode:o}, --socket-mode is {wanted:o}", mend)
    elif not mode & stat.S_IWOTH:
        yield ok(f"{path}: mode {mode:o}, of {owners}")
    elif subject.settings.access is None:
        yield note(f"{path} has mode {mode:o}: every user of this machine may connect and publish")
    else:
        yield ok(f"{path}: mode {mode:o}, the access rules decide who is let in")


def _missing(subject: Subject) -> Finding:
    mend = _START
    with suppress(OSError):  # where nothing is known of processes, that one listens neither
        if (finding := _removed(subject)) is not None:
            return finding
        mend = _start(subject)
    return wrong(f"no relay: there is no socket {subject.settings.socket}", mend)


def _removed(subject: Subject) -> Finding | None:
    """Tell of a relay that runs although the socket is not there."""
    path, pid = subject.settings.socket, subject.pid
    if subject.listens:
        who = "somebody" if pid is None else f"pid {pid}"
        return wrong(
            f"{path} was removed, while {who} listens there: nobody can connect any more",
            "restart the relay, which makes it anew",
        )
    if pid is not None:
        return wrong(
            f"there is no socket {path}, but pid {pid} runs",
            "tell doctor the relay's --socket, or wait, if it is only starting",
        )
    return None


def _start(subject: Subject) -> str:
    """Return what to do where there is no relay: maybe one runs, with other options."""
    mend = "correct the settings" if subject.is_guessed("socket") else _START
    others = [
        f"pid {pid} with {printable(' '.join(options)) or 'no options'}"
        for pid, words in system.commands()
        if (options := relay_options(words)) is not None
    ]
    if others:
        mend += f"; relays that run, for their options: {', '.join(others[:_OTHERS])}"
    return mend


def relay_options(words: list[str]) -> list[str] | None:
    """Return with which options a process was started; None if it is no relay."""
    if _PLUGIN not in words or not any("twistd" in word for word in words):
        return None
    return words[words.index(_PLUGIN) + 1 :]


def check_listener(subject: Subject) -> Iterator[Finding]:
    """Whether anybody listens, and who that is."""
    if not subject.listens:
        if subject.is_abstract:
            yield wrong(f"no relay: nobody listens on {subject.socket}", _start(subject))
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
    text = f"pid {subject.pid} of {user} listens ({words})"
    if system.is_stopped(subject.pid):
        yield wrong(f"{text}, but is stopped: it serves nobody", f"kill -CONT {subject.pid}")
    else:
        yield ok(text)


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
        yield ok(f"{user} may {'connect' if subject.settings.access is None else 'open it'}")
        return
    mend = "start the relay with another --socket-mode, or group"
    if status.st_gid:  # not root's, which is nobody's to join
        mend = f"join the group {system.group_name(status.st_gid)}, or {mend}"
    yield wrong(
        f"{user} may not connect to {path}: its mode is {stat.S_IMODE(status.st_mode):o}", mend
    )
