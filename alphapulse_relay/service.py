"""The service: puts the rooms together, and starts and stops them in order.

Alone knows all rooms. twistd finds ``Options`` and ``makeService`` here.
"""

import atexit
import gc
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NoReturn

from twisted.application.service import IService, MultiService, Service
from twisted.application.strports import service as endpoint_service
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from alphapulse_relay import __version__
from alphapulse_relay.handover import Handover
from alphapulse_relay.hub.disk import Disk
from alphapulse_relay.hub.factory import BUILD, SignalRelayFactory
from alphapulse_relay.hub.journal import Journal, JournalError, JournalInUse, Workers
from alphapulse_relay.hub.permission import AccessRules
from alphapulse_relay.hub.ports import PortReactor
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.hub.worker import ThreadWorker
from alphapulse_relay.listener import ListenerService, SocketReactor, address_of
from alphapulse_relay.logs import FileLog, observer
from alphapulse_relay.option_sources import OptionError
from alphapulse_relay.options import Options, Settings
from alphapulse_relay.passed import PassedSockets, environment, from_systemd
from alphapulse_relay.pem import PEMError
from alphapulse_relay.reload import Reload, read_again
from alphapulse_relay.systemd import Notifier, Summary
from alphapulse_relay.tls import read_all_again
from alphapulse_relay.unix_socket import StartError, claim_of, is_writable
from alphapulse_relay.web.access import Access
from alphapulse_relay.web.connections import WEB_CONNECTIONS_MAX
from alphapulse_relay.web.rates import Rates
from alphapulse_relay.web.site import build_site

__all__ = ["Options", "SignalRelayService", "makeService"]

NO_FLAGS: Mapping[str, str | list[str]] = MappingProxyType({})
FREE_SECONDS = 2.0
"""How long a relay that takes over waits for the journal of one that was killed while it left: its
connections are closed a moment before its files."""
FREE_INTERVAL = 0.02
"""Seconds between looks whether that is done."""
SPARE_DESCRIPTORS = 256
"""Descriptors beyond those of the peers and of the side port's connections: listeners, log, epoll,
and what is being refused, of which a port accepts 100 in a turn."""
WEB_SHARE = 4
"""The part of a low limit of open files that the side port's connections may have: a quarter."""


