"""The second service: ``twistd signal-relay-bridge``. Puts the bridge's rooms together."""

import asyncio
import signal
from contextlib import suppress
from types import FrameType
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from alphapulse_relay import __version__
from alphapulse_relay.bridge.bridge import Bridge
from alphapulse_relay.bridge.options import BridgeSettings, Options
from alphapulse_relay.bridge.server import Server
from alphapulse_relay.client.endpoint import client_endpoint
from alphapulse_relay.logs import observer

__all__ = ["BridgeService", "Options", "makeService"]


LEAVING_SECONDS = 2.0
"""How long an end in order may take; one without it loses nothing either."""


class BridgeService(MultiService):
    """The bridge, for as long as it runs."""

    _log = Logger()

    def __init__(self, settings: BridgeSettings, twistd: Any, reactor: Any) -> None:
        super().__init__()
        self.settings = settings
        self.server = Server(settings)
        endpoint = client_endpoint(reactor, settings.relay)
        self.bridge = Bridge(settings, endpoint, self.server)
        self._twistd = twistd
        self._reactor = reactor
        self._task: asyncio.Task[None] | None = None

    def setServiceParent(self, parent: IService) -> None:
        """Join an application, and have its log go where and how the options say."""
        super().setServiceParent(parent)
        settings = self.settings
        if isinstance(parent, Componentized):
            file_log = observer(settings.log_level, settings.log_format, self._twistd)
            if file_log is not None:
                parent.setComponent(ILogObserver, file_log)

    def startService(self) -> None:
        """Begin, when the reactor runs."""
        super().startService()
        # Not when it starts to: asyncio's loop does not run yet then.
        self._reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._caught)
        self._log.info(
            "signal relay bridge {version} joins {relay} as {name} to stream {stream}",
            version=__version__,
            relay=self.settings.relay,
            name=self.settings.name,
            stream=self.settings.stream,
        )
        self._task = asyncio.get_running_loop().create_task(self.bridge.run())
        self._task.add_done_callback(self._ended)

    def _caught(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._reactor.callFromThread(self._log.info, "{signal}: leaving", signal=name)
        self._reactor.callFromThread(self._reactor.stop)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        self._log.error("the bridge has failed: {error}", error=task.exception())
        self._reactor.stop()

    def stopService(self) -> Deferred[None]:
        """Stop what is under way, and disconnect."""
        super().stopService()
        return Deferred.fromFuture(asyncio.ensure_future(self._stop()))

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=LEAVING_SECONDS)
        self.bridge.file.save()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVING_SECONDS):
                await self.server.close()


def makeService(options: Options) -> BridgeService:
    """Return the bridge for parsed options."""
    from twisted.internet import reactor  # noqa: PLC0415 - chosen by the options just before

    return BridgeService(options.settings, options.parent or {}, reactor)
