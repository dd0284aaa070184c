"""The service with a fake reactor: what is started, in which order it stops, how it fails."""

import dataclasses
import fcntl
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application, IService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, globalLogPublisher

from alphapulse_relay import service
from alphapulse_relay.options import Options, Settings, settings_from
from alphapulse_relay.service import SignalRelayService
from alphapulse_relay.unix_socket import SocketPath
from tests.support import message


@pytest.fixture
def directory() -> Iterator[Path]:
    short = Path(tempfile.mkdtemp(prefix="relay-"))
    yield short
    shutil.rmtree(short)


@pytest.fixture
def settings(directory: Path) -> Settings:
    flags: dict[str, str | list[str]] = {"socket": str(directory / "s.sock"), "journal": "none"}
    return settings_from(flags, {})


@pytest.fixture
def reactor() -> MemoryReactorClock:
    return MemoryReactorClock()


@pytest.fixture
def own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "raise_limit", lambda wanted: wanted)


def started(settings: Settings, reactor: MemoryReactorClock) -> SignalRelayService:
    relay = SignalRelayService(settings, {}, reactor)
    relay.privilegedStartService()
    relay.startService()
    return relay


@contextmanager
def logged() -> Iterator[list[Any]]:
    """Collect what is logged."""
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(events.append)


def stop(relay: SignalRelayService, reactor: MemoryReactorClock) -> list[None]:
    done: list[None] = []
    relay.stopService().addCallback(done.append)
    reactor.advance(0)
    return done


@pytest.mark.usefixtures("unlimited")
def test_it_listens_on_the_socket_and_the_side_port(
    settings: Settings, reactor: MemoryReactorClock
) -> None:
    relay = started(settings, reactor)
    assert settings.socket.is_socket()
    assert settings.socket.stat().st_mode & 0o777 == 0o660
    ((port, _, _, interface),) = reactor.tcpServers
    assert (port, interface) == (9750, "127.0.0.1")
    assert stop(relay, reactor) == [None]


@pytest.mark.usefixtures("unlimited")
def test_more_listeners_share_the_hub_and_the_side_port_may_be_left_out(
    settings: Settings, reactor: MemoryReactorClock
) -> None:
    settings = dataclasses.replace(settings, web=None, listen=("tcp:7001", "tcp:7002"))
    relay = started(settings, reactor)
    assert [server[:2] for server in reactor.tcpServers] == [(7001, relay.hub), (7002, relay.hub)]
    assert stop(relay, reactor) == [None]


@pytest.mark.usefixtures("unlimited")
def test_one_endpoint_may_be_given_twice(settings: Settings, reactor: MemoryReactorClock) -> None:
    """As with port 0, for which the kernel chooses two."""
    relay = started(dataclasses.replace(settings, listen=("tcp:0", "tcp:0")), reactor)
    assert len(reactor.tcpServers) == 3
    assert stop(relay, reactor) == [None]


@pytest.mark.usefixtures("unlimited")
def test_it_is_ready_from_start_until_it_is_told_to_leave(
    settings: Settings, reactor: MemoryReactorClock
) -> None:
    relay = SignalRelayService(settings, {}, reactor)
    assert relay.unready() == "starting or leaving"
    relay.privilegedStartService()
    relay.startService()
    assert relay.unready() is None
    relay.stopService()
    assert relay.unready() == "starting or leaving"
    reactor.advance(0)


