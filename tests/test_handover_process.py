"""Real relays that take over from each other, and sockets that systemd passes in."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from alphapulse_relay.client.blocking import Client as BlockingClient
from alphapulse_relay.client.core import NOTHING
from alphapulse_relay.protocol_v2.control import Start
from alphapulse_relay.protocol_v2.header import Header
from alphapulse_relay.unix_socket import peer_of
from tests.programs import tool
from tests.support import (
    FOREGROUND,
    PATIENCE,
    TWISTD,
    Client,
    Relay,
    clean_environment,
    message,
)

NOBODY = 65534
QUIET = ("--web", "none")
SUBSCRIBERS = 10
SOURCE, LAST_SOURCE = 20, 21
LAUNCHER = """
import os, socket, sys
for number, path in enumerate(sys.argv[1].split(","), 3):
    if path.isdecimal():
        listening = socket.socket(socket.AF_INET)
        listening.bind(("127.0.0.1", int(path)))
    else:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        os.chmod(path, 0o600)
    listening.listen()
    os.dup2(listening.detach(), number + 100)
for number in range(3, 4 + sys.argv[1].count(",")):
    os.dup2(number + 100, number)
    os.close(number + 100)
variables = {
    "LISTEN_PID": str(os.getpid()),
    "LISTEN_FDS": str(1 + sys.argv[1].count(",")),
    "LISTEN_FDNAMES": ":".join("name" for _ in sys.argv[1].split(",")),
}
os.execve(sys.executable, [sys.executable, *sys.argv[2:]], os.environ | variables)
"""
"""Does as systemd does: binds what is named, and becomes the program that is to have it."""
ASK = """
import os, sys
from alphapulse_relay.handover import ask
os.setuid(int(sys.argv[2]))
offer = ask(sys.argv[1])
print(offer, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path short enough for a socket, that any user can look into."""
    path = Path(tempfile.mkdtemp(prefix="relay-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def taking_over(directory: Path, *options: str) -> Relay:
    return Relay("--takeover", *(options or QUIET), directory=directory)


@contextmanager
def late_start(relay: Relay) -> Iterator[Relay]:
    """Start a relay that will not serve at once."""
    relay.start()
    try:
        yield relay
    finally:
        relay.__exit__()


def launched(directory: Path, passed: str, *options: str) -> Relay:
    """Return a relay that is passed the sockets of these paths and ports."""
    program = (sys.executable, "-c", LAUNCHER, passed, *FOREGROUND)
    return Relay(*(options or QUIET), directory=directory, program=program)


def refused(directory: Path, *options: str) -> tuple[int, list[str]]:
    """Return the status and the errors of a relay that takes over and is expected not to serve."""
    relay = Relay("--takeover", *options, directory=directory)
    with late_start(relay):
        return relay.stop(0), errors(relay)


def errors(relay: Relay) -> list[str]:
    """Return what a relay that has ended wrote on standard error."""
    start = "signal-relay: "
    return [line[len(start) : -1] for line in relay.log if line.startswith(start)]


def assert_parted_from(waiting: Client, relay: Relay) -> None:
    """See that who waited for a relay which never served was not let in, and nothing failed."""
    with closing(waiting), pytest.raises(ConnectionResetError):
        waiting.receive(1)
    log = "".join(relay.log)
    assert "peer connected" not in log
    assert "Traceback" not in log


def asked(relay: Relay, uid: int) -> str:
    """Return how it goes wrong that a process of that user asks for a relay's sockets."""
    command = [sys.executable, "-c", ASK, str(relay.socket), str(uid)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stderr


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.01)


def ended(relay: Relay) -> int:
    """Return the exit status of a relay that leaves by itself, and take the rest of its log."""
    return relay.stop(0)


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {"journal"}


def forwards(relay: Relay) -> None:
    """See that it serves."""
    reader, sender = relay.connect(), relay.connect()
    sent = message(20, 1)
    sender.send(sent)
    assert reader.receive(len(sent)) == sent
    reader.close()
    sender.close()
    for _ in range(2):
        relay.wait_for_log("peer disconnected")


def answering(path: Path) -> int | None:
    """Return the pid by which a client knows who listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return peer_of(client)[0]


class Publisher(threading.Thread):
    """Publishes until it is told to stop; all is acknowledged then."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.sent: list[bytes] = []
        self.over = threading.Event()
        self._path = path

    def run(self) -> None:
        with BlockingClient(self._path, types=NOTHING, acknowledge=True) as client:
            while not self.over.wait(0.005):
                self._publish(client, SOURCE)
            self._publish(client, LAST_SOURCE)
            client.flush(PATIENCE)

    def _publish(self, client: BlockingClient, source: int) -> None:
        self.sent.append(message(source, len(self.sent)))
        client.publish(self.sent[-1])


class Subscriber(threading.Thread):
    """Has a name and a bookmark, and takes what comes until it has the last."""

    def __init__(self, path: Path, number: int) -> None:
        super().__init__(daemon=True)
        self.seen: list[bytes] = []
        self.began = threading.Event()
        self._client = BlockingClient(
            path,
            name=f"subscriber {number}",
            start=Start.POSITION,
            bookmark=path.with_name(f"bookmark-{number}"),
            timeout=PATIENCE,
        )

    def run(self) -> None:
        with self._client as client:
            while not self.seen or Header.unpack(self.seen[-1]).source != LAST_SOURCE:
                self.seen.append(client.receive(PATIENCE).data)
                self.began.set()


class TestHandover:
    def test_nothing_is_lost_or_repeated_under_load(self) -> None:
        with ExitStack() as stack:
            relay = stack.enter_context(Relay(*QUIET))
            publisher = Publisher(relay.socket)
            subscribers = [Subscriber(relay.socket, number) for number in range(SUBSCRIBERS)]
            for thread in (publisher, *subscribers):
                thread.start()
            assert all(subscriber.began.wait(PATIENCE) for subscriber in subscribers)
            for _ in range(3):
                before = len(publisher.sent)
                old, relay = relay, stack.enter_context(taking_over(relay.directory))
                old.wait_for_log(rf"handed over to pid {relay.process.pid}: leaving")
                assert ended(old) == 0
                for subscriber in subscribers:
                    wait_until(lambda: len(subscriber.seen) > before)  # noqa: B023
            publisher.over.set()
            publisher.join(PATIENCE)
            for subscriber in subscribers:
                subscriber.join(PATIENCE)
                assert subscriber.seen == publisher.sent
            assert relay.stop() == 0
            assert "Traceback" not in "".join(relay.log)

    def test_the_last_of_a_chain_removes_the_sockets(self, directory: Path) -> None:
        with ExitStack() as stack:
            relay = stack.enter_context(Relay(*QUIET, directory=directory))
            for _ in range(2):
                forwards(relay)
                old, relay = relay, stack.enter_context(taking_over(directory))
                assert ended(old) == 0
                assert files(directory) == {"s.sock", "s.sock.lock", "s.sock.handover"}
            forwards(relay)
            with pytest.raises(AssertionError, match=f"another relay .pid {relay.process.pid}. li"):
                stack.enter_context(Relay(*QUIET, directory=directory))
            assert relay.stop() == 0
            assert files(directory) == {"s.sock.lock"}

    def test_who_connects_meanwhile_waits_and_is_served(self, directory: Path) -> None:
        """The old one is kept from leaving by a consumer that does not read."""
        with Relay(*QUIET, "--drain", "60", directory=directory) as old:
            slow, sender = old.connect(), old.connect()
            sent = [message(20, number, 60_000) for number in range(16)]
            sender.send(b"".join(sent))
            other = old.connect()
            with late_start(taking_over(directory)) as new:
                old.wait_for_log("handed over")
                waiting = Client(directory / "s.sock")
                assert slow.receive_all() == b"".join(sent)
                assert ended(old) == 0
                new.wait_for_log("signal relay .* serves")
                new.wait_for_log("peer connected")
                with closing(new.connect()) as publisher:
                    publisher.send(sent[0])
                    assert waiting.receive(60_000) == sent[0]
                # What it took before the handover, and nothing of what came after.
                assert b"".join(sent).endswith(other.receive_all())
                waiting.close()

    def test_all_listeners_go_along_and_what_is_not_asked_for_is_closed(
        self, directory: Path
    ) -> None:
        more = directory / "more.sock"
        options = ("--listen", "tcp:0:interface=127.0.0.1", "--listen", f"unix:{more}:mode=600")
        with Relay(*options, directory=directory) as old:
            ports = (old.listen_port, old.port)
            listen = (f"tcp:{ports[0]}:interface=127.0.0.1", f"unix:{more}:mode=640")
            web = f"tcp:{ports[1]}:interface=127.0.0.1"
            again = ("--listen", listen[0], "--listen", listen[1], "--web", web)
            with taking_over(directory, *again) as new:
                assert ended(old) == 0
                assert (new.listen_port, new.port) == ports
                assert new.status()["pid"] == new.process.pid
                assert more.stat().st_mode & 0o777 == 0o640
                new.connect_tcp()
                with taking_over(directory, "--web", web) as last:
                    log = "".join(last.log)
                    assert f"nothing listens on 127.0.0.1:{ports[0]}, which was passed in" in log
                    assert f"nothing listens on {more}, which was passed in" in log
                    assert not more.exists()
                    assert last.get("/healthz")[0] == 200
                    assert ended(new) == 0

    def test_the_mode_is_that_of_the_new_one(self, directory: Path) -> None:
        mode = ("--socket-mode", "600")
        with Relay(*QUIET, directory=directory) as old, taking_over(directory, *QUIET, *mode):
            assert ended(old) == 0
            assert old.socket.stat().st_mode & 0o777 == 0o600

    def test_another_journal_is_told_of(self, directory: Path) -> None:
        other = ("--journal", str(directory / "other"))
        with (
            Relay(*QUIET, directory=directory) as old,
            taking_over(directory, *QUIET, *other) as new,
        ):
            assert ended(old) == 0
            theirs = (
                f"has its journal in {directory}/journal, this one has {directory}/other: every"
            )
            assert theirs in "".join(new.log)
            with taking_over(directory, *QUIET, *other) as last:
                assert ended(new) == 0
                assert "bookmark" not in "".join(last.log)

    def test_where_there_is_no_relay_it_starts_as_usual(self, directory: Path) -> None:
        with taking_over(directory) as relay:
            relay.process.kill()
            relay.process.wait()
            assert files(directory) == {"s.sock", "s.sock.lock", "s.sock.handover"}
            with taking_over(directory) as again:
                forwards(again)
                assert again.stop() == 0
                assert files(directory) == {"s.sock.lock"}

    def test_in_the_background(self, directory: Path) -> None:
        with Relay(*QUIET, directory=directory) as old:
            pidfile = directory / "pid"
            command = [sys.executable, "-c", TWISTD, "--pidfile", pidfile]
            command += ["--logfile", directory / "log", "signal-relay"]
            done = subprocess.run(
                [*command, "--socket", old.socket, *QUIET, "--takeover"],
                timeout=PATIENCE,
                env=clean_environment(),
                check=False,
                stdin=subprocess.DEVNULL,
            )
            assert done.returncode == 0
            assert ended(old) == 0
            wait_until(lambda: " serves " in (directory / "log").read_text())
            os.kill(int(pidfile.read_text()), signal.SIGTERM)
            wait_until(lambda: not pidfile.exists())
            assert not old.socket.exists()

    def test_as_another_user_than_it_was_started_by(self, directory: Path) -> None:
        """With ``twistd --uid``, as root."""
        if os.geteuid() != 0:
            pytest.skip("only root may become another user")
        journal = directory / "j"
        journal.mkdir()
        os.chown(journal, NOBODY, NOBODY)
        options = (*QUIET, "--journal", str(journal), "--takeover")
        program = (sys.executable, *FOREGROUND, f"--uid={NOBODY}", f"--gid={NOBODY}")
        with ExitStack() as stack:
            old, new = (
                stack.enter_context(Relay(*options, directory=directory, program=program))
                for _ in range(2)
            )
            assert ended(old) == 0
            assert f"Uid:\t{NOBODY}" in Path(f"/proc/{new.process.pid}/status").read_text()
            forwards(new)


class TestFailures:
    """What goes wrong with the new one leaves the old one as it was."""

    @pytest.fixture
    def relay(self, directory: Path) -> Iterator[Relay]:
        with Relay(*QUIET, directory=directory) as relay:
            yield relay
            assert answering(relay.socket) == relay.process.pid
            for event in ("connected", "disconnected"):
                relay.wait_for_log(f"peer {event}")
            forwards(relay)
            with taking_over(directory) as new:
                assert ended(relay) == 0
                assert answering(new.socket) == new.process.pid
                for event in ("connected", "disconnected"):
                    new.wait_for_log(f"peer {event}")
                forwards(new)

    def test_one_that_dies_before_it_has_said_that_it_has_them(self, relay: Relay) -> None:
        command = [sys.executable, "-c", ASK, str(relay.socket), str(os.geteuid())]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as taker:
            assert taker.stdout is not None
            assert b"Offer(" in taker.stdout.readline()
            assert "does not hand over: it refuses; see its log" in asked(relay, os.geteuid())
            relay.wait_for_log("does not take over: another does")
            taker.kill()

    def test_one_that_cannot_listen(self, relay: Relay) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            status, lines = refused(relay.directory, *QUIET, "--listen", port)
        assert status == 78
        assert lines == [f"--listen {port}: cannot listen: Address already in use"]

    def test_one_that_could_not_write_its_journal(self, relay: Relay) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        closed = relay.directory / "closed"
        closed.mkdir(mode=0o500)
        status, lines = refused(relay.directory, *QUIET, "--journal", str(closed / "j"))
        assert status == 78
        assert lines == [f"--journal: {closed / 'j'}: Permission denied"]

    def test_one_whose_journal_cannot_be(self, relay: Relay) -> None:
        file = relay.directory / "file"
        file.touch()
        for journal in (file, file / "j", Path("/proc/j")):
            status, (line,) = refused(relay.directory, *QUIET, "--journal", str(journal))
            assert status == 78
            assert line.startswith(f"--journal: {journal}")
        file.unlink()

    def test_one_that_is_led_to_it_from_another_address(self, relay: Relay) -> None:
        elsewhere = relay.directory / "elsewhere"
        elsewhere.mkdir()
        os.link(f"{relay.socket}.handover", elsewhere / "s.sock.handover")
        status, (line,) = refused(elsewhere, *QUIET)
        assert status == 75
        assert f"what answers is another's, with {relay.socket}, " in line

    def test_one_of_another_user(self, relay: Relay) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root may become another user")
        for mode, reason in ((0o600, "Permission denied"), (0o666, "it refuses")):
            Path(f"{relay.socket}.handover").chmod(mode)
            assert f"does not hand over: {reason}; see its log" in asked(relay, NOBODY)
        relay.wait_for_log(f"does not take over: it is of another user .uid {NOBODY}.")


class TestEnds:
    """What goes wrong when the old one has left already, or is about to."""

    def test_a_journal_that_cannot_be_had_ends_the_new_one(self, directory: Path) -> None:
        journal = ("--journal", str(directory / "other"))
        with (
            Relay(*QUIET, *journal) as other,
            Relay(*QUIET, "--drain", "60", directory=directory) as old,
        ):
            slow, sender = old.connect(), old.connect()
            sent = b"".join(message(20, number, 60_000) for number in range(16))
            sender.send(sent)
            with late_start(taking_over(directory, *QUIET, *journal)) as new:
                old.wait_for_log("handed over")
                waiting = Client(directory / "s.sock")
                assert slow.receive_all() == sent
                assert new.stop(0) == 75
            assert_parted_from(waiting, new)
            (line,) = errors(new)
            assert line.startswith(f"--journal: {directory}/other is in use by another relay")
            assert f"(pid {other.process.pid})" in line
            assert ended(old) == 0
            assert files(directory) == {"other", "s.sock.lock"}

    def test_sigterm_ends_the_new_one_while_it_waits(self, directory: Path) -> None:
        with Relay(*QUIET, "--drain", "60", directory=directory) as old:
            slow, sender = old.connect(), old.connect()
            sent = b"".join(message(20, number, 60_000) for number in range(16))
            sender.send(sent)
            with late_start(taking_over(directory)) as new:
                old.wait_for_log("handed over")
                new.wait_for_log(rf"the old relay \(pid {old.process.pid}\) leaves")
                waiting = Client(directory / "s.sock")
                assert new.stop() == 0
                assert_parted_from(waiting, new)
                assert slow.receive_all() == sent
                assert ended(old) == 0
                assert files(directory) == {"s.sock.lock"}

    def test_an_old_one_that_is_killed_while_it_leaves(self, directory: Path) -> None:
        with Relay(*QUIET, "--drain", "60", directory=directory) as old:
            _, sender = old.connect(), old.connect()
            sender.send(b"".join(message(20, number, 60_000) for number in range(16)))
            with late_start(taking_over(directory)) as new:
                new.wait_for_log("the old relay .* leaves")
                old.process.kill()
                new.wait_for_log("signal relay .* serves")
                forwards(new)


class TestSquatting:
    """Somebody else is where the handover is asked for."""

    @pytest.fixture
    def foreign(self, directory: Path) -> Iterator[Path]:
        """A socket of somebody else, in a directory where everybody may make files."""
        if os.geteuid() != 0:
            pytest.skip("only root may become another user")
        directory.chmod(0o1777)
        path = directory / "s.sock.handover"
        code = (
            "import os, socket, sys; os.setuid(int(sys.argv[2]));"
            "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]);"
            "s.listen(); print(flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, str(path), str(NOBODY)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            yield path

    def test_is_not_asked(self, directory: Path, foreign: Path) -> None:
        status, (line,) = refused(directory, *QUIET)
        assert status == 75
        assert line.startswith(f"--takeover: the relay at {foreign.with_suffix('')} does not hand")
        assert "it is of another user (pid " in line
        assert f"uid {NOBODY})" in line

    def test_keeps_nobody_from_starting(self, directory: Path, foreign: Path) -> None:
        with Relay(*QUIET, directory=directory) as relay:
            assert "nobody can take over from this relay: another relay" in "".join(relay.log)
            forwards(relay)
            assert relay.stop() == 0
            assert foreign.is_socket()

    @pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("elsewhere")])
    def test_what_is_no_socket_is_left_alone(self, directory: Path, make: object) -> None:
        path = directory / "s.sock.handover"
        make(path)  # type: ignore[operator]
        with Relay(*QUIET, directory=directory) as relay:
            assert "nobody can take over from this relay" in "".join(relay.log)
            assert relay.stop() == 0
        assert os.path.lexists(path)


