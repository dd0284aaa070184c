"""Files are read in bounds, and nothing else is waited for."""

import os
import socket
from pathlib import Path

import pytest

from alphapulse_relay.small_files import open_regular, read_small


def test_what_it_holds_and_who_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    path.chmod(0o640)
    found = read_small(path, 7)
    assert found == (b"content", 0o640)
    assert not found.is_open_to_others


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o666])
def test_whether_others_may(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    assert read_small(path, 0).is_open_to_others


def test_no_more_than_so_much(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with pytest.raises(OSError, match="More than 6 bytes"):
        read_small(path, 6)


def test_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_small(tmp_path / "link", 100).content == b"content"


def test_by_no_link_where_none_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        open_regular(tmp_path / "link", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_no_pipe_is_waited_for(tmp_path: Path, flags: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Not a regular file"):
        open_regular(tmp_path / "pipe", flags)
    assert os.listdir("/proc/self/fd") == before


def test_nothing_else_is_read(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(tmp_path / "s"))
        for path in (tmp_path, tmp_path / "s", tmp_path / "none", Path("/dev/zero")):
            with pytest.raises(OSError, match=r"directory|No such|Not a regular file"):
                read_small(path, 10)
