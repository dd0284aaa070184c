"""The bridge: a relay on one side, a stream on the other, and both ways between them.

Puts the parts together, and begins again what has ended. Each part knows how to go on by itself.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import nats.errors
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from alphapulse_relay.bridge.account import Account
from alphapulse_relay.bridge.consumer import Asked, Consumer, RestartError
from alphapulse_relay.bridge.envelope import Place
from alphapulse_relay.bridge.history import messages_since
from alphapulse_relay.bridge.inward import Inward
from alphapulse_relay.bridge.options import BridgeSettings
from alphapulse_relay.bridge.outward import Outward
from alphapulse_relay.bridge.relay_link import WISHES, RelayLink
from alphapulse_relay.bridge.server import Server
from alphapulse_relay.bridge.state import StateFile
from alphapulse_relay.bridge.stream import (
    LaterError,
    Stream,
    StreamError,
    Wanted,
    WrongLastError,
)
from alphapulse_relay.client.bookmark import Bookmark, fingerprint
from alphapulse_relay.client.core import Missed, Run
from alphapulse_relay.client.errors import BookmarkError, ClientError
from alphapulse_relay.protocol_v2.control import ErrorCode, Start, Subscribe
from alphapulse_relay.protocol_v2.selection import Selector

_log = Logger()

AGAIN_SECONDS = 1.0
"""Pause before what has failed is begun again."""
PATIENCE_SECONDS = 1.0
"""How long the relay is left unread while nothing can be published. Then nothing more is asked of
it until that goes on: it could not acknowledge what comes from afar either."""


TROUBLES = (
    StreamError,
    LaterError,
    RestartError,
    WrongLastError,
    ClientError,
    nats.errors.Error,
    OSError,
)
"""What passes, or is mended while the bridge runs. ``TimeoutError`` is one, too."""


class Bridge:
    """Joins one relay to a stream."""

    def __init__(
        self, settings: BridgeSettings, endpoint: IStreamClientEndpoint, server: Server
    ) -> None:
        self.settings = settings
        self.account = Account()
        self.file = StateFile(settings.state)
        self.stream = Stream(server.client, wanted_stream(settings))
        self.server = server
        self._subject = f"{settings.subject}.{settings.name}"
        self._listening = Subscribe(
            WISHES,
            types=settings.types,
            sources=settings.sources,
            name=f"bridge-{settings.name}",
        )
        self.link = RelayLink(endpoint, self._listening, self)
        self.outward = Outward(self.stream, self._subject, self.account, self._crowded)
        self.outward.on_published = self._published
        self.consumer = Consumer(server.client, asked_of(settings))
        self.inward = Inward(
            self.link,
            self.file,
            self._history,
            self.account,
            prefix=settings.subject,
            own=settings.name,
            selector=Selector(settings.take_types, settings.take_sources),
        )
        self._patience: asyncio.TimerHandle | None = None

    @property
    def trouble(self) -> str | None:
        """Why the bridge does not do all that it should; None if it does."""
        if self.link.trouble is not None:
            return f"no relay: {self.link.trouble}"
        if self.server.trouble is not None:
            return f"no NATS: {self.server.trouble}"
        for way, name in ((self.account.outward, "outward"), (self.account.inward, "inward")):
            if way.trouble is not None:
                return f"{name}: {way.trouble}"
        return None

    async def run(self) -> None:
        """Do it all, until cancelled. Raises :class:`StateError`."""
        self.file.load()
        await together(self.link.run(), self._join())

    async def _join(self) -> None:
        await self._note_the_first_place()
        await self.server.connect()
        await together(
            self._again(self._go_outward, self.account.outward),
            self._again(self._go_inward, self.account.inward),
        )

    async def _note_the_first_place(self) -> None:
        """Keep where the relay is when a bridge is first started, whenever NATS is reached."""
        if self.file.state.outward:
            return
        await self.link.connected()
        asked = fingerprint(self._listening)
        place = Place(self.link.epoch, self.link.position, 0, asked)
        self.file.state.outward = place.text
        self.file.save()

    async def _again(self, go: Callable[[], Coroutine[Any, Any, None]], way: Any) -> None:
        """Do it whenever it has ended."""
        while True:
            try:
                await go()
            except TROUBLES as error:
                self._tell(way, str(error) or "NATS does not answer")
            await asyncio.sleep(AGAIN_SECONDS)

    @staticmethod
    def _tell(way: Any, trouble: str) -> None:
        if way.trouble != trouble:
            _log.error("{trouble}", trouble=trouble)
        way.trouble = trouble

    # Outward

    async def _go_outward(self) -> None:
        await self.stream.check()
        last = await self.stream.last_of(self._subject)
        if last is None:
            place, sequence = Place.parse(self.file.state.outward), 0
        else:
            # A message of which only some parts are there begins again.
            place = last.end if last.part == last.parts else last.begin
            sequence = last.sequence
        self.outward.go_on_at(place, sequence)
        self.account.outward.trouble = None
        self.link.listen(Bookmark(*place))
        try:
            await self.outward.run()
        finally:
            self.link.stop_listening()
            if self._patience is not None:
                self._patience.cancel()

    def _published(self, place: Place) -> None:
        self.file.state.outward = place.text

    def run_received(self, run: Run) -> None:
        """Send on what the relay has."""
        self.outward.run_received(run)

    def position_received(self, bookmark: Bookmark) -> None:
        """Take note of where the relay has come to."""
        self.outward.position_received(bookmark)

    def gap_received(self, missed: Missed) -> None:
        """Tell of what the relay does not have any more."""
        self.outward.gap_received(missed)

    def bookmark_refused(self, error: BookmarkError) -> Subscribe:
        """Go on in another journal with all that it has, as none of that has crossed."""
        _log.warn("the relay does not go on where it stopped: {error}", error=str(error))
        start = Start.POSITION if error.code == ErrorCode.WRONG_EPOCH else Start.LIVE
        return Subscribe(
            WISHES,
            start,
            types=self.settings.types,
            sources=self.settings.sources,
            name=self._listening.name,
        )

    def _crowded(self, crowded: bool) -> None:
        """Leave the relay unread while too much waits, or do without it."""
        loop = asyncio.get_running_loop()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if crowded:
            self.link.pause()
            self._patience = loop.call_later(PATIENCE_SECONDS, self._set_aside)
        elif self.link.listens:
            self.link.resume()
        elif self.outward.received is not None:
            self.link.listen(Bookmark(*self.outward.received))

    def _set_aside(self) -> None:
        _log.info("too much waits for NATS: what follows stays in the relay's journal")
        self.link.stop_listening()

    # Inward

    async def _go_inward(self) -> None:
        info = await self.stream.check()
        state = self.file.state
        acknowledged = await self.consumer.acknowledged()
        if state.created != self.stream.created:
            # Another stream: its sequences begin anew.
            state.created, state.done, state.sending = self.stream.created, 0, 0
            state.done = info.state.last_seq if acknowledged is None else acknowledged
        state.done = max(state.done, acknowledged or 0)
        self.file.save()
        self.account.inward.trouble = None
        await together(self.consumer.run(state.done + 1), self.inward.run(self.consumer))

    async def _history(self, epoch: int, position: int, sources: frozenset[int]) -> Iterable[bytes]:
        look = partial(messages_since, self.settings.relay, epoch, position, sources)
        return await asyncio.to_thread(lambda: list(look()))


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Do all of it until one part fails, or all are cancelled; none goes on after that.

    Not by a ``TaskGroup``: Python 3.11's forgets that it was cancelled if a part fails just then.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def wanted_stream(settings: BridgeSettings) -> Wanted:
    """Return what the stream is to be."""
    return Wanted(
        settings.stream,
        settings.subject,
        settings.create_stream,
        settings.replicas,
        settings.max_bytes,
        settings.max_age,
    )


def asked_of(settings: BridgeSettings) -> Asked:
    """Return what is to come from the stream."""
    relays = sorted(settings.take_from)
    subjects = [f"{settings.subject}.{relay}" for relay in relays] or [f"{settings.subject}.>"]
    return Asked(settings.stream, settings.name, tuple(subjects))
