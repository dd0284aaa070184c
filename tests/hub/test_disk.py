"""The journal's system calls, on a real file system; where it may be mounted, on a full one too."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from alphapulse_relay.hub import disk as module
from alphapulse_relay.hub.disk import Disk
from alphapulse_relay.journal.format import MAGIC, PAGE, data_path, index_path

DATA, INDEX = 64 * PAGE, 16 * PAGE
TINY = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    path = tmp_path / "tiny"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={TINY}", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own can be mounted by root only")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


class TestMake:
    def test_takes_its_room_on_the_disk(self, disk: Disk) -> None:
        slot = disk.make(3, DATA, INDEX)
        for path, size in (
            (data_path(disk.directory, 3), DATA),
            (index_path(disk.directory, 3), INDEX),
        ):
            assert path.stat().st_size == size
            assert path.stat().st_blocks * 512 >= size
            assert path.stat().st_mode & 0o777 == 0o640
        assert slot.size == DATA + INDEX
        assert sorted(path.name for path in disk.directory.iterdir()) == ["0003.index", "0003.v2"]
        slot.close()

    def test_what_is_written_is_in_the_files(self, disk: Disk) -> None:
        slot = disk.make(0, DATA, INDEX)
        slot.data[5:10], slot.index[7:12] = b"hello", b"index"
        slot.close()
        again = disk.open(0)
        assert (again.data[5:10], again.index[7:12]) == (b"hello", b"index")
        again.close()

    def test_of_a_slot_whose_files_are_there_or_half_of_them(self, disk: Disk) -> None:
        assert disk.is_free(0)
        data_path(disk.directory, 0).touch()
        assert not disk.is_free(0)
        index_path(disk.directory, 1).touch()
        assert not disk.is_free(1)

    def test_what_was_left_half_made_is_made_anew(self, disk: Disk) -> None:
        (disk.directory / "0000.v2.new").write_bytes(b"x" * 3 * DATA)
        assert disk.is_free(0)
        slot = disk.make(0, DATA, INDEX)
        assert len(slot.data) == DATA
        assert not any(slot.data[:PAGE])
        slot.close()

    def test_a_link_is_replaced_and_not_followed(self, disk: Disk) -> None:
        victim = disk.directory / "victim"
        victim.write_text("important")
        for name in ("0000.v2.new", "0000.index.new"):
            (disk.directory / name).symlink_to(victim)
        disk.make(0, DATA, INDEX).close()
        assert victim.read_text() == "important"
        assert not data_path(disk.directory, 0).is_symlink()

    @pytest.mark.parametrize("fits", [0, DATA])
    def test_on_a_full_disk_leaves_nothing(self, tiny: Path, fits: int) -> None:
        (tiny / "other").write_bytes(bytes(TINY - fits - PAGE))
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(OSError, match="No space left") as error:
                Disk(tiny).make(0, DATA, 2 * DATA)
            assert error.value.errno == errno.ENOSPC
        assert [path.name for path in tiny.iterdir()] == ["other"]
        assert len(os.listdir("/proc/self/fd")) == descriptors
        (tiny / "other").unlink()
        Disk(tiny).make(0, DATA, INDEX).close()

    def test_in_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Disk(tmp_path / "none").make(0, DATA, INDEX)


@pytest.fixture(params=["as the file system can", "by writing"])
def clearing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clear files in both ways."""
    if request.param == "by writing":
        monkeypatch.setattr(module, "_ZERO_RANGE", -1)  # no file system knows that
        monkeypatch.setattr(module, "TOUCH_SIZE", 24 * PAGE)