@pytest.mark.usefixtures("unlimited")
def test_the_socket_goes_first_and_the_side_port_after_the_drain(
    settings: Settings, reactor: MemoryReactorClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = started(settings, reactor)
    drained: Deferred[None] = Deferred()
    monkeypatch.setattr(relay.hub.drain, "begin", lambda seconds: drained)
    stopping = relay.stopService()
    reactor.advance(0)
    assert not settings.socket.exists()
    web = relay.services[-1]
    assert web.running
    drained.callback(None)
    assert not web.running
    assert stopping.called


@pytest.mark.usefixtures("unlimited")
def test_a_live_relay_on_the_socket_ends_the_start_with_75(
    settings: Settings, reactor: MemoryReactorClock, capfd: pytest.CaptureFixture[str]
) -> None:
    first = started(settings, reactor)
    with pytest.raises(SystemExit) as raised:
        started(settings, MemoryReactorClock())
    assert raised.value.code == 75
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("signal-relay: another relay (pid ")
    stop(first, reactor)


@pytest.mark.usefixtures("unlimited")
def test_a_port_that_is_taken_ends_the_start_with_78(
    settings: Settings,
    reactor: MemoryReactorClock,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def taken(port: int, *_: object, **__: object) -> None:
        raise CannotListenError("127.0.0.1", port, OSError(98, "Address already in use"))

    monkeypatch.setattr(reactor, "listenTCP", taken)
    with pytest.raises(SystemExit) as raised:
        SignalRelayService(settings, {}, reactor).privilegedStartService()
    assert raised.value.code == 78
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("signal-relay: --web tcp:9750:interface=127.0.0.1: cannot listen: ")
    assert line.endswith("Address already in use")
    assert not settings.socket.exists()
    reactor.advance(0)


@pytest.mark.usefixtures("own_signals")
def test_makeservice_says_what_is_wrong_before_twistd_goes_into_the_background(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory.chmod(0o777)
    options = Options()
    options.parseOptions(["--socket", str(directory / "s.sock"), "--web", "none"])
    with pytest.raises(SystemExit) as raised:
        service.makeService(options)
    assert raised.value.code == 78
    assert f"others can write to the directory {directory}" in capfd.readouterr().err
    directory.chmod(0o700)
    assert isinstance(service.makeService(options), SignalRelayService)


@pytest.mark.usefixtures("unlimited")
def test_the_first_signal_leaves_in_order_and_the_second_at_once(
    settings: Settings, reactor: MemoryReactorClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = started(settings, reactor)
    cut: list[bool] = []
    monkeypatch.setattr(relay.hub.drain, "cut", lambda: cut.append(True))
    monkeypatch.setattr(relay.hub.drain, "begin", lambda seconds: Deferred())
    relay.on_signal("SIGTERM")
    assert reactor.hasStopped
    assert not cut
    stop(relay, reactor)
    relay.on_signal("SIGTERM")
    assert cut == [True]


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("signalled_first", [True, False])
def test_to_be_taken_over_from_is_no_signal(
    settings: Settings,
    reactor: MemoryReactorClock,
    monkeypatch: pytest.MonkeyPatch,
    signalled_first: bool,
) -> None:
    relay = started(settings, reactor)
    cut: list[bool] = []
    monkeypatch.setattr(relay.hub.drain, "cut", lambda: cut.append(True))
    if signalled_first:
        relay.on_signal("SIGTERM")
        relay.leave("handover")
    else:
        relay.leave("handover")
        relay.on_signal("SIGTERM")
    assert not cut
    relay.on_signal("SIGINT")
    assert cut == [True]
    stop(relay, reactor)


@pytest.mark.usefixtures("unlimited")
def test_it_pins_itself_to_a_core(
    settings: Settings, reactor: MemoryReactorClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[tuple[int, set[int]]] = []
    monkeypatch.setattr("os.sched_setaffinity", lambda pid, cores: pinned.append((pid, cores)))
    relay = started(dataclasses.replace(settings, cpu=1), reactor)
    assert pinned == [(0, {1})]
    stop(relay, reactor)


def test_the_log_observer_reaches_the_application_unless_it_is_left_to_twistd(
    settings: Settings, reactor: MemoryReactorClock
) -> None:
    with_own, without = Application("one"), Application("two")
    SignalRelayService(settings, {"nodaemon": True}, reactor).setServiceParent(with_own)
    SignalRelayService(settings, None, reactor).setServiceParent(without)
    assert with_own.getComponent(ILogObserver) is not None
    assert without.getComponent(ILogObserver) is None
    assert len(list(IService(without))) == 1


def test_a_limit_of_open_files_without_room_for_a_peer_ends_the_start(
    settings: Settings,
    reactor: MemoryReactorClock,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(service, "raise_limit", lambda _: 64)
    with pytest.raises(SystemExit) as ended:
        SignalRelayService(settings, {}, reactor).privilegedStartService()
    assert ended.value.code == 78
    told = capfd.readouterr().err
    assert told.startswith("signal-relay: a limit of 64 open files leaves no room for peers: ")


class TestReload:
    """With a real process in test_reload.py."""

    @pytest.fixture
    def file(self, directory: Path) -> Path:
        file = directory / "relay.toml"
        file.touch()
        return file

    @pytest.fixture
    def relay(self, file: Path, reactor: MemoryReactorClock) -> Iterator[SignalRelayService]:
        flags: dict[str, str | list[str]] = {
            "socket": str(file.parent / "s.sock"),
            "journal-size": "16M",
            "config": str(file),
        }
        relay = SignalRelayService(settings_from(flags, {}), {}, reactor, flags)
        relay.privilegedStartService()
        relay.startService()
        yield relay
        relay.stopService()
        reactor.advance(0)

    @pytest.mark.usefixtures("unlimited")
    def test_reaches_all_parts(self, relay: SignalRelayService, file: Path) -> None:
        file.write_text("hold = 7\ndrain = 8\nmax-peers = 9\njournal-age = '10s'")
        relay.reload()
        assert relay.hub.pace.patience == 7.0
        assert relay.settings.drain == 8.0
        assert relay.hub.max_peers == 9
        assert relay._journal is not None
        assert relay._journal._age == 10.0

    def test_lets_no_more_peers_in_than_there_can_be(
        self, monkeypatch: pytest.MonkeyPatch, relay: SignalRelayService, file: Path
    ) -> None:
        monkeypatch.setattr(service, "raise_limit", lambda _: 1024)
        file.write_text("max-peers = 5000")
        relay.reload()
        assert relay.hub.max_peers == 512

    @pytest.mark.usefixtures("unlimited")
    def test_whatever_goes_wrong_it_ends(
        self, relay: SignalRelayService, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[str] = []
        monkeypatch.setattr(relay._notifier, "reloading", lambda: told.append("reloading"))
        monkeypatch.setattr(relay._notifier, "ready", lambda: told.append("ready"))

        def fail(_: object) -> None:
            raise OSError(9, "Bad file descriptor")

        before = relay.settings
        monkeypatch.setattr(service, "read_all_again", fail)
        file.write_text("hold = 7\nmax-peers = 9")
        with logged() as events:
            relay.reload()
        assert told == ["reloading", "ready"]
        assert relay.settings is before
        assert (relay.hub.pace.patience, relay.hub.max_peers) == (before.hold, before.max_peers)
        (event,) = (each for each in events if each["log_level"].name == "critical")
        assert event["log_format"].startswith("SIGHUP: nothing was changed")
        assert event["log_failure"].check(OSError)

    @pytest.mark.usefixtures("unlimited")
    def test_is_none_while_it_leaves(self, relay: SignalRelayService, file: Path) -> None:
        before = relay.settings
        file.write_text("hold = 7")
        relay.stopService()
        relay.reload()
        assert relay.settings is before


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("web", [None, "tcp:9750"])
def test_rates_are_taken_for_the_side_port_until_the_relay_has_left(
    settings: Settings, reactor: MemoryReactorClock, web: str | None
) -> None:
    relay = started(dataclasses.replace(settings, web=web), reactor)
    reactor.pump([1.0] * 3)
    assert len(relay._rates.describe()["samples"]) == (0 if web is None else 3)
    stop(relay, reactor)
    reactor.advance(0)
    assert not reactor.getDelayedCalls()


@pytest.mark.usefixtures("unlimited")
def test_all_listeners_close_before_the_drain(
    settings: Settings, reactor: MemoryReactorClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(settings, listen=("tcp:7001",))
    relay = started(settings, reactor)
    monkeypatch.setattr(relay.hub.drain, "begin", lambda seconds: Deferred())
    relay.stopService()
    reactor.advance(0)
    assert [part for part in relay if part.running] == [relay.services[-1]]


@pytest.mark.usefixtures("unlimited")
def test_a_successor_keeps_its_socket_when_the_old_relay_leaves(
    settings: Settings, reactor: MemoryReactorClock
) -> None:
    relay = started(settings, reactor)
    settings.socket.unlink()
    settings.socket.touch()
    stop(relay, reactor)
    assert settings.socket.exists()
    settings.socket.unlink()
    SocketPath(settings.socket).claim()


@pytest.mark.usefixtures("unlimited")
def test_what_came_before_it_left_counts_even_if_not_accepted_yet(
    settings: Settings, reactor: MemoryReactorClock
) -> None:
    relay = started(settings, reactor)
    with socket.socket(socket.AF_UNIX) as late:
        late.connect(str(settings.socket))
        late.sendall(message(20, 1))
        done: list[None] = []
        relay.stopService().addCallback(done.append)
        reactor.pump([0.01] * 10)
        assert late.recv(1) == b""
    assert done == [None]
    assert relay.hub.counters.messages_received == 1


def hold(path: Path) -> int:
    """Lock a journal as another relay does."""
    path.mkdir()
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


class TestJournal:
    @pytest.fixture
    def journaled(self, settings: Settings, directory: Path) -> Settings:
        return dataclasses.replace(settings, journal=directory / "journal", journal_size=16 << 20)

    @pytest.mark.usefixtures("unlimited")
    def test_is_opened_at_the_start_and_left_in_order(
        self, journaled: Settings, reactor: MemoryReactorClock
    ) -> None:
        relay = started(journaled, reactor)
        assert relay.unready() is None
        assert stop(relay, reactor) == [None]
        assert journaled.journal is not None
        assert '"closed": true' in (journaled.journal / "epoch.json").read_text()

    @pytest.mark.usefixtures("unlimited")
    @pytest.mark.parametrize(
        ("spoil", "status", "what"),
        [
            (hold, 75, " is in use by another relay"),
            (Path.touch, 78, " is not a directory"),
        ],
    )
    def test_one_that_cannot_be_had_ends_the_process_with_one_line(
        self,
        journaled: Settings,
        reactor: MemoryReactorClock,
        capfd: pytest.CaptureFixture[str],
        spoil: Callable[[Path], object],
        status: int,
        what: str,
    ) -> None:
        path = journaled.journal
        assert path is not None
        kept = spoil(path)
        relay = SignalRelayService(journaled, {}, reactor)
        relay.privilegedStartService()
        with pytest.raises(SystemExit) as ended:
            relay.startService()
        assert ended.value.code == status
        reactor.advance(0)  # a port closes in the next turn
        assert f"signal-relay: --journal: {path}{what}" in capfd.readouterr().err
        assert not journaled.socket.exists()
        if isinstance(kept, int):
            os.close(kept)
