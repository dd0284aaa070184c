"""Where the relay listens, on a real reactor: bound, passed in, lent."""

import errno
import os
import shutil
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as installed_reactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher

from alphapulse_relay.hub.ports import UnixPort
from alphapulse_relay.listener import ListenerService, SocketReactor, address_of
from alphapulse_relay.passed import Passed, PassedSockets, from_parts
from alphapulse_relay.unix_socket import StartError

reactor: Any = installed_reactor


@pytest.fixture
def path() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="relay-"))
    yield directory / "s.sock"
    shutil.rmtree(directory)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def warnings(stack: ExitStack) -> list[str]:
    found: list[str] = []

    def observer(event: Any) -> None:
        if event["log_level"].name == "warn":
            found.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observer)
    stack.callback(globalLogPublisher.removeObserver, observer)
    return found


class Accepting(ServerFactory):
    """Counts whom it accepts."""

    def __init__(self) -> None:
        self.accepted = 0

    def buildProtocol(self, _: object) -> Protocol:
        self.accepted += 1
        return Protocol()


def sockets(passed: list[Passed] | None = None) -> SocketReactor:
    return SocketReactor(reactor, PassedSockets(passed or []))


def listening(stack: ExitStack, address: Any) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    found = stack.enter_context(socket.socket(family))
    found.bind(address)
    found.listen()
    found.setblocking(False)
    return found


def connect(stack: ExitStack, path: Path) -> socket.socket:
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(str(path))
    return client


def backlog_of(port: Any) -> int:
    """Return how many may wait at a TCP port: what a listener has as ``tcpi_sacked`` (tcp(7))."""
    information = port.socket.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 64)
    return int(struct.unpack_from("I", information, 28)[0])