@pytest.mark.usefixtures("clearing")
class TestClear:
    def test_makes_a_used_slot_spare(self, disk: Disk) -> None:
        slot = disk.make(0, DATA, INDEX)
        slot.index[: len(MAGIC)] = slot.data[DATA - PAGE : DATA - PAGE + len(MAGIC)] = MAGIC
        slot.index[PAGE : 2 * PAGE] = b"r" * PAGE
        slot.data[: DATA - PAGE] = b"m" * (DATA - PAGE)
        before = slot.size
        disk.clear(slot)
        assert not any(slot.index[: len(MAGIC)])
        assert slot.index[PAGE : 2 * PAGE] == b"r" * PAGE
        assert not any(slot.data[:])
        slot.data[7:12] = b"hello"
        paths = data_path(disk.directory, 0), index_path(disk.directory, 0)
        assert paths[0].read_bytes() == bytes(7) + b"hello" + bytes(DATA - 12)
        assert sum(path.stat().st_size for path in paths) == before
        assert sum(path.stat().st_blocks for path in paths) * 512 >= before
        slot.close()

    def test_is_on_the_disk_before_the_slot_can_be_used(
        self, disk: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """First that it holds nothing, then that nothing is left: else damage would be told."""
        slot = disk.make(0, DATA, INDEX)
        slot.index[: len(MAGIC)] = slot.data[DATA - PAGE : DATA - PAGE + len(MAGIC)] = MAGIC
        slot.data[0] = 1
        synced: list[tuple[int, bytes]] = []

        def note(*_: object) -> None:
            synced.append((slot.data[0], slot.index[:1] + slot.data[DATA - PAGE : DATA - PAGE + 1]))

        monkeypatch.setattr(disk, "_sync_part", note)
        monkeypatch.setattr(os, "fsync", note)
        disk.clear(slot)
        unused = bytes(2)
        assert synced == [(1, unused), (1, unused), (0, unused)]
        slot.close()

    def test_that_fails(self, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        slot = disk.make(0, DATA, INDEX)
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            disk.clear(slot)
        slot.close()


class TestReading:
    def test_pages_that_the_kernel_let_go_are_loaded(self, disk: Disk) -> None:
        slot = disk.make(0, DATA, INDEX)
        slot.data[:] = b"m" * DATA
        assert disk.resident(slot, 0, DATA)
        disk.sync(slot)
        slot.close()
        del slot  # what is mapped is kept
        slot = disk.open(0)
        os.posix_fadvise(slot.descriptors[0], 0, DATA, os.POSIX_FADV_DONTNEED)
        if disk.resident(slot, 0, DATA):
            pytest.skip("the kernel keeps the pages here: no file system on a disk")
        assert not disk.resident(slot, 10 * PAGE + 5, 10 * PAGE + 6)
        disk.load(slot, 10 * PAGE + 5, 20 * PAGE)
        assert disk.resident(slot, 10 * PAGE, 20 * PAGE)
        assert slot.data[10 * PAGE : 10 * PAGE + 5] == b"mmmmm"
        slot.close()

    @pytest.mark.parametrize("span", [(0, 1), (1, 2), (PAGE - 1, PAGE + 1), (DATA - 1, DATA)])
    def test_of_any_bytes(self, disk: Disk, span: tuple[int, int]) -> None:
        slot = disk.make(0, DATA, INDEX)
        disk.load(slot, *span)
        assert disk.resident(slot, *span)
        slot.close()


class TestRemove:
    def test_the_files_go_and_the_memory_stays_while_it_is_used(self, disk: Disk) -> None:
        slot = disk.make(0, DATA, INDEX)
        slot.data[:5] = b"hello"
        disk.remove(slot)
        assert list(disk.directory.iterdir()) == []
        disk.load(slot, 0, DATA)
        disk.sync(slot)
        assert slot.data[:5] == b"hello"
        disk.remove(slot)  # is no error

    def test_they_are_closed_when_nobody_has_them(self, disk: Disk) -> None:
        before = len(os.listdir("/proc/self/fd"))
        slot = disk.make(0, DATA, INDEX)
        disk.remove(slot)
        del slot
        assert len(os.listdir("/proc/self/fd")) == before

    def test_to_close_twice_closes_nothing_else(self, disk: Disk) -> None:
        slot = disk.make(0, DATA, INDEX)
        slot.close()
        other = disk.make(1, DATA, INDEX)  # has the same numbers now
        slot.close()
        disk.sync(other)
        other.close()


class TestLock:
    def test_only_one_has_it(self, disk: Disk) -> None:
        path = disk.directory / "lock"
        held = disk.lock(path)
        assert held is not None
        assert disk.lock(path) is None
        assert path.read_text() == f"{os.getpid()}\n"
        os.close(held)
        again = disk.lock(path)
        assert again is not None
        os.close(again)

    def test_that_cannot_be_had(self, disk: Disk) -> None:
        with pytest.raises(IsADirectoryError):
            disk.lock(disk.directory)
