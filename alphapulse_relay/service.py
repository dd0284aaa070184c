"""The service: puts the rooms together, and starts and stops them in order.

Alone knows all rooms. twistd finds ``Options`` and ``makeService`` here.
"""

import gc
import os
import resource
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any, NoReturn

from twisted.application.service import IService, MultiService, Service
from twisted.application.strports import service as endpoint_service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from alphapulse_relay import __version__
from alphapulse_relay.hub.disk import Disk
from alphapulse_relay.hub.factory import BUILD, SignalRelayFactory
from alphapulse_relay.hub.journal import Journal, JournalError, JournalInUse, Workers
from alphapulse_relay.hub.ports import LISTEN_BACKLOG, PortReactor, RelayPort, accept_waiting
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.hub.worker import ThreadWorker
from alphapulse_relay.logs import observer
from alphapulse_relay.options import Options, Settings
from alphapulse_relay.tls import reload_all
from alphapulse_relay.unix_socket import SocketPath, StartError
from alphapulse_relay.web.access import Access
from alphapulse_relay.web.connections import WEB_CONNECTIONS_MAX
from alphapulse_relay.web.rates import Rates
from alphapulse_relay.web.site import build_site

__all__ = ["Options", "SignalRelayService", "makeService"]

DRAIN_SECONDS = 5.0
"""How long a relay that was told to leave waits for consumers to take what was sent to them."""
SPARE_DESCRIPTORS = 256
"""Descriptors beyond those of the peers and of the side port's connections: listeners, log, epoll,
and what is being refused, of which a port accepts 100 in a turn."""
WEB_SHARE = 4
"""The part of a low limit of open files that the side port's connections may have: a quarter."""


class ListenerService(Service):
    """The Unix socket: claimed and bound with the rights that twistd starts with."""

    def __init__(self, settings: Settings, hub: SignalRelayFactory, reactor: Any) -> None:
        self._path = SocketPath(settings.socket)
        self._port = RelayPort(
            os.fsencode(settings.socket), hub, LISTEN_BACKLOG, settings.socket_mode, reactor
        )

    def check(self) -> None:
        """Raise :class:`StartError` for what would keep the relay from starting."""
        self._path.check()

    def privilegedStartService(self) -> None:
        """Listen. Raises :class:`StartError` if the path cannot be had."""
        self._path.claim()
        self._port.startListening()
        self._path.bound()
        super().privilegedStartService()

    def abandon(self) -> None:
        """Undo a start that failed elsewhere, before the process ends."""
        self._path.release()
        if self._port.connected:
            self._port.stopListening()

    def stopService(self) -> Deferred[None]:
        """Accept no more, then remove the socket."""
        super().stopService()
        accept_waiting(self._port)
        stopped: Deferred[None] = maybeDeferred(self._port.stopListening)
        return stopped.addCallback(lambda _: self._path.release())


