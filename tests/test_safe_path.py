"""Which directories are fit for a socket, and what is told of those that are not."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphapulse_relay.safe_path import Fault, existing, faults, is_writable, make_directory

US, OTHER = os.geteuid(), 54321
CHMOD = "run chmod go-w on it, or choose another --socket"
CHOWN = "choose another --socket, or chown it"
as_root = pytest.mark.skipif(US != 0, reason="gives files to another user")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose parents are sound, which those of ``tmp_path`` need not be."""
    path = Path(tempfile.mkdtemp(prefix="relay-"))
    yield path
    shutil.rmtree(path)


def wrong(directory: Path, user: int = US) -> list[Fault]:
    return list(faults(directory, user))


def open_to_others(path: Path) -> Fault:
    return Fault(f"others can write to the directory {path}", CHMOD)


def of_another(path: Path) -> Fault:
    return Fault(f"{path} belongs to another user (uid {OTHER})", CHOWN)


class TestDirectory:
    def test_sound(self, directory: Path) -> None:
        assert wrong(directory) == []

    @pytest.mark.parametrize("mode", [0o720, 0o702])
    def test_others_may_write(self, directory: Path, mode: int) -> None:
        directory.chmod(mode)
        assert wrong(directory) == [open_to_others(directory)]

    def test_others_may_write_but_it_is_sticky(self, directory: Path) -> None:
        directory.chmod(0o1777)
        assert wrong(directory) == []

    def test_a_private_one_may_not_be_sticky_but_those_above(self, directory: Path) -> None:
        directory.chmod(0o1777)
        (directory / "own").mkdir()
        assert list(faults(directory / "own", US, private=True)) == []
        (fault,) = faults(directory, US, option="--journal", private=True)
        what = f"others can write to the directory {directory}"
        assert fault == (what, "run chmod go-w on it, or choose another --journal")

    def test_a_link(self, directory: Path) -> None:
        link = directory / "link"
        link.symlink_to("nowhere")
        what = f"the directory {link} is a symbolic link"
        assert wrong(link) == [Fault(what, f"give the path it leads to, {directory}/nowhere")]

    def test_a_file(self, directory: Path) -> None:
        file = directory / "file"
        file.touch()
        assert wrong(file) == [Fault(f"{file} is not a directory", "choose another --socket")]
        assert wrong(file / "below") == []

    @as_root
    def test_of_another_user(self, directory: Path) -> None:
        os.chown(directory, OTHER, -1)
        assert wrong(directory) == [of_another(directory)]
        assert wrong(directory, OTHER) == []

    @as_root
    def test_all_that_is_wrong(self, directory: Path) -> None:
        directory.chmod(0o777)
        os.chown(directory, OTHER, -1)
        assert wrong(directory) == [of_another(directory), open_to_others(directory)]


class TestWayThere:
    """Whoever may rename a directory further up may put their own in its place."""

    @pytest.fixture
    def below(self, directory: Path) -> Path:
        below = directory / "a" / "b"
        below.mkdir(parents=True)
        return below

    @pytest.mark.parametrize("exists", [True, False])
    def test_others_may_write(self, directory: Path, below: Path, exists: bool) -> None:
        directory.chmod(0o770)
        assert wrong(below if exists else directory / "none" / "b") == [open_to_others(directory)]

    def test_the_nearest_comes_first(self, directory: Path, below: Path) -> None:
        for path in (directory, below.parent):
            path.chmod(0o770)
        assert wrong(below) == [open_to_others(below.parent), open_to_others(directory)]

    @as_root
    def test_of_another_user(self, directory: Path, below: Path) -> None:
        os.chown(directory, OTHER, -1)
        assert wrong(below) == [of_another(directory)]

    def test_a_relative_path(
        self, directory: Path, below: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory.chmod(0o770)
        monkeypatch.chdir(below.parent)
        assert wrong(Path("b")) == [open_to_others(directory)]

    def test_a_link_to_what_is_sound(self, directory: Path, below: Path) -> None:
        (directory / "link").symlink_to("a")
        assert wrong(directory / "link" / "b") == []

    @pytest.mark.parametrize("target", ["../open/real", "../open/next"])
    def test_a_link_through_what_is_not(self, directory: Path, below: Path, target: str) -> None:
        through = directory / "open"
        (through / "real" / "sub").mkdir(parents=True)
        (through / "next").symlink_to(below.parent)
        through.chmod(0o770)
        (below.parent / "sub").mkdir()
        (directory / "a" / "link").symlink_to(target)
        (found,) = wrong(directory / "a" / "link" / "sub")
        assert Path(found.what.split()[-1]).resolve() == through
        assert found.what.startswith("others can write to the directory ")

    def test_a_link_where_others_may_make_another(self, directory: Path, below: Path) -> None:
        place = directory / "open"
        place.mkdir()
        (place / "link").symlink_to(below.parent)
        place.chmod(0o770)
        assert wrong(place / "link" / "b") == [open_to_others(place)]

    @as_root
    def test_the_link_of_another_user(self, directory: Path, below: Path) -> None:
        """In a sticky directory its owner may remove it."""
        directory.chmod(0o1777)
        link = directory / "link"
        link.symlink_to("a")
        os.chown(link, OTHER, -1, follow_symlinks=False)
        assert wrong(link / "b") == [of_another(link)]

    def test_links_in_a_circle(self, directory: Path) -> None:
        (directory / "one").symlink_to("two")
        (directory / "two").symlink_to("one")
        with pytest.raises(OSError, match="Too many levels of symbolic links"):
            wrong(directory / "one" / "sub")

    def test_what_may_not_be_looked_at(self, below: Path) -> None:
        if US != 0:
            pytest.skip("only root may become another user")
        below.parent.chmod(0o700)
        os.seteuid(OTHER)
        try:
            with pytest.raises(PermissionError):
                wrong(below)
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("umask", [0, 0o077])
def test_made_with_its_parents(directory: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_directory(directory / "a" / "b", 0o750)
        make_directory(directory / "a" / "b", 0o700)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (directory / "a", directory / "a" / "b")]
    assert modes == [0o755, 0o750]


def test_made_through_no_link(directory: Path) -> None:
    (directory / "link").symlink_to("none")
    with pytest.raises(OSError, match=r"File exists|No such"):
        make_directory(directory / "link" / "a")
    assert not (directory / "none").exists()


def test_existing(directory: Path) -> None:
    assert existing(directory / "a" / "b") == directory
    assert existing(directory) == directory


@pytest.mark.parametrize("mode", [0o700, 0o500, 0o600])
def test_writable(directory: Path, mode: int) -> None:
    """A directory that is not there yet is, where it can be made."""
    if US == 0:
        os.chown(directory, OTHER, -1)
        os.seteuid(OTHER)
    directory.chmod(mode)
    try:
        assert is_writable(directory) is is_writable(directory / "none") is (mode == 0o700)
    finally:
        os.seteuid(US)
        directory.chmod(0o700)
