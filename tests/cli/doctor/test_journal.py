"""The journal's directory, files and disk."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from alphapulse_relay.cli.doctor import journal, system
from alphapulse_relay.cli.doctor.system import Mount
from alphapulse_relay.journal.format import LOCK_FILE, Epoch, data_path, index_path
from tests.cli.doctor.subjects import found, only, running, subject
from tests.journal.writer import Segment, message, save

CHECKS = (
    journal.check_directory,
    journal.check_file_system,
    journal.check_lock,
    journal.check_content,
    journal.check_room,
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A journal of two segments."""
    first = Segment().fill([message(n) for n in range(12)])
    second = first.next().fill([message(n) for n in range(12, 20)])
    save(tmp_path / "journal", first, second).chmod(0o750)
    return tmp_path


def test_no_journal_is_wanted(tmp_path: Path) -> None:
    one = subject(tmp_path, journal="none")
    told = [("ok", "no journal is kept: history ends with the relay")]
    assert [each for check in CHECKS for each in found(check, one)] == told


class TestDirectory:
    def test_sound(self, directory: Path) -> None:
        finding = only(journal.check_directory, subject(directory))
        assert finding.what.startswith(f"{directory}/journal: mode 750, of ")
        assert finding.verdict == "ok"

    def test_missing(self, tmp_path: Path) -> None:
        assert only(journal.check_directory, subject(tmp_path)).verdict == "note"
        assert only(journal.check_directory, running(tmp_path, os.getpid())).verdict == "wrong"

    def test_below_one_that_others_can_write_to(self, directory: Path) -> None:
        """They could put another journal in its place: the relay does not start."""
        directory.chmod(0o770)
        finding = only(journal.check_directory, subject(directory))
        assert finding.verdict == "wrong"
        assert finding.what == f"others can write to the directory {directory}"

    def test_no_directory(self, tmp_path: Path) -> None:
        (tmp_path / "journal").touch()
        finding = only(journal.check_directory, subject(tmp_path))
        assert finding.what == f"{tmp_path}/journal is not a directory"
        assert finding.verdict == "wrong"

    @pytest.mark.parametrize(
        ("mode", "verdict"), [(0o700, "ok"), (0o755, "note"), (0o777, "wrong"), (0o770, "wrong")]
    )
    def test_others(self, directory: Path, mode: int, verdict: str) -> None:
        (directory / "journal").chmod(mode)
        assert only(journal.check_directory, subject(directory)).verdict == verdict

    def test_of_another_user(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system, "owner_of", lambda _: 54321)
        finding = only(journal.check_directory, running(directory, os.getpid()))
        assert finding.verdict == "wrong"
        assert finding.mend == f"chown -R 54321 {directory}/journal"


@pytest.mark.parametrize(
    ("kind", "verdict"), [("ext4", "ok"), ("tmpfs", "note"), ("nfs4", "note"), ("proc", "wrong")]
)
def test_file_system(tmp_path, monkeypatch, kind: str, verdict: str) -> None:
    monkeypatch.setattr(system, "mount_of", lambda _: Mount(Path("/data"), kind))
    finding = only(journal.check_file_system, subject(tmp_path))
    assert finding.what.startswith(f"{tmp_path}/journal is on {kind}, mounted at /data")
    assert finding.verdict == verdict


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / "journal" / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class TestLock:
    def test_never_taken(self, directory: Path) -> None:
        assert found(journal.check_lock, subject(directory)) == []

    def test_the_relay_has_it(self, directory: Path) -> None:
        with locked(directory):
            finding = only(journal.check_lock, running(directory, os.getpid()))
        assert finding.what == f"pid {os.getpid()} has {directory}/journal"
        assert finding.verdict == "ok"

    def test_another_one_has_it(self, directory: Path) -> None:
        with locked(directory):
            finding = only(journal.check_lock, running(directory, os.getppid()))
        assert finding.verdict == "wrong"
        assert finding.what.startswith(f"pid {os.getpid()} has {directory}/journal, ")

    def test_nobody_has_it(self, directory: Path) -> None:
        with locked(directory):
            pass
        assert only(journal.check_lock, subject(directory)).verdict == "ok"
        finding = only(journal.check_lock, running(directory, os.getpid()))
        assert finding.what == f"the relay that runs does not have {directory}/journal"