class SignalRelayService(MultiService):
    """The relay.

    ``twistd`` are the options of twistd itself, by which it is told where to log; without them the
    log is left to it.
    """

    _log = Logger()

    def __init__(self, settings: Settings, twistd: Mapping[str, Any] | None, reactor: Any) -> None:
        super().__init__()
        self.settings = settings
        self._twistd = twistd
        self._reactor = reactor
        self._journal = build_journal(settings, reactor)
        self.hub = SignalRelayFactory(
            reactor,
            settings.rules,
            self._journal or MemoryStorage(settings.backlog),
            hold=settings.hold,
            max_peers=settings.max_peers,
            verbose=settings.log_level == "debug",
        )
        self._rates = Rates(self.hub, reactor)
        access = Access(settings.web_origin, settings.web_token_file, settings.web_publish)
        self._connections = build_site(self.hub, self.unready, access, self._rates)
        self._asked_by: dict[IService, str] = {}
        self._listener = ListenerService(settings, self.hub, reactor)
        self._add(self._listener, f"--socket {settings.socket}")
        self.ports = PortReactor(reactor, self.hub)
        """Opens all ports but that of the socket, and has their ``contexts``: see :mod:`tls`."""
        ports: Any = self.ports
        for endpoint in settings.listen:
            listener = endpoint_service(endpoint, self.hub, ports)
            self._add(listener, f"--listen {endpoint}")
        self._listeners = list(self)
        if settings.web is not None:
            web = endpoint_service(settings.web, self._connections, ports)
            self._add(web, f"--web {settings.web}")

    def _add(self, part: Service, option: str) -> None:
        """Take a part of the relay in, and keep which option asked for it."""
        self._asked_by[part] = option
        part.setServiceParent(self)

    def unready(self) -> str | None:
        """Tell why the relay is not ready; None if connections are accepted, and all journaled."""
        if not self.running:
            return "starting or leaving"
        return None if self._journal is None else self._journal.failure

    def check(self) -> None:
        """Raise :class:`StartError` for what can be seen to be wrong before anything is done."""
        self._listener.check()

    def setServiceParent(self, parent: IService) -> None:
        """Join an application, and have its log go where and how the options say."""
        super().setServiceParent(parent)
        if self._twistd is None or not isinstance(parent, Componentized):
            return
        settings = self.settings
        log_observer = observer(settings.log_level, settings.log_format, self._twistd)
        if log_observer is not None:
            parent.setComponent(ILogObserver, log_observer)

    def privilegedStartService(self) -> None:
        """Listen everywhere. What fails ends the process with one line."""
        settings = self.settings
        try:
            if settings.cpu is not None:
                os.sched_setaffinity(0, {settings.cpu})
            peers, connections = raise_descriptor_limit(settings.max_peers)
            self.hub.max_peers, self._connections.most = peers, connections
            for part, option in self._asked_by.items():
                start(part, option)
        except StartError as error:
            self._fail(str(error), error.status)
        if self.hub.max_peers < settings.max_peers:
            self._log.warn(
                "the limit of open files allows {possible} peers, not {wanted}: raise it with "
                "'ulimit -n' or LimitNOFILE=",
                possible=self.hub.max_peers,
                wanted=settings.max_peers,
            )

    def startService(self) -> None:
        """Serve, from when the reactor runs."""
        # Not before, as it is to belong to the user that the relay runs as.
        self._open_log()
        if self.settings.web is not None:
            self._rates.start()
        super().startService()
        # What is loaded by now stays: a collector that walks it all stops everybody meanwhile.
        gc.collect()
        gc.freeze()
        self._reactor.callWhenRunning(self._handle_signals)
        self._reactor.callWhenRunning(self._announce)

    def _open_log(self) -> None:
        try:
            self.hub.open()
        except JournalInUse as error:
            hint = "give this one another --journal, or none"
            self._fail(f"--journal: {error}; {hint}", os.EX_TEMPFAIL)
        except JournalError as error:
            self._fail(f"--journal: {error}")

    def _announce(self) -> None:
        self._log.info(
            "signal relay {version} ({build}) serves {socket}: validate={validate}, "
            "journal {journal}, window of {window} bytes, at most {peers} peers, side port {web}",
            version=__version__,
            build=BUILD,
            socket=str(self.settings.socket),
            validate=self.settings.validate.value,
            journal=str(self.settings.journal or "none"),
            window=self.hub.log.window,
            peers=self.hub.max_peers,
            web=self.settings.web or "none",
        )

    def stopService(self) -> Deferred[None]:
        """Accept no more, deliver what was sent, then end the connections and the side port."""
        self.running = 0
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await gatherResults([part.stopService() for part in self._listeners])
        await self.hub.drain(DRAIN_SECONDS)
        if self._journal is not None:
            self._journal.close()
        self._rates.stop()
        await gatherResults([part.stopService() for part in self if part not in self._listeners])

    def _handle_signals(self) -> None:
        # twistd's own handler would end the process by the same signal once all is done: to a
        # shell or a supervisor a relay that left in order looks like one that was killed.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._reactor.callFromThread(self.leave, signal.Signals(number).name)

    def _on_hangup(self, *_: object) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> None:
        """Read the certificates again; what is wrong is told, and the old ones stay."""
        problems = reload_all(self.ports.contexts)
        for problem in problems:
            self._log.error("SIGHUP: {problem}: those from before stay in use", problem=problem)
        if not problems:
            self._log.info("SIGHUP: certificates were read again; for all else restart")

    def leave(self, name: str) -> None:
        """Leave in order at the first signal, at once at the second."""
        if self.running:
            self._log.info("{signal}: leaving", signal=name)
            self._reactor.stop()
        else:
            self._log.info("{signal}: leaving at once", signal=name)
            self.hub.cut_drain()

    def _fail(self, message: str, status: int = os.EX_CONFIG) -> NoReturn:
        self._log.error("cannot start: {message}", message=message)
        self._listener.abandon()
        if os.path.samestat(os.fstat(2), os.stat(os.devnull)):
            # A daemon: its caller waits for word from twistd, which gives it for an exception.
            raise StartError(message, status)
        exit_with(message, status)


