"""What Linux tells, and how it writes that."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from alphapulse_relay.cli.doctor import system


def test_who_listens(short_path: Path) -> None:
    path = str(short_path / "s.sock")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)
        assert system.listening_inodes(path) == []
        one.listen()
        (inode,) = system.listening_inodes(path)
        assert inode == os.fstat(one.fileno()).st_ino
        assert system.holders(inode) == [os.getpid()]
    assert system.listening_inodes(path) == []


def test_path_with_blanks(short_path: Path) -> None:
    path = str(short_path / "a b c")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)
        one.listen()
        assert len(system.listening_inodes(path)) == 1


def test_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as file:
        assert system.lock_holder(path) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert system.lock_holder(path) == os.getpid()
    assert system.lock_holder(path) is None


class TestMount:
    def mounts(self, monkeypatch, directory: Path, *lines: str) -> None:
        (directory / "self").mkdir()
        (directory / "self" / "mountinfo").write_text("\n".join(lines))
        monkeypatch.setattr(system, "PROC", directory)

    def test_here(self, tmp_path: Path) -> None:
        mount = system.mount_of(tmp_path)
        assert tmp_path.is_relative_to(mount.point)
        assert mount.kind

    def test_the_deepest_and_latest(self, tmp_path: Path, monkeypatch) -> None:
        self.mounts(
            monkeypatch,
            tmp_path,
            "22 1 0:21 / / rw,relatime - ext4 /dev/vda rw",
            r"23 22 0:22 / /my\040data rw shared:1 master:2 - xfs /dev/vdb rw",
            r"24 23 0:23 / /my\040data rw - nfs4 host:/data rw",
            "25 22 0:24 / /my rw - tmpfs tmpfs rw",
        )
        assert system.mount_of(Path("/my data/journal")) == system.Mount(Path("/my data"), "nfs4")
        assert system.mount_of(Path("/mydata")).kind == "ext4"

    def test_nothing(self, tmp_path: Path, monkeypatch) -> None:
        self.mounts(monkeypatch, tmp_path)
        with pytest.raises(OSError, match="no file system"):
            system.mount_of(tmp_path)


def test_limits_of_another_kernel(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "limits").write_text("Max open files            unlimited   4096   files\n")
    monkeypatch.setattr(system, "PROC", tmp_path)
    assert system.open_files_limits(7) == (system.UNLIMITED, 4096)
    (tmp_path / "7" / "limits").write_text("")
    with pytest.raises(OSError, match="Max open files"):
        system.open_files_limits(7)


def test_owner_is_who_it_has_become(tmp_path: Path, monkeypatch) -> None:
    assert system.owner_of(os.getpid()) == os.geteuid()
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tpython\nUid:\t0\t54321\t0\t54321\n")
    monkeypatch.setattr(system, "PROC", tmp_path)
    assert system.owner_of(7) == 54321


def test_stopped() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not system.is_stopped(child.pid)
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert system.is_stopped(child.pid)
        child.kill()


def test_commands() -> None:
    assert dict(system.commands())[os.getpid()] == system.command_of(os.getpid())


def test_groups() -> None:
    assert 0 in system.groups_of(0)
    assert system.groups_of(54321) == set()


def test_names_of_nobody() -> None:
    assert system.user_name(0) == "root"
    assert system.user_name(54321) == "54321"
    assert system.group_name(54321) == "54321"


def test_kernel_number() -> None:
    assert system.kernel_number("net.core.somaxconn") > 0