def test_of_many_that_start_at_once_one_wins(directory: Path) -> None:
    """On a socket that a relay which was killed has left behind."""
    with Relay(*QUIET, directory=directory) as first:
        first.process.kill()
        first.process.wait()
    relays = [Relay(*QUIET, "--journal", "none", directory=directory) for _ in range(5)]
    with ExitStack() as stack:
        for relay in relays:
            stack.enter_context(late_start(relay))
        wait_until(lambda: sum(relay.process.poll() is not None for relay in relays) == 4)
        (winner,) = (relay for relay in relays if relay.process.poll() is None)
        winner.wait_for_log("signal relay .* serves")
        forwards(winner)
        assert [relay.process.poll() for relay in relays if relay is not winner] == [75] * 4
        assert winner.stop() == 0
        assert files(directory) == {"s.sock.lock"}


class TestAbstract:
    """``--socket @name``, for which there must be rules by uid."""

    @pytest.fixture
    def options(self, directory: Path) -> tuple[str, ...]:
        config = directory / "relay.toml"
        config.write_text(f'[[access]]\nname = "us"\nuid = [{os.geteuid()}]\n')
        return (
            *("--socket", f"@relay-test-{directory.name}", "--config", str(config)),
            *("--journal", str(directory / "j"), *QUIET),
        )

    def test_serves_those_of_the_rules_and_is_handed_over(
        self, directory: Path, options: tuple[str, ...]
    ) -> None:
        name = options[1]
        with (
            Relay(*options, directory=directory) as old,
            Relay("--takeover", *options, directory=directory) as new,
        ):
            assert ended(old) == 0
            sent = message(20, 1)
            with (
                BlockingClient(name, types=NOTHING, acknowledge=True) as client,
                closing(connected(name)) as peer,
            ):
                new.wait_for_log("peer connected")
                client.publish(sent, wait=True, timeout=PATIENCE)
                assert peer.recv(len(sent)) == sent
            assert new.stop() == 0
        assert files(directory) == {"j", "relay.toml"}

    def test_refuses_others(self, directory: Path, options: tuple[str, ...]) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root may become another user")
        code = (
            "import os, socket, sys; os.setuid(int(sys.argv[2]));"
            "s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + sys.argv[1][1:]);"
            "print(s.recv(4096))"
        )
        with Relay(*options, directory=directory) as relay:
            command = [sys.executable, "-c", code, options[1], str(NOBODY)]
            subprocess.run(command, check=True, timeout=PATIENCE, capture_output=True)
            relay.wait_for_log(f"connection refused: .*uid={NOBODY}.* reason=forbidden")

    def test_a_second_one_is_refused(self, directory: Path, options: tuple[str, ...]) -> None:
        with Relay(*options, directory=directory) as relay:
            second = Relay(*options, "--journal", "none", directory=directory)
            with late_start(second):
                assert second.stop(0) == 75
            assert f"another relay (pid {relay.process.pid}) lives on {options[1]}" in second.log[0]