class SignalRelayService(MultiService):
    """The relay.

    ``twistd`` are the options of twistd itself, by which it is told where to log; without them the
    log is left to it. ``flags`` are those that the settings were read with, for when they are read
    again.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        twistd: Mapping[str, Any] | None,
        reactor: Any,
        flags: Mapping[str, str | list[str]] = NO_FLAGS,
    ) -> None:
        super().__init__()
        self.settings = settings
        self._twistd = twistd
        self._flags = flags
        self._file_log: FileLog | None = None
        self._leaving = False
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
        self._notifier = Notifier(reactor, os.environ, Summary(self.hub, self._journal))
        self._access = Access(*_for_access(settings))
        self.hub.access = settings.access
        self._connections = build_site(self.hub, self.unready, self._access, self._rates)
        self._asked_by: dict[IService, str] = {}
        self._sockets = SocketReactor(reactor, PassedSockets(from_systemd(environment())))
        self.ports = PortReactor(self._sockets, self.hub)
        """Opens all ports, and has the ``contexts`` of those with TLS: see :mod:`tls`."""
        ports: Any = self.ports
        address = address_of(settings.socket)
        listener = ListenerService(address, settings.socket_mode, self.hub, ports, self._sockets)
        self._add(listener, f"--socket {settings.socket}")
        self._handover = Handover(
            address,
            self._sockets,
            reactor,
            lambda: self.settings.drain,
            lambda: self.leave("handover"),
        )
        for endpoint in settings.listen:
            more = endpoint_service(endpoint, self.hub, ports)
            self._add(more, f"--listen {endpoint}")
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
        address = address_of(self.settings.socket)
        if not self._sockets.passed.has_unix(address):
            live = self.settings.takeover and self._handover.possible
            claim_of(address).check(live=live)

    def setServiceParent(self, parent: IService) -> None:
        """Join an application, and have its log go where and how the options say."""
        super().setServiceParent(parent)
        if self._twistd is None or not isinstance(parent, Componentized):
            return
        settings = self.settings
        self._file_log = observer(settings.log_level, settings.log_format, self._twistd)
        if self._file_log is not None:
            parent.setComponent(ILogObserver, self._file_log)

    def privilegedStartService(self) -> None:
        """Listen everywhere. What fails ends the process with one line."""
        settings = self.settings
        try:
            if settings.cpu is not None:
                os.sched_setaffinity(0, {settings.cpu})
            self._make_room(settings.max_peers)
            if settings.takeover:
                self._handover.ask()
            for part, option in self._asked_by.items():
                start(part, option)
            self._handover.listen()
        except StartError as error:
            self._fail(str(error), error.status)

    def _make_room(self, wanted: int) -> None:
        """Let so many peers in, or as many as fit. Raises :class:`StartError` if none do."""
        self.hub.max_peers, self._connections.most = raise_descriptor_limit(wanted)
        if self.hub.max_peers < wanted:
            self._log.warn(
                "the limit of open files allows {possible} peers, not {wanted}: raise it with "
                "'ulimit -n' or LimitNOFILE=",
                possible=self.hub.max_peers,
                wanted=wanted,
            )

    def startService(self) -> None:
        """Serve, from when the reactor runs, or when the relay to take over from has left."""
        self._reactor.callWhenRunning(self._handle_signals)
        # Before anybody waits: it walks all that is loaded.
        gc.collect()
        try:
            if self._handover.asked:
                check_writable(self.settings.journal)
                Deferred.fromCoroutine(self._succeed()).addErrback(self._give_up)
            else:
                self._open_log()
                self._serve()
        except StartError as error:
            self._fail(str(error), error.status)

    async def _succeed(self) -> None:
        """Serve when the relay that is taken over from has left."""
        await self._handover.take()
        until = self._reactor.seconds() + FREE_SECONDS
        while not self._leaving:
            try:
                self._open_log()
            except StartError as error:
                if error.status != os.EX_TEMPFAIL or self._reactor.seconds() >= until:
                    raise
                await deferLater(self._reactor, FREE_INTERVAL)
            else:
                self._serve()
                self._sockets.admit()
                return

    def _serve(self) -> None:
        if self.settings.web is not None:
            self._rates.start()
        super().startService()
        self._sockets.drop_unused()
        # What is loaded by now stays: a collector that walks it all stops everybody meanwhile.
        gc.freeze()
        self._reactor.callWhenRunning(self._announce)

    def _open_log(self) -> None:
        # Not before the start, as the journal is to belong to the user that the relay runs as.
        try:
            self.hub.open()
        except JournalInUse as error:
            hint = "give this one another --journal, or none"
            raise StartError(f"--journal: {error}; {hint}", os.EX_TEMPFAIL) from error
        except JournalError as error:
            raise StartError(f"--journal: {error}") from error

    def _give_up(self, failure: Failure) -> None:
        """End a start that failed when the reactor runs, which would only log an exception."""
        if failure.check(CancelledError) is not None:
            return
        error, status = failure.value, os.EX_SOFTWARE
        if isinstance(error, StartError):
            status = error.status
            self._log.error("cannot start: {message}", message=str(error))
        else:
            self._log.failure("cannot start", failure)
        print(f"signal-relay: {error}", file=sys.__stderr__)
        atexit.register(exit_at_once, status)
        self._reactor.callWhenRunning(self._reactor.stop)

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
        self._notifier.ready()

    def stopService(self) -> Deferred[None]:
        """Accept no more, deliver what was sent, then end the connections and the side port."""
        serving, self.running = self.running, 0
        self._leaving = True
        self._notifier.stopping()
        return Deferred.fromCoroutine(self._stop(bool(serving)))

    async def _stop(self, serving: bool) -> None:
        closing = [part.stopService() for part in self._listeners]
        await gatherResults([*closing, self._handover.stop()])
        await self.hub.drain.begin(self.settings.drain)
        if self._journal is not None and serving:
            self._journal.close()
        self._handover.finish()
        self._rates.stop()
        await gatherResults([part.stopService() for part in self if part not in self._listeners])
        self._notifier.stop()

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
        """Read settings and certificates again; if anything is wrong, all stays as it was."""
        if not self.running:
            return
        self._notifier.reloading()
        self._reopen_log()
        try:
            reload = read_again(self.settings, self._flags, os.environ)
            put_in_force = read_all_again(self.ports.contexts)
            self._make_room(reload.settings.max_peers)
        except (OptionError, PEMError, StartError) as error:
            self._log.error("SIGHUP: nothing was changed: {problem}", problem=str(error))
        else:
            for certificates in put_in_force:
                certificates()
            self.settings = reload.settings
            self._apply()
            self._tell_of(reload)
        self._notifier.ready()

    def _reopen_log(self) -> None:
        try:
            if self._file_log is not None:
                self._file_log.reopen()
        except OSError as error:
            self._log.warn(
                "SIGHUP: the log stays in the file that is open: {error}", error=str(error)
            )

    def _apply(self) -> None:
        """Go by the settings, as far as a relay that runs can."""
        settings = self.settings
        self.hub.pace.patience = settings.hold
        self.hub.log_chunks(settings.log_level == "debug")
        self._access.change(*_for_access(settings))
        self.hub.access = settings.access
        if self._journal is not None:
            self._journal.keep_for(settings.journal_age)
        if self._file_log is not None:
            self._file_log.set_level(settings.log_level)

    def _tell_of(self, reload: Reload) -> None:
        if reload.restart:
            self._log.warn(
                "SIGHUP: changed, but not before a restart: {options}",
                options=", ".join(reload.restart),
            )
        self._log.info(
            "SIGHUP: settings and certificates were read again; changed: {options}",
            options=", ".join(reload.changed) or "nothing",
        )

    def leave(self, name: str) -> None:
        """Leave in order at the first signal, at once at the second."""
        if not self._leaving:
            self._leaving = True
            self._log.info("{signal}: leaving", signal=name)
            self._reactor.stop()
        else:
            self._log.info("{signal}: leaving at once", signal=name)
            self.hub.drain.cut()

    def _fail(self, message: str, status: int = os.EX_CONFIG) -> NoReturn:
        self._log.error("cannot start: {message}", message=message)
        self._sockets.abandon()
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
        relay = SignalRelayService(options.settings, options.parent or {}, reactor, options.flags)
        relay.check()
    except StartError as error:
        exit_with(str(error), error.status)
    except OSError as error:
        exit_with(f"cannot start: {error.strerror or error}", os.EX_CONFIG)
    return relay


def _for_access(
    settings: Settings,
) -> tuple[tuple[str, ...], str | None, bool, AccessRules | None]:
    """Return what decides who may ask the side port for what."""
    return settings.web_origin, settings.web_token_file, settings.web_publish, settings.access


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


def check_writable(journal: Path | None) -> None:
    """Raise :class:`StartError` if it can be seen that the journal could not be written."""
    if journal is not None and not is_writable(journal):
        raise StartError(f"--journal: {journal}: Permission denied")


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


def exit_at_once(status: int) -> None:
    """End the process with that status, which at its end nothing else can give it."""
    sys.stdout.flush()
    os._exit(status)


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
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except OSError:  # a sandbox forbids even that
        return soft
    return wanted
