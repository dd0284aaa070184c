"""Which directories a journal may lie in, and who has one."""

import os
from pathlib import Path

import pytest

from alphapulse_relay.hub.journal_place import holder, why_unfit
from alphapulse_relay.journal.format import EPOCH_FILE, LOCK_FILE


@pytest.mark.parametrize("name", [None, LOCK_FILE, EPOCH_FILE, "0003.v2", "0003.index"])
def test_one_that_is_empty_or_holds_a_journal(tmp_path: Path, name: str | None) -> None:
    if name is not None:
        (tmp_path / name).touch()
    assert why_unfit(tmp_path) is None


def test_one_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "report.txt").touch()
    assert why_unfit(tmp_path) == f"{tmp_path} is not empty and holds no journal"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_one_that_others_can_write_to(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    assert why_unfit(tmp_path) == (
        f"others can write to the directory {tmp_path}: run chmod go-w on it, or choose another "
        "--journal"
    )


def test_one_below_such_a_one(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    tmp_path.chmod(0o770)
    assert str(why_unfit(tmp_path / "journal")).startswith("others can write to the directory ")
    tmp_path.chmod(0o1777)
    assert why_unfit(tmp_path / "journal") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_one_of_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 54321, -1)
    assert why_unfit(tmp_path) == (
        f"{tmp_path} belongs to another user (uid 54321): choose another --journal, or chown it"
    )


def test_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "journal").symlink_to("real")
    what = f"the directory {tmp_path}/journal is a symbolic link"
    assert why_unfit(tmp_path / "journal") == f"{what}: give the path it leads to, {tmp_path}/real"


@pytest.mark.parametrize(
    ("text", "pid"), [("17\n", 17), ("", None), ("relay", None), ("9" * 5000, None), (None, None)]
)
def test_who_has_it(tmp_path: Path, text: str | None, pid: int | None) -> None:
    if text is not None:
        (tmp_path / LOCK_FILE).write_text(text)
    assert holder(tmp_path) == pid
