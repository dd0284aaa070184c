"""The journal: where it lies, who may read it, who has it, what of it is damaged."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from alphapulse_relay.cli.board import size
from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.subject import Subject
from alphapulse_relay.cli.findings import Finding, note, ok, wrong
from alphapulse_relay.cli.numbers import counted
from alphapulse_relay.journal.format import LOCK_FILE, FormatError, data_size_of, index_size
from alphapulse_relay.safe_path import existing, faults

NETWORK = {
    "9p",
    "afs",
    "ceph",
    "cifs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
}
"""File systems whose mapped files and locks are not those of one machine."""
MEMORY = {"tmpfs", "ramfs"}
KERNEL = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "securityfs", "tracefs"}
"""File systems in which there are no files but the kernel's own."""


def check_directory(subject: Subject) -> Iterator[Finding]:
    """Whether it is there, is the relay's, and is kept from others."""
    path = subject.settings.journal
    if path is None:
        yield ok("no journal is kept: history ends with the relay")
        return
    try:
        status = path.stat()
    except FileNotFoundError:
        yield _missing(path, subject)
        return
    if not stat.S_ISDIR(status.st_mode):
        yield wrong(f"{path} is not a directory", "choose another --journal")
        return
    relay, owner = subject.uid, system.user_name(status.st_uid)
    found = []
    if relay not in {None, status.st_uid}:
        mend = f"chown -R {system.user_name(relay or 0)} {path}"
        found.append(wrong(f"{path} belongs to {owner}, not to the relay's user", mend))
    if status.st_mode & 0o022:
        mend = f"chmod 750 {path}"
        found.append(wrong(f"{path}: others can write there, and spoil the journal", mend))
    elif fault := next(faults(path, status.st_uid, option="--journal", private=True), None):
        found.append(wrong(fault.what, fault.mend))
    elif status.st_mode & 0o005:
        mend = f"chmod 750 {path}, if they must not"
        found.append(note(f"{path}: every user may look there", mend))
    yield from found or [ok(f"{path}: mode {stat.S_IMODE(status.st_mode):o}, of {owner}")]


def _missing(path: Path, subject: Subject) -> Finding:
    if subject.pid is None:
        return note(f"{path} is not there: the relay makes it")
    return wrong(f"{path} is not there, but a relay runs", "tell doctor the relay's --journal")


def check_file_system(subject: Subject) -> Iterator[Finding]:
    """Whether the files are on a disk of this machine."""
    path = subject.settings.journal
    if path is None:
        return
    mount = system.mount_of(path)
    where = f"{path} is on {mount.kind}, mounted at {mount.point}"
    if mount.kind in KERNEL:
        yield wrong(f"{where}, which takes no files", "choose another --journal")
    elif mount.kind in NETWORK:
        yield note(
            f"{where}: mapped files and locks are not sure there", "use a disk of this machine"
        )
    elif mount.kind in MEMORY:
        yield note(f"{where}: history is gone when the machine starts", "use a directory on a disk")
    else:
        yield ok(where)


def check_lock(subject: Subject) -> Iterator[Finding]:
    """Whether the relay has it, and nobody else."""
    path = subject.settings.journal
    if path is None or not (path / LOCK_FILE).exists():
        return
    holder = system.lock_holder(path / LOCK_FILE)
    if holder is None:
        if subject.pid is None:
            yield ok(f"nobody has {path}")
        else:
            yield wrong(
                f"the relay that runs does not have {path}", "tell doctor the relay's --journal"
            )
    elif subject.pid in {None, holder} or not system.is_alive(holder):
        yield ok(f"pid {holder} has {path}")
    else:
        yield wrong(
            f"pid {holder} has {path}, the relay is pid {subject.pid}",
            "give each relay a --journal of its own",
        )


def check_content(subject: Subject) -> Iterator[Finding]:
    """Whether its index tells of damage; the bytes of the messages are not compared."""
    path = subject.settings.journal
    if path is None or not path.is_dir():
        return
    if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        user = system.user_name(os.geteuid())
        yield note(
            f"{user} may not read {path}", "run doctor as the relay's user, or join its group"
        )
        return
    try:
        found = subject.journal
    except FormatError as error:
        if "holds no" in str(error):
            yield note(f"{error} yet")
        else:
            yield wrong(str(error), "give each journal a directory of its own")
        return
    assert found is not None
    for each in found.damage:
        lost = counted(each.stop - each.start, "byte", ",")
        where = f", positions {each.start} to {each.stop}, {lost}" * (each.start < each.stop)
        mend = f"signal-relay journal verify --journal {path} tells all; look at the disk"
        yield wrong(f"{path / each.file}{where}: {each.detail}", mend)
    if not found.damage:
        yield ok(f"{path}: {counted(found.messages, 'message', ',')}, no damage by its index")


def check_room(subject: Subject) -> Iterator[Finding]:
    """Whether the disk has room, and inodes, for what the journal may still take."""
    path, most = subject.settings.journal, subject.settings.journal_size
    if path is None:
        return
    files = _files(path) if path.is_dir() else []
    used = sum(each.stat().st_blocks * 512 for each in files)
    if used > most:
        mend = "restart it with a larger --journal-size, if they are to stay"
        text = f"{path} has {size(used)}, --journal-size is {size(most)}"
        yield note(f"{text}: the oldest messages go at the next start", mend)
    disk = os.statvfs(existing(path))
    free, wanted = disk.f_bavail * disk.f_frsize, max(most - used, 0)
    text = f"{path} has {size(used)} of {size(most)}, its disk has {size(free)} free"
    if free < wanted:
        yield wrong(f"{text}: {size(wanted - free)} too few", "make room, or lower --journal-size")
    else:
        yield ok(text)
    data = data_size_of(most)
    missing = 2 * (most // (data + index_size(data)) + 1) - len(files)
    if disk.f_files and disk.f_favail < missing:  # some file systems do not count them
        text = f"the disk of {path} has {disk.f_favail} inodes left, {missing} are needed"
        yield wrong(text, "remove files that nobody needs")


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.suffix in {".v2", ".index"}]
