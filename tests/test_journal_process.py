"""Journals of real relay processes: killed, stopped, two on one, and on a disk that is full."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak import JOURNAL, check_replay, kill_round, replay
from tests.support import PATIENCE, TWISTD, Relay, clean_environment, message, messages

ROUNDS = 10
ROOM = 8 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 8 MiB of room."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own can be mounted by root only")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass


def test_a_kill_at_any_moment_loses_nothing_that_was_delivered(tmp_path: Path) -> None:
    chance, seen = random.Random(), []
    with Relay(*JOURNAL) as home:
        home.stop()
        for _ in range(ROUNDS):
            seen = kill_round(home.directory, chance, seen)
        with Relay(*JOURNAL, directory=home.directory) as relay:
            check_replay(relay, seen)


def test_who_stops_and_starts_loses_nothing() -> None:
    sent = messages(1, 500)
    with Relay(*JOURNAL) as first:
        publisher, consumer = first.connect(), first.connect()
        publisher.send(b"".join(sent))
        assert consumer.messages(500) == sent
        assert first.stop() == 0
        for _ in range(2):
            with Relay(*JOURNAL, directory=first.directory) as again:
                assert replay(again) == sent
                check_replay(again, sent)
                assert again.stop() == 0


def test_without_a_journal_nothing_is_kept() -> None:
    options = ("--journal", "none")
    with Relay(*options) as first:
        publisher, consumer = first.connect(), first.connect()
        publisher.send(message(1, 1))
        consumer.messages(1)
        assert len(replay(first)) == 1
        first.stop()
        assert [path.name for path in first.directory.iterdir()] == ["s.sock.lock"]
        with Relay(*options, directory=first.directory) as second:
            assert replay(second) == []


def test_a_second_relay_on_a_journal_ends_with_75_and_one_line(tmp_path: Path) -> None:
    with Relay(*JOURNAL) as relay:
        journal = relay.directory / "journal"
        second = subprocess.run(
            [
                *(sys.executable, "-c", TWISTD, "-n", "--pidfile=", "signal-relay"),
                *("--web", "none", "--journal", str(journal)),
                *("--socket", str(relay.directory / "second.sock")),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=tmp_path,
            env=clean_environment(),
            check=False,
        )
        assert second.returncode == 75
        (line,) = (one for one in second.stderr.splitlines() if one.startswith("signal-relay: "))
        assert line.startswith(f"signal-relay: --journal: {journal} is in use by another relay ")
        assert f"(pid {relay.process.pid})" in line
        publisher, consumer = relay.connect(), relay.connect()
        publisher.send(message(1, 1))
        assert consumer.messages(1)


def test_a_full_disk_is_told_until_there_is_room_again(small_disk: Path) -> None:
    size = ("--journal-size", "4M", "--max-message", "96K")
    with Relay("--journal", str(small_disk / "journal"), *size) as relay:
        publisher, consumer = relay.connect(), relay.connect()
        assert relay.get("/readyz")[0] == 200
        fill(small_disk / "other")
        sent = [message(1, number, 60_000) for number in range(40)]
        publisher.send(b"".join(sent))
        assert consumer.messages(40) == sent
        status, body = relay.get("/readyz")
        assert status == 503
        assert "No space left on device" in body
        assert replay(relay) == sent
        (small_disk / "other").unlink()
        wait_until_ready(relay)
        sent.append(message(1, 40, 60_000))
        publisher.send(sent[-1])
        assert consumer.messages(1) == sent[-1:]
        assert replay(relay) == sent
        assert relay.get("/readyz")[0] == 200


def wait_until_ready(relay: Relay) -> None:
    deadline = time.monotonic() + PATIENCE
    while relay.get("/readyz")[0] != 200:
        assert time.monotonic() < deadline, "never ready again"
        time.sleep(0.1)  # the relay itself only tries again after seconds