def can_wait(path: Path) -> bool:
    """Tell whether one more may wait at a socket; it goes away again, but has its place."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        return client.connect_ex(str(path)) == 0


def lent(given: SocketReactor) -> list[Passed]:
    """Return what another process would be given."""
    parts = [part for each in given.passable() for part in each.parts()]
    return from_parts([(name, os.dup(descriptor)) for name, descriptor in parts])


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await deferLater(reactor, 0, lambda: None)


class TestBound:
    async def test_a_path_is_claimed_and_removed(self, path: Path) -> None:
        here = sockets()
        port = here.listenUNIX(str(path), Accepting(), mode=0o640)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        with pytest.raises(StartError, match=r"another relay \(pid"):
            sockets().listenUNIX(str(path), Accepting())
        assert here.owns(port)
        await port.stopListening()
        assert [each.name for each in path.parent.iterdir()] == ["s.sock.lock"]

    async def test_beside_another_path_no_lock_is_taken(self, path: Path) -> None:
        port = sockets().listenUNIX(str(path), Accepting(), guarded=False)
        assert [each.name for each in path.parent.iterdir()] == ["s.sock"]
        await port.stopListening()

    def test_who_binds_between_claim_and_bind_is_told_of(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(_: object) -> None:
            raise CannotListenError(None, str(path), OSError(errno.EADDRINUSE, "in use"))

        monkeypatch.setattr(UnixPort, "startListening", start)
        with pytest.raises(StartError, match=f"another relay lives on {path}") as raised:
            sockets().listenUNIX(str(path), Accepting())
        assert raised.value.status == os.EX_TEMPFAIL

    def test_what_else_goes_wrong_gives_the_path_up(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(_: object) -> None:
            raise CannotListenError(None, str(path), OSError(errno.EACCES, "no"))

        whole = UnixPort.startListening
        monkeypatch.setattr(UnixPort, "startListening", start)
        with pytest.raises(CannotListenError):
            sockets().listenUNIX(str(path), Accepting())
        monkeypatch.setattr(UnixPort, "startListening", whole)
        again = sockets()
        again.listenUNIX(str(path), Accepting())
        again.abandon()

    async def test_abandoned_nothing_is_left(self, path: Path) -> None:
        here = sockets()
        here.listenUNIX(str(path), Accepting())
        here.abandon()
        assert not path.exists()
        await turns()

    async def test_an_abstract_name(self) -> None:
        name = f"\0relay-test-{os.getpid()}"
        port = sockets().listenUNIX(name, Accepting())
        with pytest.raises(StartError, match=f"lives on @{name[1:]}"):
            sockets().listenUNIX(name, Accepting())
        await port.stopListening()
        await sockets().listenUNIX(name, Accepting()).stopListening()


class TestPassedIn:
    async def test_a_path_that_nobody_lent_stays(self, path: Path, stack: ExitStack) -> None:
        theirs = listening(stack, str(path))
        path.chmod(0o600)
        here = sockets([Passed(theirs.dup())])
        factory = Accepting()
        port = here.listenUNIX(str(path), factory, mode=0o666)
        connect(stack, path)
        while not factory.accepted:
            await turns(1)
        assert not here.owns(port)
        await port.stopListening()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connect(stack, path)

    async def test_a_path_is_listened_on_when_it_is_ours(
        self, path: Path, stack: ExitStack
    ) -> None:
        theirs = listening(stack, str(path))
        theirs.listen(0)
        here = sockets([Passed(theirs.dup())])
        port = here.listenUNIX(str(path), Accepting(), 1)
        here.hold()
        assert [can_wait(path) for _ in range(2)] == [True, False]
        here.own()
        assert [can_wait(path) for _ in range(2)] == [True, False]
        await port.stopListening()

    async def test_a_port(self, stack: ExitStack) -> None:
        theirs = listening(stack, ("127.0.0.1", 0))
        theirs.listen(7)
        number = theirs.getsockname()[1]
        here = sockets([Passed(theirs.dup())])
        port = here.listenTCP(number, Accepting(), 9, interface="127.0.0.1")
        assert port.getHost().port == number
        assert backlog_of(port) == 7
        here.own()
        assert backlog_of(port) == 9
        assert here.passed.rest() == []
        await port.stopListening()
        stack.enter_context(socket.create_connection(("127.0.0.1", number)))

    @pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
    async def test_by_its_number(self, path: Path, stack: ExitStack, family: int) -> None:
        """As the endpoint ``systemd:`` asks for it, which closes the number then."""
        address = str(path) if family == socket.AF_UNIX else ("127.0.0.1", 0)
        theirs = listening(stack, address)
        passed = Passed(theirs.dup())
        number = passed.socket.fileno()
        here = sockets([passed])
        port = here.adoptStreamPort(number, family, Accepting())
        os.close(number)
        assert here.passed.rest() == []
        await port.stopListening()
        os.fstat(theirs.fileno())

    def test_what_nobody_asked_for_is_told_and_closed(
        self, path: Path, stack: ExitStack, warnings: list[str]
    ) -> None:
        theirs = listening(stack, str(path))
        sockets([Passed(theirs.dup())]).drop_unused()
        assert warnings == [f"nothing listens on {path}, which was passed in"]
        assert path.is_socket()


class TestLent:
    """Two that share their sockets, as two processes do."""

    async def test_until_the_old_one_leaves_nothing_changes(
        self, path: Path, stack: ExitStack
    ) -> None:
        old, factory = sockets(), Accepting()
        port = old.listenUNIX(str(path), factory)
        new = sockets(lent(old))
        new.listenUNIX(str(path), Accepting())
        new.hold()
        new.abandon()
        await turns()
        connect(stack, path)
        while not factory.accepted:
            await turns(1)
        await port.stopListening()
        assert not path.exists()

    async def test_who_connects_meanwhile_is_the_new_ones(
        self, path: Path, stack: ExitStack
    ) -> None:
        old, before, after = sockets(), Accepting(), Accepting()
        port = old.listenUNIX(str(path), before)
        tcp = old.listenTCP(0, before, interface="127.0.0.1")
        number = tcp.getHost().port
        new = sockets(lent(old))
        new_port = new.listenUNIX(str(path), after)
        new_tcp = new.listenTCP(number, after, interface="127.0.0.1")
        new.hold()
        old.lend()
        connect(stack, path)
        stack.enter_context(socket.create_connection(("127.0.0.1", number)))
        await port.stopListening()
        await tcp.stopListening()
        assert path.is_socket()
        new.own()
        assert (before.accepted, after.accepted) == (0, 0)
        new.admit()
        while after.accepted < 2:
            await turns(1)
        await new_port.stopListening()
        await new_tcp.stopListening()
        assert [each.name for each in path.parent.iterdir()] == ["s.sock.lock"]

    async def test_what_the_new_one_does_not_ask_for_is_removed(
        self, path: Path, warnings: list[str]
    ) -> None:
        old = sockets()
        port = old.listenUNIX(str(path), Accepting())
        new = sockets(lent(old))
        old.lend()
        await port.stopListening()
        new.drop_unused()
        assert warnings == [f"nothing listens on {path}, which was passed in"]
        assert not path.exists()


class TestService:
    async def test_those_that_wait_are_accepted_before_it_closes(
        self, path: Path, stack: ExitStack
    ) -> None:
        here, factory = sockets(), Accepting()
        service = ListenerService(str(path), 0o660, factory, here, here)
        service.privilegedStartService()
        service.startService()
        connect(stack, path)
        await service.stopService()
        assert factory.accepted == 1
        assert not path.exists()

    async def test_unless_the_relay_never_served(self, path: Path, stack: ExitStack) -> None:
        here, factory = sockets(), Accepting()
        service = ListenerService(str(path), 0o660, factory, here, here)
        service.privilegedStartService()
        connect(stack, path)
        await service.stopService()
        assert factory.accepted == 0
        assert not path.exists()

    async def test_unless_another_will(self, path: Path, stack: ExitStack) -> None:
        theirs = listening(stack, str(path))
        here, factory = sockets([Passed(theirs.dup())]), Accepting()
        service = ListenerService(str(path), 0o660, factory, here, here)
        service.privilegedStartService()
        service.startService()
        connect(stack, path)
        await service.stopService()
        assert factory.accepted == 0
        theirs.accept()[0].close()

    async def test_that_never_listened(self, path: Path) -> None:
        here = sockets()
        await ListenerService(str(path), 0o660, Accepting(), here, here).stopService()


def test_address() -> None:
    assert address_of(Path("/run/s.sock")) == "/run/s.sock"
    assert address_of(Path("@relay")) == "\0relay"


def test_it_is_the_reactor_in_all_else() -> None:
    assert sockets().callLater == reactor.callLater
