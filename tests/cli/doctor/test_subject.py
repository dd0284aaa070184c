"""What several checks ask of one relay."""

import fcntl
import os
from pathlib import Path

import pytest

from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.words import Failure
from tests.cli.doctor.subjects import subject
from tests.cli.side_port import document, ok, side_port
from tests.journal.writer import Segment, message, save


def test_nobody_runs(tmp_path: Path) -> None:
    one = subject(tmp_path)
    assert (one.listens, one.pid, one.uid, one.url, one.answer) == (False, None, None, None, None)
    with pytest.raises(Failure, match="no side port"):
        _ = one.snapshot


def test_who_has_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "s.sock.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert subject(tmp_path).pid == os.getpid()
        assert subject(tmp_path).uid == os.geteuid()
        monkeypatch.setattr(system, "is_alive", lambda _: False)  # it has handed the lock over
        assert subject(tmp_path).pid is None


def test_who_says_so_itself(tmp_path: Path) -> None:
    with side_port(lambda: ok(document())) as port:
        one = subject(tmp_path, url=f"{port.url}/api/status")
        assert (one.pid, one.snapshot.version) == (77, "0.1.0")
        assert len(port.paths) == 1


def test_url_of_the_side_port(tmp_path: Path) -> None:
    web = "tcp:9760:interface=127.0.0.1"
    assert subject(tmp_path, web=web).url == "http://127.0.0.1:9760/api/status"
    assert subject(tmp_path, web=web, url="http://other/").url == "http://other/"


def test_another_answers(tmp_path: Path) -> None:
    with side_port(lambda: ok({})) as port:
        one = subject(tmp_path, url=port.url)
        with pytest.raises(Failure, match="not with a relay's status"):
            _ = one.snapshot


class TestGuessed:
    def test_a_wrong_value(self, tmp_path: Path) -> None:
        one = subject(tmp_path, socket_mode="rw")
        assert (one.is_guessed("socket-mode"), one.is_guessed("hold")) == (True, False)

    @pytest.mark.parametrize(
        ("content", "guessed"),
        [
            ("hold = 3", set()),
            ("socket_mode = 3\nhold = 3", {"socket-mode", "access"}),
            ("hold = ", {"hold", "socket-mode", "access"}),
            ("[[access]]", {"access"}),
        ],
    )
    def test_a_wrong_file(self, tmp_path: Path, content: str, guessed: set[str]) -> None:
        config = tmp_path / "relay.toml"
        config.write_text(content)
        one = subject(tmp_path, config=str(config))
        asked = ("socket", "hold", "socket-mode", "access")
        assert {name for name in asked if one.is_guessed(name)} == guessed


def test_journal(tmp_path: Path) -> None:
    save(tmp_path / "journal", Segment().fill([message(1)]))
    journal = subject(tmp_path).journal
    assert journal is not None
    assert journal.messages == 1
    assert subject(tmp_path, journal="none").journal is None
