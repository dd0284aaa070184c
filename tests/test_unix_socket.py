"""Who may hold the socket's path, what is refused, and what is removed at the end."""

import errno
import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from twisted.logger import globalLogPublisher

from alphapulse_relay.safe_path import SUN_PATH_MAX
from alphapulse_relay.unix_socket import (
    AbstractName,
    SocketPath,
    StartError,
    claim_of,
)

NOBODY = 65534


@pytest.fixture
def directory():
    """A directory with a path short enough for a socket, that any user can look into."""
    path = Path(tempfile.mkdtemp(prefix="relay-"))
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


@pytest.fixture
def path(directory):
    return directory / "signals.sock"


@pytest.fixture
def ordinary_user(directory):
    """Act as one whom permissions bind, who owns the directory."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(directory, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


@pytest.fixture
def give_away(monkeypatch):
    """Let a path belong to somebody else who is not root."""

    def give_away(path):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        else:
            other = os.geteuid() + 1
            monkeypatch.setattr(os, "geteuid", lambda: other)

    return give_away


def listen(path, backlog=5):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(backlog)
    return server


def leave_stale(path):
    listen(path).close()


def refusal(call):
    with pytest.raises(StartError) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value), refused.value.status


def assert_refused(path, what, status=78):
    """Both the look ahead and the real thing refuse, in the same words; no lock remains."""
    assert refusal(SocketPath(path).check) == (what, status)
    assert refusal(SocketPath(path).claim) == (what, status)
    assert is_free(path)


def is_free(path):
    lock_path = Path(f"{path}.lock")
    if not lock_path.is_file():
        return True
    with lock_path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_path_without_a_name():
    assert_refused(Path("/"), "/ is a directory: choose another --socket")
    assert not Path("/.lock").exists()


class TestDirectory:
    def test_is_made_with_its_parents_whatever_the_umask(self, directory):
        umask = os.umask(0o077)
        try:
            claimed = SocketPath(directory / "a" / "b" / "s")
            claimed.claim()
            assert os.umask(0o077) == 0o077
        finally:
            os.umask(umask)
        for made in (directory / "a", directory / "a" / "b"):
            assert stat.S_IMODE(made.stat().st_mode) == 0o755
        claimed.release()

    def test_check_changes_nothing(self, directory, path):
        leave_stale(path)
        SocketPath(directory / "a" / "b" / "s").check()
        SocketPath(path).check()
        assert list(directory.iterdir()) == [path]

    def test_a_symbolic_link(self, directory):
        (directory / "real").mkdir()
        link = directory / "link"
        link.symlink_to("real")
        what = f"the directory {link} is a symbolic link: give the path it leads to, "
        assert_refused(link / "s", f"{what}{directory}/real")

    def test_a_dangling_link(self, directory):
        link = directory / "link"
        link.symlink_to("nowhere")
        assert_refused(
            link / "s",
            f"the directory {link} is a symbolic link: give the path it leads to, "
            f"{directory}/nowhere",
        )

    def test_links_further_up_are_fine(self, directory):
        (directory / "real" / "sub").mkdir(parents=True)
        (directory / "link").symlink_to("real")
        claimed = SocketPath(directory / "link" / "sub" / "s")
        claimed.claim()
        claimed.release()

    def test_of_somebody_else(self, directory, path, give_away):
        give_away(directory)
        uid = directory.stat().st_uid
        assert_refused(
            path,
            f"{directory} belongs to another user (uid {uid}): choose another --socket, or chown "
            "it",
        )

    def test_below_one_that_others_can_write_to(self, directory):
        below = directory / "a" / "b"
        directory.chmod(0o775)
        what = (
            f"others can write to the directory {directory}: run chmod go-w on it, or choose "
            "another --socket"
        )
        assert refusal(SocketPath(below / "s").check) == (what, 78)
        below.mkdir(parents=True)
        assert_refused(below / "s", what)

    @pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
    def test_that_others_can_write_to(self, directory, path, mode):
        directory.chmod(mode)
        assert_refused(
            path,
            f"others can write to the directory {directory}: run chmod go-w on it, or choose "
            "another --socket",
        )

    def test_that_others_can_write_to_but_is_sticky(self, directory, path):
        directory.chmod(0o1777)
        claimed = SocketPath(path)
        claimed.check()
        claimed.claim()
        claimed.release()

    def test_is_a_file(self, directory):
        file = directory / "file"
        file.touch()
        assert_refused(file / "s", f"{file} is not a directory: choose another --socket")

    def test_below_a_file(self, directory):
        file = directory / "file"
        file.touch()
        what, _ = refusal(SocketPath(file / "sub" / "s").claim)
        assert what == (
            f"cannot make the directory {file}/sub: Not a directory; make it, or choose another "
            "--socket"
        )
        what, _ = refusal(SocketPath(file / "sub" / "s").check)
        assert what.startswith(f"cannot write to the directory {file}: ")

    def test_is_read_only(self, directory, path, ordinary_user):
        directory.chmod(0o555)
        what, status = refusal(SocketPath(path).check)
        assert what == (
            f"cannot write to the directory {directory}: let this user write there, or choose "
            "another --socket"
        )
        assert status == 78
        what, _ = refusal(SocketPath(path).claim)
        assert what.startswith(f"cannot take the lock {path}.lock: Permission denied;")

    def test_cannot_be_made(self, directory, ordinary_user):
        directory.chmod(0o555)
        path = directory / "a" / "s"
        what, _ = refusal(SocketPath(path).check)
        assert what.startswith(f"cannot write to the directory {directory}: ")
        what, status = refusal(SocketPath(path).claim)
        assert what.startswith(f"cannot make the directory {directory}/a: Permission denied; ")
        assert status == 78


class TestPath:
    def test_longest(self, directory):
        longest = directory / ("x" * (SUN_PATH_MAX - len(str(directory)) - 1))
        claimed = SocketPath(longest)
        claimed.claim()
        with closing(listen(longest)):
            claimed.bound()
            claimed.release()

    def test_too_long(self, directory):
        path = directory / ("ü" * 50)
        length = len(os.fsencode(path))
        assert length > SUN_PATH_MAX
        assert_refused(
            path,
            f"the path of the socket is too long: {path} has {length} bytes, at most 107 are "
            "possible; choose a shorter --socket",
        )

    @pytest.mark.parametrize(
        "make", [Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("x")]
    )
    def test_is_no_socket(self, path, make):
        make(path)
        what = "is there and is not a socket: move it away, or choose another --socket"
        assert_refused(path, f"{path} {what}")
        assert os.path.lexists(path)


class TestLiveness:
    def test_a_stale_socket_is_removed(self, path):
        leave_stale(path)
        claimed = SocketPath(path)
        claimed.claim()
        assert not path.exists()
        claimed.release()

    def test_a_live_socket_is_named_with_its_pid(self, path):
        with closing(listen(path)):
            assert_refused(
                path,
                f"another relay (pid {os.getpid()}) lives on {path}: stop it, or choose another "
                "--socket",
                75,
            )
            assert path.is_socket()

    def test_the_pid_is_that_of_the_other_process(self, path):
        code = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]);"
            "s.listen(); print(flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, str(path)]
        with subprocess.Popen(command, stdin=-1, stdout=-1) as other:
            other.stdout.readline()
            assert f"(pid {other.pid})" in refusal(SocketPath(path).check)[0]

    def test_a_live_socket_may_be_expected(self, path):
        with closing(listen(path)):
            SocketPath(path).check(live=True)

    def test_a_pid_of_another_namespace_is_not_named(self, path, monkeypatch):
        monkeypatch.setattr("alphapulse_relay.unix_socket.peer_of", lambda connection: (None, 0))
        with closing(listen(path)):
            what, status = refusal(SocketPath(path).check)
        assert what.startswith(f"another relay lives on {path}: ")
        assert status == 75

    def test_one_too_busy_to_answer_is_live(self, path):
        waiting = []
        with closing(listen(path, 0)):
            error = 0
            while error != errno.EAGAIN:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                error = waiting[-1].connect_ex(str(path))
            assert refusal(SocketPath(path).check)[1] == 75
            assert refusal(SocketPath(path).claim)[1] == 75
        for connection in waiting:
            connection.close()

    def test_a_socket_of_another_kind(self, path):
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
            other.bind(str(path))
            assert_refused(
                path,
                f"cannot tell whether a relay lives on {path}: it is no stream socket; look who "
                "holds it, or choose another --socket",
            )

    def test_one_that_may_not_be_asked(self, path, ordinary_user):
        with closing(listen(path)):
            path.chmod(0)
            what, status = refusal(SocketPath(path).claim)
        assert what.startswith(f"cannot tell whether a relay lives on {path}: Permission denied; ")
        assert status == 78
        assert path.is_socket()

    def test_one_that_vanishes_meanwhile(self, path, monkeypatch):
        leave_stale(path)

        def connect(self, address):
            path.unlink()
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")

        monkeypatch.setattr(socket.socket, "connect", connect)
        claimed = SocketPath(path)
        claimed.claim()
        claimed.release()

    def test_a_stale_one_that_cannot_be_removed(self, path, ordinary_user):
        leave_stale(path)
        Path(f"{path}.lock").touch()
        path.parent.chmod(0o555)
        what, status = refusal(SocketPath(path).claim)
        assert what == (
            f"cannot remove the stale socket {path}: Permission denied; remove it, or choose "
            "another --socket"
        )
        assert status == 78
        assert is_free(path)


class TestLock:
    def test_of_two_that_start_at_once_one_wins(self, path):
        first, second = SocketPath(path), SocketPath(path)
        first.claim()
        what, status = refusal(second.claim)
        assert what == f"another relay lives on {path}: stop it, or choose another --socket"
        assert status == 75
        second.release()
        assert not is_free(path)
        first.release()
        second.claim()
        second.release()

    def test_the_winner_is_named_once_it_listens(self, path):
        first = SocketPath(path)
        first.claim()
        with closing(listen(path)):
            assert f"(pid {os.getpid()})" in refusal(SocketPath(path).claim)[0]
        first.release()

    def test_only_we_may_open_it_and_children_do_not_get_it(self, path):
        claimed = SocketPath(path)
        umask = os.umask(0)
        try:
            claimed.claim()
        finally:
            os.umask(umask)
        assert stat.S_IMODE(claimed.lock_path.stat().st_mode) == 0o600
        assert claimed.lock is not None
        assert not os.get_inheritable(claimed.lock)
        claimed.release()

    def test_its_file_stays(self, path):
        claimed = SocketPath(path)
        claimed.claim()
        claimed.release()
        assert claimed.lock_path.exists()

    def test_a_symbolic_link_is_not_followed(self, path):
        target = path.with_name("target")
        Path(f"{path}.lock").symlink_to(target)
        what, status = refusal(SocketPath(path).claim)
        assert what.startswith(f"cannot take the lock {path}.lock: ")
        assert status == 78
        assert not target.exists()

    def test_a_file_of_somebody_else(self, path, give_away):
        lock_path = Path(f"{path}.lock")
        lock_path.touch()
        give_away(lock_path)
        claimed = SocketPath(path)
        what, _ = refusal(claimed._take_lock)
        claimed.release()
        assert what == (
            f"the lock file {lock_path} is not a file of this user: remove it, or choose "
            "another --socket"
        )

    def test_no_regular_file(self, path):
        os.mkfifo(f"{path}.lock")
        assert "is not a file of this user" in refusal(SocketPath(path).claim)[0]

    def test_a_file_system_without_locks(self, path, monkeypatch):
        def flock(fd, operation):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", flock)
        what, status = refusal(SocketPath(path).claim)
        assert what.startswith(f"cannot take the lock {path}.lock: No locks available; ")
        assert status == 78


class TestLent:
    """A path that another relay holds, too."""

    @pytest.fixture
    def lent(self, path):
        old = SocketPath(path)
        old.claim()
        with closing(listen(path)):
            old.bound()
            lent = SocketPath.lent(path, os.dup(old.lock), os.dup(old.file))
            yield old, lent
            lent.release()
            old.release()

    def test_is_not_removed(self, lent, path):
        _, new = lent
        new.release()
        assert path.is_socket()
        assert not is_free(path), "the old one has it"

    def test_is_removed_by_who_has_it_in_the_end(self, lent, path):
        old, new = lent
        old.owned = False
        new.own(0o600)
        old.release()
        assert path.is_socket()
        assert not is_free(path), "the lock went along"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        new.release()
        assert not path.exists()
        assert is_free(path)

    def test_permissions_are_those_of_the_socket_and_not_of_what_is_there_now(self, lent, path):
        path.unlink()
        path.touch(mode=0o644)
        lent[1].own(0o600)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        lent[1].release()
        assert path.exists()

    def test_permissions_that_cannot_be_changed_are_logged(self, lent, path, ordinary_user):
        if os.geteuid() == path.stat().st_uid:
            pytest.skip("only root can have somebody else's socket")
        events = []
        globalLogPublisher.addObserver(events.append)
        try:
            lent[1].own(0o600)
        finally:
            globalLogPublisher.removeObserver(events.append)
        assert [event["reason"] for event in events] == ["Operation not permitted"]


class TestBeside:
    def test_what_is_beside_takes_no_lock(self, path):
        claimed = SocketPath(path, guarded=False)
        claimed.claim()
        claimed.release()
        assert not claimed.lock_path.exists()

    def test_who_binds_in_between_is_told_of(self, path):
        error = SocketPath(path).taken()
        assert str(error).startswith(f"another relay lives on {path}: ")
        assert error.status == 75


class TestAbstract:
    @pytest.fixture
    def name(self):
        return f"\0relay-test-{os.getpid()}"

    def test_is_free_or_not(self, name):
        claim = claim_of(name)
        assert isinstance(claim, AbstractName)
        claim.claim()
        with closing(listen(name)):
            claim.bound()
            what = f"another relay (pid {os.getpid()}) lives on @{name[1:]}: stop it, or choose "
            assert refusal(claim.check) == (f"{what}another --socket", 75)
            assert refusal(claim.claim) == (f"{what}another --socket", 75)
            claim.check(live=True)
        claim.release()
        claim.check()

    def test_too_long(self):
        longest = "\0" + "x" * (SUN_PATH_MAX - 1)
        claim_of(longest).check()
        what, status = refusal(claim_of(longest + "x").check)
        assert what.startswith(f"the name of the socket is too long: @{longest[1:]}x has 108 bytes")
        assert status == 78

    def test_who_binds_in_between_is_told_of(self, name):
        assert claim_of(name).taken().status == 75

    def test_a_path_is_none(self, path):
        assert isinstance(claim_of(str(path)), SocketPath)


class TestRelease:
    @pytest.fixture
    def claimed(self, path):
        claimed = SocketPath(path)
        claimed.claim()
        yield claimed
        claimed.release()

    def test_removes_our_socket(self, claimed, path):
        server = listen(path)
        claimed.bound()
        server.close()
        claimed.release()
        assert not path.exists()
        assert is_free(path)

    def test_leaves_a_successors_socket(self, claimed, path):
        server = listen(path)
        claimed.bound()
        server.close()
        path.unlink()
        with closing(listen(path)):
            claimed.release()
            assert path.is_socket()
        assert is_free(path)

    def test_what_was_never_bound_is_not_removed(self, claimed, path):
        with closing(listen(path)):
            claimed.release()
            assert path.is_socket()

    def test_may_be_called_again_or_when_the_socket_is_gone(self, claimed, path):
        server = listen(path)
        claimed.bound()
        server.close()
        path.unlink()
        claimed.release()
        claimed.release()

    def test_before_a_claim_does_nothing(self, path):
        SocketPath(path).release()

    def test_leaves_no_descriptor_open(self, path):
        before = len(os.listdir("/proc/self/fd"))
        claimed = SocketPath(path)
        claimed.claim()
        with closing(listen(path)):
            claimed.bound()
        claimed.release()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_socket_that_cannot_be_removed_is_logged(self, ordinary_user, path):
        claimed, events = SocketPath(path), []
        claimed.claim()
        with closing(listen(path)):
            claimed.bound()
        path.parent.chmod(0o555)
        globalLogPublisher.addObserver(events.append)
        try:
            claimed.release()
        finally:
            globalLogPublisher.removeObserver(events.append)
        assert [event["reason"] for event in events] == ["Permission denied"]
        assert path.is_socket()
        assert is_free(path)