def connected(name: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(PATIENCE)
    peer.connect(f"\0{name[1:]}")
    return peer


class TestActivation:
    """Sockets that are passed in as systemd does."""

    def test_serves_them_and_leaves_them(self, directory: Path) -> None:
        path = directory / "s.sock"
        with launched(directory, str(path)) as relay:
            forwards(relay)
            assert path.stat().st_mode & 0o777 == 0o600
            assert relay.stop() == 0
            assert files(directory) == {"s.sock"}

    def test_tcp_and_what_nobody_listens_on(self, directory: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        more = directory / "more.sock"
        listen = ("--listen", f"tcp:{port}:interface=127.0.0.1")
        passed = f"{directory / 's.sock'},{port},{more}"
        with launched(directory, passed, *QUIET, *listen) as relay:
            assert f"nothing listens on {more}, which was passed in" in "".join(relay.log)
            relay.connect_tcp().close()
            relay.wait_for_log("peer disconnected")
            forwards(relay)
            assert relay.stop() == 0
        assert more.is_socket(), "it is not ours"

    def test_twisted_endpoint(self, directory: Path) -> None:
        """``systemd:`` takes a socket by its number; its file stays as it was."""
        more = directory / "more.sock"
        passed = f"{directory / 's.sock'},{more}"
        with launched(
            directory, passed, *QUIET, "--listen", "systemd:domain=UNIX:index=1"
        ) as relay:
            assert "nothing listens" not in "".join(relay.log)
            client = Client(more)
            relay.wait_for_log("peer connected")
            client.close()
            assert more.stat().st_mode & 0o777 == 0o600
            assert relay.stop() == 0
        assert more.is_socket()

    def test_twisted_endpoints_after_sighup(self, directory: Path) -> None:
        """Its number is closed by then, or has become something else's."""
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        passed = f"{directory / 's.sock'},{directory / 'more.sock'},{port}"
        config = directory / "relay.toml"
        listen = ["systemd:domain=UNIX:index=1", "systemd:domain=INET:index=2"]
        config.write_text(f"listen = {json.dumps(listen)}\n")
        with launched(directory, passed, *QUIET, "--config", str(config)) as relay:
            for hold in (3, 4):
                config.write_text(f"listen = {json.dumps(listen)}\nhold = {hold}\n")
                relay.process.send_signal(signal.SIGHUP)
                line = relay.wait_for_log("SIGHUP: (nothing|settings)|Traceback")
                assert line.endswith("changed: --hold\n")
            relay.connect_tcp().close()

    def test_handed_over_they_are_not_removed_either(self, directory: Path) -> None:
        path = directory / "s.sock"
        with launched(directory, str(path)) as old, taking_over(directory) as new:
            assert ended(old) == 0
            forwards(new)
            assert path.stat().st_mode & 0o777 == 0o600
            assert new.stop() == 0
            assert files(directory) == {"s.sock"}

    def test_by_systemd(self, directory: Path) -> None:
        path = directory / "s.sock"
        program = (
            *(tool("systemd-socket-activate"), f"--listen={path}"),
            *("--setenv=PYTHONUNBUFFERED=1", sys.executable, *FOREGROUND),
        )
        with late_start(Relay(*QUIET, directory=directory, program=program)) as relay:
            wait_until(path.is_socket)
            first = Client(path)  # which is what systemd starts the relay for
            relay.wait_for_log("peer connected")
            sent = message(20, 1)
            with closing(relay.connect()) as sender:
                sender.send(sent)
                assert first.receive(len(sent)) == sent
            first.close()
            assert relay.stop() == 0
        assert path.is_socket()
