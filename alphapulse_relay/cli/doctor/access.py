"""The access rules beside the socket's permissions, which count first: both must let a peer in."""

import os
import stat
from collections.abc import Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING

from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import Finding, note, ok
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.cli.words import printable

if TYPE_CHECKING:
    from alphapulse_relay.options import Settings

_SEARCH, _WRITE = stat.S_IXOTH, stat.S_IWOTH
"""What it takes of a directory, and of the socket, as bits of a mode (path_resolution(7))."""
_MEND = "give the socket another --socket-mode or group, or see to its directories' modes"


def check_rules(subject: Subject) -> Iterator[Finding]:
    """Whether those whom the rules let in can open the socket, and whether this user is one."""
    access = subject.settings.access
    if access is None:
        return
    if subject.is_guessed("access"):
        yield note("whom the access rules let in is not looked at: one of them is wrong")
        return
    found = [] if subject.is_abstract else list(_shut_out(subject.settings))
    yield from found
    if not found:
        yield ok(f"{counted(len(access.rules), 'access rule')}")
    uid, groups = os.geteuid(), {os.getegid(), *os.getgroups()}
    mine = (
        each
        for each in access.rules
        if each.is_for_everybody or uid in each.uids or not each.gids.isdisjoint(groups)
    )
    rule = next(mine, None)
    if rule is None:
        yield note(f"no access rule is for {system.user_name(uid)}, who runs doctor")
    else:
        yield ok(f"{system.user_name(uid)} is let in by the rule {rule.name}")


def _shut_out(settings: "Settings") -> Iterator[Finding]:
    """Tell which rules are for users or groups who cannot come by the socket at all."""
    path = settings.socket
    if settings.access is None or not path.exists():
        return
    for rule in settings.access.rules:
        users = [uid for uid in rule.uids if not _may_open(path, uid, system.groups_of(uid))]
        groups = [gid for gid in rule.gids if not _may_open(path, None, {gid})]
        names = [f"user {system.user_name(uid)}" for uid in sorted(users)]
        names += [f"group {system.group_name(gid)}" for gid in sorted(groups)]
        if names:
            who = printable(", ".join(names))
            mode = f"mode {stat.S_IMODE(path.stat().st_mode):o}"
            yield note(f"rule {rule.name}: {who} cannot open {path} ({mode}) as such", _MEND)


def _may_open(path: Path, uid: int | None, groups: Set[int]) -> bool:
    return _may(path, _WRITE, uid, groups) and all(
        _may(directory, _SEARCH, uid, groups) for directory in path.parents
    )


def _may(path: Path, right: int, uid: int | None, groups: Set[int]) -> bool:
    """Tell whether a user, or any other of these groups, has a right by the file's mode."""
    status = path.stat()
    if uid == 0:
        return True
    if uid == status.st_uid:
        right <<= 6
    elif status.st_gid in groups:
        right <<= 3
    return bool(status.st_mode & right)
