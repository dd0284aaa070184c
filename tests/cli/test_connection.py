"""The line that tells why there is no relay, with real sockets."""

import os
import socket
import threading
from pathlib import Path

import pytest

from alphapulse_relay.cli.connection import closed, connect
from alphapulse_relay.cli.words import Failure
from alphapulse_relay.protocol_v2.control import ErrorMessage
from tests.cli.conftest import PATIENCE, run
from tests.client.tls_relay import TLSRelay


@pytest.fixture
def path(short_path: Path) -> str:
    return str(short_path / "s")


@pytest.fixture
def listener(path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        yield listening


def message(path: str) -> str:
    with pytest.raises(Failure) as raised:
        connect(path)
    return raised.value.message


def test_connects(path, listener):
    with connect(path) as connection, listener.accept()[0] as accepted:
        connection.sendall(b"x")
        assert accepted.recv(10) == b"x"


def test_nothing_there(path):
    assert message(path).startswith(f"no relay: there is no socket {path}: start one with ")


@pytest.mark.parametrize("name", ["127.0.0.1:7843", "relay.example:7843"])
def test_port_without_a_scheme(name):
    assert message(name) == (
        f"no relay: there is no socket {name}: a port is --connect tls:{name} or tcp:{name}"
    )


def test_no_directory_there(path):
    Path(path).touch()
    assert message(f"{path}/s").startswith(f"no relay: there is no socket {path}/s: start one")


def test_stale_socket(path, listener):
    listener.close()
    assert message(path).startswith(
        f"no relay: nothing listens on {path}, a relay left it behind: start one with "
    )


def test_not_a_socket(path):
    Path(path).touch()
    assert message(path).startswith(f"no relay: {path} is not a socket: start one with ")


def test_path_too_long(path):
    assert message("x" * 200) == f"cannot connect to {'x' * 200}: AF_UNIX path too long"


def in_a_child_of(user: int, path: str) -> str:
    """What somebody else is told; only root can become somebody else."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        try:
            connect(path)
        except Failure as failure:
            os.write(writing, failure.message.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told:
        return told.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
class TestSomebodyElse:
    def test_socket_of_a_group(self, path, listener):
        os.chmod(path, 0o660)
        os.chmod(os.path.dirname(path), 0o755)
        assert in_a_child_of(65534, path) == (
            f"no permission to connect to {path}: its mode is 660: join its group, root, or start "
            "the relay with --socket-mode"
        )

    def test_directory_that_may_not_be_searched(self, path, listener):
        directory = os.path.dirname(path)
        os.chmod(directory, 0o700)
        assert in_a_child_of(65534, path) == (
            f"no permission to connect to {path}: you may not search {directory}"
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect to any socket")
def test_no_permission(path, listener):
    os.chmod(path, 0)
    assert message(path).startswith(f"no permission to connect to {path}: its mode is 0: join ")


@pytest.mark.parametrize("command", [["tail"], ["send", "--type", "22"]])
def test_missing_relay_is_one_line_and_status_1(command, path):
    done = run(*command, "--socket", path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().startswith(f"signal-relay: no relay: there is no socket {path}: ")
    assert done.stderr.count(b"\n") == 1


def test_socket_from_the_environment(path):
    done = run("tail", env=os.environ | {"SIGNAL_RELAY_SOCKET": path})
    assert path in done.stderr.decode()


class TestConnect:
    """The option beside --socket."""

    def test_beside_a_socket(self, path):
        done = run("tail", "--connect", "tcp:h:1", "--socket", path)
        assert done.returncode == 2
        assert done.stderr.endswith(b"Error: --connect and --socket exclude each other.\n")

    @pytest.mark.parametrize("command", [["tail"], ["send", "x"], ["replay"]])
    def test_an_address_that_is_none(self, command):
        done = run(*command, "--connect", "tls:h")
        assert done.returncode == 2
        assert b"'tls:h' is not such as tcp:HOST:PORT or tls:HOST:PORT:ca=FILE." in done.stderr

    def test_goes_before_a_socket_from_the_environment(self, path):
        environment = {"SIGNAL_RELAY_SOCKET": "/other", "SIGNAL_RELAY_CONNECT": f"unix:{path}"}
        assert f"no socket {path}:" in run("tail", env=os.environ | environment).stderr.decode()

    def test_a_flag_goes_before_the_environment(self, path):
        environment = os.environ | {"SIGNAL_RELAY_CONNECT": "tcp:h:1"}
        assert f"no socket {path}:" in run("tail", "-s", path, env=environment).stderr.decode()

    def test_a_socket_may_have_any_name(self, short_path):
        done = run("tail", "--socket", "tcp:1", cwd=short_path)
        assert b"there is no socket tcp:1:" in done.stderr

    def test_nobody_has_an_abstract_name(self):
        assert message("@nobody-has-this-name") == (
            "no relay: nobody has the abstract name @nobody-has-this-name: start one with "
            '"twistd -n signal-relay", or name its socket with --socket'
        )

    def test_nothing_listens(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        assert message(f"tcp:127.0.0.1:{port}") == (
            f"no relay: nothing listens at 127.0.0.1:{port}: see whether it runs, and has such a "
            "--listen"
        )


class TestTLS:
    @pytest.mark.parametrize("command", [["tail"], ["send", "--type", "22"]])
    def test_is_not_asked_for(self, command):
        def serve() -> None:
            with listening.accept()[0] as accepted:
                accepted.recv(1)

        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = threading.Thread(target=serve)
            serving.start()
            done = run(*command, "--connect", f"tcp:127.0.0.1:{listening.getsockname()[1]}")
            serving.join(PATIENCE)
        assert done.returncode == 1
        assert b"it may encrypt: name it with tls:HOST:PORT then\n" in done.stderr

    def test_another_name(self, tmp_path):
        with TLSRelay(tmp_path, lambda connection: None) as relay:
            done = run("tail", "--connect", relay.address(name="other.example"))
        assert done.returncode == 1
        assert done.stderr.decode().startswith(
            f"signal-relay: what listens at 127.0.0.1:{relay.port} is not other.example: Hostname"
        )
        assert b"'other.example': see ca= and name= of --connect" in done.stderr
        assert done.stderr.count(b"\n") == 1

    def test_not_let_in(self, tmp_path):
        with TLSRelay(tmp_path, lambda connection: None) as relay:
            where = f"tls:127.0.0.1:{relay.port}:ca={relay.authority.file}:name=relay.example"
            done = run("tail", "--connect", where)
        assert done.returncode == 1
        assert done.stderr.count(b"\n") == 1


def test_what_is_told_of_the_end():
    assert closed(ErrorMessage(1, "magic"), "perhaps").message == (
        "the relay closed the connection: magic"
    )
    assert closed(None, "perhaps").message == "the relay closed the connection: perhaps"
    assert closed(None).message == "the relay closed the connection"
