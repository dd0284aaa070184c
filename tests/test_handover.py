"""Both ends of a handover, with a clock of its own: what is said, and what else may come."""

import gc
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from alphapulse_relay import handover
from alphapulse_relay.handover import (
    ASK_INTERVAL,
    ASK_SECONDS,
    LEAVE_SECONDS,
    OFFER_MAX,
    PROGRESS_SECONDS,
    TAKE_SECONDS,
    VERSION,
    Giver,
    GiverFactory,
    Offer,
    Taking,
    ask,
)
from alphapulse_relay.hub.throttle import LINES_PER_SECOND
from alphapulse_relay.passed import Passed, PassedSockets
from alphapulse_relay.unix_socket import StartError

OTHER = 12345
GONE = Failure(ConnectionDone())


@pytest.fixture
def address() -> Iterator[str]:
    directory = Path(tempfile.mkdtemp(prefix="relay-"))
    yield str(directory / "s.sock")
    shutil.rmtree(directory)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def logged(stack: ExitStack) -> list[str]:
    lines: list[str] = []

    def observer(event: Any) -> None:
        lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observer)
    stack.callback(globalLogPublisher.removeObserver, observer)
    return lines


class Descriptors(StringTransport):
    """Keeps the descriptors that are sent; the other end is this process."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self.sent: list[int] = []
        self._handle, other = socket.socketpair()
        stack.callback(self._handle.close)
        stack.callback(other.close)

    def getHandle(self) -> socket.socket:
        return self._handle

    def sendFileDescriptor(self, descriptor: int) -> None:
        self.sent.append(descriptor)


class Old:
    """An old relay."""

    def __init__(self, stack: ExitStack) -> None:
        self.clock, self._stack = Clock(), stack
        self.socket = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.left = 0
        offered = [Passed(self.socket, 1, 2)]
        self.giver = Giver(self.clock, lambda: offered, lambda: 5.0, self._leave, "/log")

    def _leave(self) -> None:
        self.left += 1

    def connect(self) -> tuple[Any, Descriptors]:
        transport = Descriptors(self._stack)
        protocol: Any = GiverFactory(self.giver).buildProtocol(None)
        protocol.makeConnection(transport)
        return protocol, transport


@pytest.fixture
def old(stack: ExitStack) -> Old:
    return Old(stack)


class TestGiver:
    def test_offers_leaves_and_lets_the_other_begin(self, old: Old, logged: list[str]) -> None:
        protocol, transport = old.connect()
        assert transport.sent == [old.socket.fileno(), 1, 2]
        assert json.loads(transport.value()) == {
            "version": VERSION,
            "pid": os.getpid(),
            "drain": 5.0,
            "journal": "/log",
            "descriptors": ["socket", "lock", "file"],
        }
        transport.clear()
        for byte in b"taken\n":
            assert old.left == 0
            protocol.dataReceived(bytes([byte]))
        assert old.left == 1
        assert transport.value() == b"leaving\n"
        assert logged == [f"handed over to pid {os.getpid()}: leaving"]
        old.giver.withdraw()
        assert not transport.disconnecting
        old.giver.finish()
        assert transport.disconnecting
        protocol.connectionLost(GONE)
        assert not old.clock.getDelayedCalls()

    def test_one_that_goes_changes_nothing(self, old: Old) -> None:
        protocol, _ = old.connect()
        protocol.connectionLost(GONE)
        old.giver.finish()
        assert old.left == 0
        assert not old.clock.getDelayedCalls()
        assert old.connect()[1].sent, "another may ask"

    def test_one_at_a_time(self, old: Old, logged: list[str]) -> None:
        old.connect()
        protocol, transport = old.connect()
        assert transport.disconnected
        assert not transport.sent
        assert not transport.value()
        protocol.connectionLost(GONE)
        assert old.connect()[1].disconnected, "the first is still there"
        assert logged[0] == f"pid {os.getpid()} does not take over: another does"

    def test_one_that_is_slow_is_parted_from(self, old: Old, logged: list[str]) -> None:
        protocol, transport = old.connect()
        protocol.dataReceived(b"take")
        old.clock.advance(TAKE_SECONDS)
        assert transport.disconnected
        assert logged == [f"pid {os.getpid()} does not take over: it is too slow"]
        protocol.connectionLost(GONE)
        assert old.left == 0

    @pytest.mark.parametrize("said", [b"x", b"taken!", b"taken\nx"])
    def test_what_is_not_understood(self, old: Old, said: bytes, logged: list[str]) -> None:
        protocol, transport = old.connect()
        protocol.dataReceived(said)
        assert transport.disconnected
        assert old.left == 0
        assert "what it says is not understood" in logged[0]

    def test_once_it_leaves_nothing_more_counts(self, old: Old) -> None:
        protocol, transport = old.connect()
        protocol.dataReceived(b"taken\n")
        protocol.dataReceived(b"taken\n")
        protocol.dataReceived(b"x" * 1000)
        assert old.left == 1
        assert not transport.disconnected
        assert protocol._received == b"taken\n", "nothing more is kept"

    def test_a_relay_that_leaves_by_itself_gives_nothing(self, old: Old) -> None:
        _, transport = old.connect()
        old.giver.withdraw()
        assert transport.disconnected

    def test_another_user(
        self, old: Old, monkeypatch: pytest.MonkeyPatch, logged: list[str]
    ) -> None:
        monkeypatch.setattr(handover, "peer_of", lambda _: (4711, OTHER))
        _, transport = old.connect()
        assert transport.disconnected
        assert not transport.sent
        assert logged == [f"pid 4711 does not take over: it is of another user (uid {OTHER})"]

    def test_those_who_may_not_cannot_fill_the_log(
        self, old: Old, monkeypatch: pytest.MonkeyPatch, logged: list[str]
    ) -> None:
        monkeypatch.setattr(handover, "peer_of", lambda _: (4711, OTHER))
        for _ in range(100):
            old.connect()
        assert len(logged) == LINES_PER_SECOND
        old.clock.advance(1)
        old.connect()
        assert logged[-1].endswith("(90 such lines left out before)")

    def test_root_may(self, old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)
        monkeypatch.setattr(handover, "peer_of", lambda _: (4711, 0))
        assert old.connect()[1].sent


@contextmanager
def answering(address: str, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Have something listen where a relay is asked for its sockets."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.handover")
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def offer(names: list[str], **changed: object) -> bytes:
    content = {"version": VERSION, "pid": 7, "drain": 2.5, "descriptors": names}
    return json.dumps(content | changed).encode() + b"\n"


def open_descriptors() -> int:
    gc.collect()  # what others have left
    return len(os.listdir("/proc/self/fd"))


class TestAsk:
    def test_nobody_is_there(self, address: str) -> None:
        assert ask(address) is None

    def test_somebody_was_there(self, address: str) -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(f"{address}.handover")
        assert ask(address) is None

    @pytest.fixture
    def one(self, address: str, stack: ExitStack) -> socket.socket:
        """The listening socket of the relay at the address."""
        one = stack.enter_context(socket.socket(socket.AF_UNIX))
        one.bind(address)
        one.listen()
        return one

    def test_an_offer_comes_in_pieces(
        self, address: str, one: socket.socket, stack: ExitStack
    ) -> None:
        two = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        lock = stack.enter_context(socket.socket())  # any descriptor will do
        text = offer(["socket", "lock", "socket"])

        def answer(connection: socket.socket) -> None:
            for number, descriptor in enumerate([one.fileno(), lock.fileno(), two.fileno()]):
                socket.send_fds(connection, [text[number : number + 1]], [descriptor])
            for number in range(3, len(text)):
                connection.send(text[number : number + 1])

        with answering(address, answer):
            found = ask(address)
        assert found is not None
        assert (found.pid, found.drain, found.journal) == (7, 2.5, None)
        sockets = found.sockets.rest()
        assert [each.address for each in sockets] == [
            address,
            "127.0.0.1:%d" % two.getsockname()[1],  # noqa: UP031 - a port is a number
        ]
        assert [each.lock is None for each in sockets] == [False, True]
        for each in sockets:
            assert not each.socket.get_inheritable()
            each.close()
        found.connection.close()

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            (b"", "it refuses"),
            (offer(["socket"])[:-1], "it refuses"),
            (b" " * (OFFER_MAX + 1), "it refuses"),
            (b"x\n", "Expecting value"),
            (b"[]\n", "list indices"),
            (b"{}\n", "'version'"),
            (offer([], version=2), "it does so by version 2, not 1"),
            (offer(["socket"]), r"zip\(\) argument 2 is shorter"),
            (offer([], pid=None), "int"),
        ],
        ids=repr,
    )
    def test_what_is_no_offer(self, address: str, said: bytes, reason: str) -> None:
        before = open_descriptors()
        with (
            answering(address, lambda connection: connection.sendall(said)),
            pytest.raises(StartError, match=reason) as raised,
        ):
            ask(address)
        assert raised.value.status == os.EX_TEMPFAIL
        assert str(raised.value).startswith(f"--takeover: the relay at {address} does not hand ")
        assert open_descriptors() == before

    def test_what_does_not_listen_is_no_offer(self, address: str) -> None:
        before = open_descriptors()

        def answer(connection: socket.socket) -> None:
            with open("/dev/null", "rb") as file, socket.create_server(("", 0)) as fine:
                socket.send_fds(
                    connection, [offer(["socket", "socket"])], [fine.fileno(), file.fileno()]
                )

        with answering(address, answer), pytest.raises(StartError):
            ask(address)
        assert open_descriptors() == before

    def test_the_journal_is_told(self, address: str, one: socket.socket) -> None:
        said = offer(["socket"], journal="/log")
        with answering(address, lambda to: socket.send_fds(to, [said], [one.fileno()]) and None):
            found = ask(address)
        assert found is not None
        assert found.journal == "/log"
        found.connection.close()
        for each in found.sockets.rest():
            each.close()

    @pytest.mark.parametrize("names", [["socket"], []])
    def test_the_relay_of_another_address(
        self, address: str, names: list[str], stack: ExitStack
    ) -> None:
        """A link may lead to it."""
        elsewhere = f"{address}-2"
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(elsewhere)
        other.listen()
        heard: list[bytes] = []

        def answer(connection: socket.socket) -> None:
            socket.send_fds(connection, [offer(names)], [other.fileno()][: len(names)])
            heard.append(connection.recv(100))

        before = open_descriptors()
        what = elsewhere if names else "no sockets"
        with (
            answering(address, answer),
            pytest.raises(StartError, match=f"what answers is another's, with {what}; see its log"),
        ):
            ask(address)
        assert heard == [b""], "it is not told to leave"
        assert open_descriptors() == before

    def test_a_link(self, address: str) -> None:
        with answering(f"{address}-2", lambda connection: None):
            link = Path(f"{address}.handover")
            link.symlink_to(f"{address}-2.handover")
            with pytest.raises(StartError, match=f"{link} is not a socket") as raised:
                ask(address)
            assert raised.value.status == os.EX_TEMPFAIL
            with pytest.raises(StartError):
                ask(f"{address}-2")

    def test_a_crowd_is_waited_for(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where there are no permissions, everybody can fill the kernel's queue."""
        waited: list[float] = []
        with ExitStack() as stack:
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(f"{address}.handover")
            server.listen(0)
            crowd = stack.enter_context(socket.socket(socket.AF_UNIX))
            crowd.connect(f"{address}.handover")

            def sleep(seconds: float) -> None:
                waited.append(seconds)
                if len(waited) == 3:
                    server.accept()[0].close()
                    server.close()  # whoever waits is parted from

            monkeypatch.setattr(handover.time, "sleep", sleep)
            assert ask(address) is None
        assert waited == [ASK_INTERVAL] * 3

    def test_a_crowd_that_stays(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handover, "ASK_SECONDS", 0.05)
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as crowd:
            server.bind(f"{address}.handover")
            server.listen(0)
            crowd.connect(f"{address}.handover")
            with pytest.raises(StartError, match="Resource temporarily unavailable"):
                ask(address)

    def test_silence(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert ASK_SECONDS > 1
        monkeypatch.setattr(handover, "ASK_SECONDS", 0.01)
        with (
            answering(address, lambda connection: connection.recv(1) and None),
            pytest.raises(StartError, match="does not hand over: timed out"),
        ):
            ask(address)

    def test_another_user(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(handover, "peer_of", lambda _: (4711, OTHER))
        with (
            answering(address, lambda connection: None),
            pytest.raises(StartError, match=rf"another user \(pid 4711, uid {OTHER}\)"),
        ):
            ask(address)


class New:
    """A new relay that has the sockets."""

    def __init__(self, stack: ExitStack) -> None:
        self.clock = Clock()
        self.owned = 0
        connection = stack.enter_context(socket.socket())
        self.taking = Taking(
            Offer(7, 2.0, None, PassedSockets(), connection), self.clock, self._own
        )
        self.results: list[object] = []
        self.taking.done.addBoth(self.results.append)
        self.transport = StringTransport()
        self.taking.makeConnection(self.transport)

    def _own(self) -> None:
        self.owned += 1

    def problem(self) -> str:
        (failure,) = self.results
        assert isinstance(failure, Failure)
        assert isinstance(failure.value, StartError)
        assert failure.value.status == os.EX_TEMPFAIL
        return str(failure.value)


@pytest.fixture
def new(stack: ExitStack) -> Iterator[New]:
    new = New(stack)
    yield new
    assert not new.clock.getDelayedCalls()


class TestTaking:
    def test_waits_until_the_old_one_has_left(self, new: New, logged: list[str]) -> None:
        assert new.transport.value() == b"taken\n"
        new.taking.dataReceived(b"leav")
        assert not new.owned
        new.taking.dataReceived(b"ing\n")
        assert new.owned == 1
        assert not new.results
        new.clock.advance(PROGRESS_SECONDS)
        new.taking.connectionLost(GONE)
        assert new.results == [None]
        assert logged == [
            "the old relay (pid 7) leaves",
            "waiting for the old relay (pid 7) to leave",
            "took over from the relay of pid 7",
        ]

    @pytest.mark.parametrize("said", [b"", b"leaving", b"other\n"])
    def test_one_that_does_not_say_that_it_leaves_may_go_on(self, new: New, said: bytes) -> None:
        new.taking.dataReceived(said)
        new.taking.connectionLost(GONE)
        assert not new.owned
        assert new.problem() == (
            "--takeover: the relay (pid 7) is not taken over from: it did not say that it leaves"
        )

    def test_one_that_does_not_leave(self, new: New) -> None:
        new.taking.dataReceived(b"leaving\n")
        new.clock.advance(LEAVE_SECONDS + 2)
        assert "it has not left within 62 s" in new.problem()
        new.taking.connectionLost(GONE)

    def test_may_be_stopped(self, new: New) -> None:
        new.taking.dataReceived(b"leaving\n")
        new.taking.done.cancel()
        (failure,) = new.results
        assert isinstance(failure, Failure)
        assert failure.check(CancelledError)
        new.taking.connectionLost(GONE)
