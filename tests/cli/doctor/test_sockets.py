"""The socket's file, its directory, and who listens."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from alphapulse_relay.cli.doctor import system
from alphapulse_relay.cli.doctor.sockets import (
    check_directory,
    check_listener,
    check_permission,
    check_socket,
)
from tests.cli.doctor.subjects import found, only, running, subject

OTHER_UID = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")


@contextmanager
def bound(path: Path | str, *, listens: bool = True) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        if listens:
            one.listen()
        if isinstance(path, Path):
            path.chmod(0o660)
        yield


class TestDirectory:
    def test_sound(self, short_path: Path) -> None:
        finding = only(check_directory, subject(short_path))
        assert finding.verdict == "ok"
        assert finding.what.startswith(f"{short_path}: mode 700, of ")

    def test_missing(self, short_path: Path) -> None:
        finding = only(check_directory, subject(short_path / "none"))
        assert (finding.verdict, finding.what) == (
            "note",
            f"{short_path}/none is not there: the relay makes it",
        )

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
    def test_others_write(self, short_path: Path, mode: int) -> None:
        short_path.chmod(mode)
        finding = only(check_directory, subject(short_path))
        assert (finding.verdict, finding.what) == (
            "wrong",
            f"others can write to the directory {short_path}",
        )
        assert finding.mend.startswith("run chmod go-w on it")

    @pytest.mark.parametrize("name", ["sub", "none"])
    def test_others_write_further_up(self, short_path: Path, name: str) -> None:
        (short_path / "sub").mkdir()
        short_path.chmod(0o770)
        verdicts = [verdict for verdict, _ in found(check_directory, subject(short_path / name))]
        assert verdicts == (["wrong"] if name == "sub" else ["wrong", "note"])

    def test_sticky(self, short_path: Path) -> None:
        short_path.chmod(0o1777)
        assert only(check_directory, subject(short_path)).verdict == "note"

    def test_symbolic_link(self, short_path: Path) -> None:
        (short_path / "real").mkdir()
        (short_path / "link").symlink_to(short_path / "real")
        finding = only(check_directory, subject(short_path / "link"))
        assert (finding.verdict, finding.what) == (
            "wrong",
            f"the directory {short_path}/link is a symbolic link",
        )
        assert f"{short_path}/real" in finding.mend

    def test_no_directory(self, short_path: Path) -> None:
        (short_path / "file").touch()
        finding = only(check_directory, subject(short_path / "file"))
        assert (finding.verdict, finding.what) == ("wrong", f"{short_path}/file is not a directory")

    @as_root
    def test_of_another_user(self, short_path: Path) -> None:
        os.chown(short_path, OTHER_UID, -1)
        finding = only(check_directory, subject(short_path))
        assert finding.verdict == "wrong"
        assert finding.what == f"{short_path} belongs to another user (uid {OTHER_UID})"

    @as_root
    def test_of_the_relay_that_runs(
        self, short_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.chown(short_path, OTHER_UID, -1)
        monkeypatch.setattr("alphapulse_relay.cli.doctor.system.owner_of", lambda _: OTHER_UID)
        assert only(check_directory, running(short_path, os.getpid())).verdict == "ok"


class TestSocket:
    def test_sound(self, short_path: Path) -> None:
        with bound(short_path / "s.sock"):
            finding = only(check_socket, subject(short_path))
        assert finding.verdict == "ok"
        assert finding.what.startswith(f"{short_path}/s.sock: mode 660, of ")

    def test_none(self, short_path: Path) -> None:
        finding = only(check_socket, subject(short_path))
        assert finding.what == f"no relay: there is no socket {short_path}/s.sock"
        assert "twistd -n signal-relay" in finding.mend

    def test_none_where_another_relay_runs(
        self, short_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        relay = ["python", "/usr/bin/twistd", "-n", "signal-relay", "-s", "/run/x.sock"]
        other = ["sudo", "signal-relay", "doctor"]
        monkeypatch.setattr(system, "commands", lambda: [(7, relay), (8, other)])
        finding = only(check_socket, subject(short_path))
        assert finding.mend.endswith(
            "; relays that run, for their options: pid 7 with -s /run/x.sock"
        )

    def test_removed_while_a_relay_listens(self, short_path: Path) -> None:
        with bound(short_path / "s.sock"):
            (short_path / "s.sock").unlink()
            finding = only(check_socket, subject(short_path))
        assert finding.what == (
            f"{short_path}/s.sock was removed, while pid {os.getpid()} listens there: "
            "nobody can connect any more"
        )
        assert "restart" in finding.mend

    def test_none_of_a_relay_that_runs(self, short_path: Path) -> None:
        finding = only(check_socket, running(short_path, os.getpid()))
        assert finding.what.endswith(f"s.sock, but pid {os.getpid()} runs")

    def test_something_else(self, short_path: Path) -> None:
        (short_path / "s.sock").touch()
        finding = only(check_socket, subject(short_path))
        assert (finding.verdict, finding.what) == (
            "wrong",
            f"{short_path}/s.sock is not a socket",
        )

    def test_another_mode(self, short_path: Path) -> None:
        with bound(short_path / "s.sock"):
            finding = only(check_socket, subject(short_path, socket_mode="600"))
        assert (finding.verdict, finding.what) == (
            "note",
            f"{short_path}/s.sock has mode 660, --socket-mode is 600",
        )

    def test_a_mode_that_the_settings_leave_open(self, short_path: Path) -> None:
        config = short_path / "relay.toml"
        config.write_text("socket_mode = 666")
        with bound(short_path / "s.sock"):
            (short_path / "s.sock").chmod(0o666)
            finding = only(check_socket, subject(short_path, config=str(config)))
        assert (finding.verdict, finding.mend) == ("note", "")

    def test_open_to_all_with_access_rules(self, short_path: Path) -> None:
        config = short_path / "relay.toml"
        config.write_text('socket-mode = "666"\n[[access]]\nname = "desk"\nuid = [0]\n')
        with bound(short_path / "s.sock"):
            (short_path / "s.sock").chmod(0o666)
            finding = only(check_socket, subject(short_path, config=str(config)))
        assert finding.verdict == "ok"
        assert finding.what.endswith("mode 666, the access rules decide who is let in")

    def test_open_to_all(self, short_path: Path) -> None:
        with bound(short_path / "s.sock"):
            (short_path / "s.sock").chmod(0o666)
            finding = only(check_socket, subject(short_path, socket_mode="666"))
        assert finding.verdict == "note"
        assert "every user of this machine" in finding.what

    def test_path_that_is_too_long(self, short_path: Path) -> None:
        room = 107 - len(f"{short_path}/")
        longest, longer = ("x" * room, "x" * (room + 1))
        assert (
            "no socket"
            in only(check_socket, subject(short_path, socket=f"{short_path}/{longest}")).what
        )
        finding = only(check_socket, subject(short_path, socket=f"{short_path}/{longer}"))
        assert "longer than 107 bytes" in finding.what


class TestListener:
    def test_this_process(self, short_path: Path) -> None:
        with bound(short_path / "s.sock"):
            finding = only(check_listener, subject(short_path))
        assert finding.verdict == "ok"
        assert finding.what.startswith(f"pid {os.getpid()} of ")

    def test_stopped(self, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system, "is_stopped", lambda _: True)
        with bound(short_path / "s.sock"):
            finding = only(check_listener, subject(short_path))
        assert (finding.verdict, finding.mend) == ("wrong", f"kill -CONT {os.getpid()}")

    def test_by_another_name_of_the_directory(self, short_path: Path) -> None:
        (short_path / "real").mkdir()
        (short_path / "link").symlink_to(short_path / "real")
        with bound(short_path / "link" / "s.sock"):
            assert subject(short_path / "real").pid == os.getpid()

    def test_dead_socket(self, short_path: Path) -> None:
        with bound(short_path / "s.sock"):
            pass
        finding = only(check_listener, subject(short_path))
        assert finding.what.startswith(f"nobody listens on {short_path}/s.sock: ")
        assert finding.mend == "start the relay: it replaces the socket"

    def test_bound_only(self, short_path: Path) -> None:
        with bound(short_path / "s.sock", listens=False):
            assert only(check_listener, subject(short_path)).verdict == "wrong"

    def test_no_socket_is_told_elsewhere(self, short_path: Path) -> None:
        assert found(check_listener, subject(short_path)) == []

    def test_whom_this_user_may_not_see(
        self, short_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("alphapulse_relay.cli.doctor.system.holders", lambda _: [])
        with bound(short_path / "s.sock"):
            assert only(check_listener, subject(short_path)).verdict == "note"


class TestAbstract:
    @pytest.fixture
    def name(self, short_path: Path) -> str:
        return f"@{short_path.name}"

    def look(self, name: str) -> list[str]:
        one = subject(Path("/nowhere"))
        object.__setattr__(one.settings, "socket", Path(name))
        checks = (check_directory, check_socket, check_listener, check_permission)
        return [verdict for check in checks for verdict, _ in found(check, one)]

    def test_somebody_listens(self, name: str) -> None:
        with bound(f"\0{name[1:]}"):
            assert self.look(name) == ["ok", "ok"]

    def test_nobody_listens(self, name: str) -> None:
        assert self.look(name) == ["ok", "wrong"]


class TestPermission:
    def test_may(self, short_path: Path) -> None:
        with bound(short_path / "s.sock"):
            assert only(check_permission, subject(short_path)).verdict == "ok"

    def test_may_not(self, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with bound(short_path / "s.sock"):
            monkeypatch.setattr(os, "access", lambda *_, **__: False)
            finding = only(check_permission, subject(short_path))
        assert finding.verdict == "wrong"
        assert finding.what.endswith(f"may not connect to {short_path}/s.sock: its mode is 660")
        group = os.getegid()
        assert finding.mend.startswith("join the group " if group else "start the relay with ")

    def test_may_not_get_there(self, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def deny(self: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "stat", deny)
        finding = only(check_permission, subject(short_path))
        assert finding.what.endswith(f"may not search {short_path}")
        assert finding.verdict == "wrong"

    def test_no_socket_is_told_elsewhere(self, short_path: Path) -> None:
        assert found(check_permission, subject(short_path)) == []