class TestContent:
    def test_sound(self, directory: Path) -> None:
        finding = only(journal.check_content, subject(directory))
        assert finding.what == f"{directory}/journal: 20 messages, no damage by its index"
        assert finding.verdict == "ok"

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "journal").mkdir()
        assert only(journal.check_content, subject(tmp_path)).verdict == "note"

    def test_damaged(self, directory: Path) -> None:
        """A record is lost, and a message that it covers has a wrong bit."""
        size = len(message(1))
        for path, start, stop in (
            (index_path(directory / "journal", 0), Segment().offset(1), Segment().offset(2)),
            (data_path(directory / "journal", 0), 4 * size - 1, 4 * size),
        ):
            content = bytearray(path.read_bytes())
            content[start:stop] = b"x" * (stop - start)
            path.write_bytes(content)
        told = found(journal.check_content, subject(directory))
        assert {verdict for verdict, _ in told} == {"wrong"}
        assert f"0000.v2, positions {1000 + 3 * size} to {1000 + 4 * size}, {size} bytes: " in str(
            told
        )

    def test_name_that_is_lost(self, directory: Path) -> None:
        (directory / "journal" / "epoch.json").unlink()
        finding = only(journal.check_content, subject(directory))
        assert finding.verdict == "wrong"
        assert finding.what.startswith(f"{directory}/journal/epoch.json: ")

    def test_of_two_journals(self, directory: Path) -> None:
        Epoch(5, 1, "", True).write(directory / "journal")
        finding = only(journal.check_content, subject(directory))
        assert finding.verdict == "wrong"
        assert "0000.v2: its messages are of epoch" in finding.what

    def test_whose_files_this_user_may_not_read(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        finding = only(journal.check_content, subject(directory))
        assert finding.verdict == "note"
        assert f"may not read {directory}/journal" in finding.what


class TestRoom:
    def disk(self, monkeypatch: pytest.MonkeyPatch, free: int, inodes: int = 1000) -> None:
        told = SimpleNamespace(f_bavail=free, f_frsize=1, f_files=inodes, f_favail=inodes)
        monkeypatch.setattr(os, "statvfs", lambda _: told)

    @pytest.mark.parametrize(
        ("missing", "verdicts"), [(0, ["ok"]), (1, ["wrong"])], ids=["fits", "one byte too few"]
    )
    def test_free(self, directory: Path, monkeypatch, missing: int, verdicts: list[str]) -> None:
        used = sum(
            path.stat().st_blocks * 512
            for path in (directory / "journal").iterdir()
            if path.suffix != ".json"
        )
        self.disk(monkeypatch, (16 << 20) - used - missing)
        told = found(journal.check_room, subject(directory, journal_size="16M"))
        assert [verdict for verdict, _ in told] == verdicts

    def test_before_the_first_start(self, tmp_path: Path, monkeypatch) -> None:
        self.disk(monkeypatch, 1 << 20)
        finding = only(journal.check_room, subject(tmp_path / "no" / "such"))
        assert "has 0 B of 1.0 G, its disk has 1.0 M free" in finding.what

    def test_more_than_wanted(self, directory: Path, monkeypatch) -> None:
        monkeypatch.setattr(Path, "stat", lambda *_, **__: SimpleNamespace(st_blocks=1 << 15))
        monkeypatch.setattr(Path, "is_dir", lambda _: True)
        told = found(journal.check_room, subject(directory, journal_size="16M"))
        assert told[0] == (
            "note",
            f"{directory}/journal has 64.0 M, --journal-size is 16.0 M: the oldest messages go at "
            "the next start",
        )

    @pytest.mark.parametrize(("inodes", "verdicts"), [(100, 1), (3, 2), (0, 1)])
    def test_inodes(self, tmp_path: Path, monkeypatch, inodes: int, verdicts: int) -> None:
        self.disk(monkeypatch, 1 << 40, inodes)
        told = found(journal.check_room, subject(tmp_path))
        assert len(told) == verdicts
        if verdicts == 2:
            assert told[1][0] == "wrong"
            assert told[1][1].startswith(f"the disk of {tmp_path}/journal has 3 inodes left, ")