def makeService(options: Options) -> SignalRelayService:
    """Return the relay for parsed options.

    What is wrong with the socket ends the process here, where a daemon's caller still sees it.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - installed by twistd just before

    try:
        relay = SignalRelayService(options.settings, options.parent or {}, reactor)
        relay.check()
    except StartError as error:
        exit_with(str(error), error.status)
    except OSError as error:
        exit_with(f"cannot start: {error.strerror or error}", os.EX_CONFIG)
    return relay


def build_journal(settings: Settings, reactor: Any) -> Journal | None:
    """Return the journal that the settings ask for, not opened yet."""
    if settings.journal is None:
        return None
    workers = Workers(*(ThreadWorker(reactor, name) for name in ("make", "read", "sync")))
    return Journal(
        reactor,
        Disk(settings.journal),
        workers,
        MemoryStorage(settings.backlog),
        size=settings.journal_size,
        every=settings.fsync,
        age=settings.journal_age,
    )


def start(part: IService, option: str) -> None:
    """Have a part of the relay listen. Raises :class:`StartError` that names the option."""
    try:
        part.privilegedStartService()
    except (CannotListenError, OSError) as error:
        reason = getattr(error, "socketError", error)
        text = getattr(reason, "strerror", None) or reason
        raise StartError(f"{option}: cannot listen: {text}") from error


def exit_with(message: str, status: int) -> NoReturn:
    """End the process with one line on standard error."""
    # Once twistd logs, sys.stderr leads into the log.
    print(f"signal-relay: {message}", file=sys.__stderr__)
    raise SystemExit(status)


def raise_descriptor_limit(peers: int) -> tuple[int, int]:
    """Raise the limit of open files so that so many peers fit, and the side port's connections.

    Returns how many of each do. Raises :class:`StartError` if not even one peer fits.
    """
    wanted = peers + WEB_CONNECTIONS_MAX + SPARE_DESCRIPTORS
    limit = _raise_limit(wanted)
    if limit >= wanted:
        return peers, WEB_CONNECTIONS_MAX
    connections = min(WEB_CONNECTIONS_MAX, limit // WEB_SHARE)
    if limit <= connections + SPARE_DESCRIPTORS:
        raise StartError(
            f"a limit of {limit} open files leaves no room for peers: raise it with 'ulimit -n'"
        )
    return min(peers, limit - connections - SPARE_DESCRIPTORS), connections


def _raise_limit(wanted: int) -> int:
    """Raise the limit of open files as far as may be; return how many of the wanted there are.

    Only root may go beyond the hard limit (getrlimit(2)).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    if hard != resource.RLIM_INFINITY and hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (OSError, ValueError):
            wanted = hard
        else:
            return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
