"""The service: puts the rooms together, and starts and stops them in order.

Alone knows all rooms. twistd finds ``Options`` and ``makeService`` here.
"""

import gc
import os
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from twisted.application.service import IService, MultiService, Service
from twisted.application.strports import service as endpoint_service
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from alphapulse_relay import __version__
from alphapulse_relay.descriptors import needed, raise_limit, room_in
from alphapulse_relay.handover import Handover
from alphapulse_relay.hub.disk import Disk
from alphapulse_relay.hub.factory import BUILD, SignalRelayFactory
from alphapulse_relay.hub.journal import Journal, JournalError, JournalInUse, Workers
from alphapulse_relay.hub.ports import PortReactor
from alphapulse_relay.hub.storage import MemoryStorage
from alphapulse_relay.hub.summary import Summary
from alphapulse_relay.hub.worker import ThreadWorker
from alphapulse_relay.listener import ListenerService, SocketReactor, address_of
from alphapulse_relay.logs import observer
from alphapulse_relay.option_sources import OptionError
from alphapulse_relay.options import Options, Settings
from alphapulse_relay.passed import PassedSockets, environment, from_systemd
from alphapulse_relay.pem import PEMError
from alphapulse_relay.reload import Parts, for_access, read_again, tell_of
from alphapulse_relay.signals import heed_end, heed_hangup
from alphapulse_relay.start import check_writable, exit_with, give_up, listen, open_when_free
from alphapulse_relay.systemd import Notifier
from alphapulse_relay.tls import read_all_again
from alphapulse_relay.unix_socket import StartError, claim_of
from alphapulse_relay.web.access import Access
from alphapulse_relay.web.rates import Rates
from alphapulse_relay.web.site import build_site
from alphapulse_relay.web.status import SettingsRead

__all__ = ["Options", "SignalRelayService", "makeService"]

NO_FLAGS: Mapping[str, str | list[str]] = MappingProxyType({})


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
        self._leaving = False
        self._signals = 0
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
        access = Access(*for_access(settings))
        self.hub.access = settings.access
        self._parts = Parts(self.hub, access, self._journal)
        self._settings_read = SettingsRead()
        self._connections = build_site(
            self.hub, self.unready, access, self._rates, self._settings_read
        )
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
            None if settings.journal is None else str(settings.journal.resolve()),
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
        file_log = observer(settings.log_level, settings.log_format, self._twistd)
        if file_log is not None:
            parent.setComponent(ILogObserver, file_log)
        self._parts.file_log = file_log

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
                listen(part, option)
            self._handover.listen()
        except StartError as error:
            self._fail(str(error), error.status)

    def _make_room(self, wanted: int) -> None:
        """Let so many peers in, or as many as fit. Raises :class:`StartError` if none do."""
        limit = raise_limit(needed(wanted))
        peers, connections = room_in(limit, wanted)
        if not peers:
            raise StartError(
                f"a limit of {limit} open files leaves no room for peers: raise it with "
                "'ulimit -n' or LimitNOFILE="
            )
        self.hub.max_peers, self._connections.most = peers, connections
        if peers < wanted:
            self._log.warn(
                "the limit of open files allows {possible} peers, not {wanted}: raise it with "
                "'ulimit -n' or LimitNOFILE=",
                possible=peers,
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
                begun = Deferred.fromCoroutine(self._succeed())
                begun.addErrback(give_up, self._reactor)
            else:
                self._open_log()
                self._serve()
        except StartError as error:
            self._fail(str(error), error.status)

    async def _succeed(self) -> None:
        """Serve when the relay that is taken over from has left."""
        await self._handover.take()
        if await open_when_free(self._open_log, self._reactor, lambda: self._leaving):
            self._serve()
            self._sockets.admit()

    def _serve(self) -> None:
        if self.settings.web is not None:
            self._rates.start()
        super().startService()
        self._sockets.own()
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

    def _announce(self) -> None:
        self._log.info(
            "signal relay {version} ({build}) serves {socket}: validate={validate}, "
            "journal {journal}, window of {window} bytes, at most {peers} peers, {rules} access "
            "rules, side port {web}",
            version=__version__,
            build=BUILD,
            socket=str(self.settings.socket),
            validate=self.settings.validate.value,
            journal=str(self.settings.journal or "none"),
            window=self.hub.log.window,
            peers=self.hub.max_peers,
            rules=len(self.settings.access.rules) if self.settings.access else "no",
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
        heed_end(self._reactor, self.on_signal)
        self.heed_hangup()

    def heed_hangup(self) -> None:
        """Have SIGHUP not end the process any more, but the settings be read again."""
        heed_hangup(self._reactor, self.reload)

    def reload(self) -> None:
        """Read settings and certificates again; if anything is wrong, all stays as it was."""
        if not self.running:
            return
        self._notifier.reloading()
        self._parts.reopen_log()
        began = time.time()
        try:
            reload = read_again(self.settings, self._flags, os.environ)
            put_in_force = read_all_again(self.ports.contexts)
            self._make_room(reload.settings.max_peers)
        except (OptionError, PEMError, StartError) as error:
            self._log.error("SIGHUP: nothing was changed: {problem}", problem=str(error))
        except Exception:
            self._log.failure("SIGHUP: nothing was changed, by a fault of the relay's own")
        else:
            for certificates in put_in_force:
                certificates()
            self.settings = reload.settings
            self._settings_read.at, self._settings_read.restart = began, reload.restart
            self._parts.go_by(reload.settings)
            tell_of(reload)
        finally:
            self._notifier.ready()

    def on_signal(self, name: str) -> None:
        """Leave in order at the first signal, at once at the second."""
        self._signals += 1
        if self._signals == 1:
            self.leave(name)
        else:
            self._log.info("{signal}: leaving at once", signal=name)
            self.hub.drain.cut()

    def leave(self, reason: str) -> None:
        """Leave in order, if that has not begun already."""
        if self._leaving:
            self._log.info("{reason}: leaving already", reason=reason)
            return
        self._leaving = True
        self._log.info("{reason}: leaving", reason=reason)
        self._reactor.stop()

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
        # Twistd only now begins to start it, which may take a while.
        relay.heed_hangup()
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
