"""The bridge as a process: its start and end, its signals, and whom it tells how it is."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from twisted.application.service import IService, MultiService
from twisted.application.strports import service as endpoint_service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from alphapulse_relay import __version__
from alphapulse_relay.bridge.bridge import Bridge
from alphapulse_relay.bridge.options import BridgeSettings
from alphapulse_relay.bridge.server import Server, tls_context
from alphapulse_relay.bridge.site import build_site
from alphapulse_relay.bridge.start import StartError, end_with, exit_with, say
from alphapulse_relay.bridge.state import StateError
from alphapulse_relay.client.endpoint import client_endpoint
from alphapulse_relay.logs import FileLog, observer
from alphapulse_relay.signals import heed_end, heed_hangup
from alphapulse_relay.systemd import Notifier

LEAVING_SECONDS = 1.0
"""How long each of two steps of an end in order may take; one without them loses nothing either."""


class BridgeService(MultiService):
    """The bridge, for as long as it runs. ``twistd`` are the options of twistd itself."""

    _log = Logger()

    def __init__(self, settings: BridgeSettings, twistd: Mapping[str, Any], reactor: Any) -> None:
        super().__init__()
        self.settings = settings
        self.server = Server(settings)
        endpoint = client_endpoint(reactor, settings.relay)
        self.bridge = Bridge(settings, endpoint, self.server)
        self._notifier = Notifier(reactor, os.environ, self.summary)
        self._twistd = twistd
        self._file_log: FileLog | None = None
        self._reactor = reactor
        self._task: asyncio.Task[None] | None = None
        self._leaving = False
        if settings.web is not None:
            site = build_site(self.bridge, reactor)
            endpoint_service(settings.web, site, reactor).setServiceParent(self)

    def summary(self) -> str:
        """Return how the bridge does, in one line for people."""
        account, trouble = self.bridge.account, self.bridge.trouble
        if trouble is not None:
            return f"not ready: {trouble}"
        outward, inward = account.outward.messages, account.inward.messages
        return f"{outward:,} messages outward, {inward:,} inward"

    # Start

    def setServiceParent(self, parent: IService) -> None:
        """Join an application, and have its log go where and how the options say."""
        super().setServiceParent(parent)
        settings = self.settings
        if isinstance(parent, Componentized):
            self._file_log = observer(settings.log_level, settings.log_format, self._twistd)
            if self._file_log is not None:
                parent.setComponent(ILogObserver, self._file_log)

    def privilegedStartService(self) -> None:
        """Listen. What fails ends the process with one line."""
        try:
            super().privilegedStartService()
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            text = getattr(reason, "strerror", None) or reason
            self._fail(f"--web {self.settings.web}: cannot listen: {text}")

    def startService(self) -> None:
        """Begin, when the reactor runs."""
        try:
            self.check()
        except StartError as error:
            self._fail(str(error))
        self._stand_back()
        super().startService()
        self._reactor.callWhenRunning(self._handle_signals)
        # Not when it starts to run: asyncio's loop does not yet then.
        self._reactor.callLater(0, self._begin)

    def _stand_back(self) -> None:
        """Have the relay and its peers come first where processors are few (setpriority(2)).

        Before there are other threads: each has a value of its own, which new ones inherit.
        """
        niceness = self.settings.nice
        try:
            if os.getpriority(os.PRIO_PROCESS, 0) < niceness:
                os.setpriority(os.PRIO_PROCESS, 0, niceness)
        except OSError as error:
            self._log.warn("--nice {nice}: {error}", nice=niceness, error=error.strerror)

    def check(self) -> None:
        """Raise :class:`StartError` for files that cannot be used by whom the bridge runs as."""
        try:
            if not self.bridge.is_first:
                self.bridge.file.load()
                self.bridge.save()
        except StateError as error:
            raise StartError(f"--state: {error}") from error
        option = "tls-ca, --tls-cert or --tls-key"
        try:
            tls_context(self.settings)
            if self.settings.credentials is not None:
                option = "credentials"
                self.settings.credentials.open("rb").close()
        except OSError as error:
            raise StartError(f"--{option}: cannot be used: {error.strerror or error}") from error

    def _begin(self) -> None:
        self._log.info(
            "signal relay bridge {version} joins {relay} as {name} to stream {stream}, "
            "side port {web}",
            version=__version__,
            relay=self.settings.relay,
            name=self.settings.name,
            stream=self.settings.stream,
            web=self.settings.web or "none",
        )
        self._task = asyncio.get_running_loop().create_task(self.bridge.run())
        self._task.add_done_callback(self._ended)
        self._notifier.ready()

    def _fail(self, message: str) -> NoReturn:
        self._log.error("cannot start: {message}", message=message)
        if os.path.samestat(os.fstat(2), os.stat(os.devnull)):
            # A daemon: its caller waits for word from twistd, which gives it for an exception.
            raise StartError(message)
        exit_with(message)

    # Signals

    def _handle_signals(self) -> None:
        heed_end(self._reactor, self.leave)
        self.heed_hangup()

    def heed_hangup(self) -> None:
        """Have SIGHUP not end the process any more, but the log be opened again."""
        heed_hangup(self._reactor, self.reopen_log)

    def reopen_log(self) -> None:
        """Write to the file that has the log's name by now."""
        if self._file_log is None or self._file_log.reopen():
            self._log.info("SIGHUP: the log was opened again; settings need a restart")

    # End

    def leave(self, reason: str) -> None:
        """Leave in order, if that has not begun already."""
        if not self._leaving:
            self._leaving = True
            self._log.info("{reason}: leaving", reason=reason)
            self._reactor.stop()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Have the process end, as what should go on until it is cancelled has not."""
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, StateError):
            self._log.error("cannot go on: {error}", error=str(error))
        else:
            self._log.failure("cannot go on, by a fault of the bridge's own", Failure(error))
        say(f"cannot go on: {error}")
        end_with(os.EX_IOERR if isinstance(error, StateError) else os.EX_SOFTWARE)
        self.leave("fault")

    def stopService(self) -> Deferred[None]:
        """Stop what is under way, and disconnect."""
        self._leaving = True
        self._notifier.stopping()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await Deferred.fromFuture(asyncio.ensure_future(self._stop_bridge()))
        await MultiService.stopService(self)
        self._notifier.stop()

    async def _stop_bridge(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=LEAVING_SECONDS)
        try:
            self.bridge.save()
        except StateError as error:
            self._log.error("what has crossed last is not kept: {error}", error=str(error))
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVING_SECONDS):
                await self.server.close()
