"""The bridge: a relay on one side, a stream on the other, and both ways between them.

Puts the parts together, and begins again what has ended. Each part knows how to go on by itself.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats.errors
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from alphapulse_relay.bridge.account import Account, Loss, Way
from alphapulse_relay.bridge.consumer import Asked, Consumer, RestartError
from alphapulse_relay.bridge.envelope import Place
from alphapulse_relay.bridge.history import messages_since
from alphapulse_relay.bridge.inward import Inward
from alphapulse_relay.bridge.options import BridgeSettings
from alphapulse_relay.bridge.outward import Outward
from alphapulse_relay.bridge.progress import Progress
from alphapulse_relay.bridge.relay_link import RelayLink, listening_to
from alphapulse_relay.bridge.server import Server, describe
from alphapulse_relay.bridge.state import State, StateError, StateFile
from alphapulse_relay.bridge.stream import (
    Last,
    LaterError,
    Stream,
    StreamError,
    Wanted,
    WrongLastError,
)
from alphapulse_relay.bridge.tasks import together
from alphapulse_relay.client.bookmark import Bookmark, fingerprint
from alphapulse_relay.client.core import Missed, Run
from alphapulse_relay.client.errors import BookmarkError, ClientError
from alphapulse_relay.protocol_v2.control import ErrorCode, Start, Subscribe
from alphapulse_relay.protocol_v2.selection import Selector

_log = Logger()

AGAIN_SECONDS = 1.0
"""Pause before what has failed is begun again."""
SAVE_SECONDS = 5.0
"""How often it is kept where the ways have come to. Only a quiet relay's place depends on it."""
LOOK_SECONDS = 5.0
"""How often it is looked what the stream has lost: before it could lose all that came since."""
PATIENCE_SECONDS = 1.0
"""How long the relay is left unread while nothing can be published. Then nothing more is asked of
it until that goes on: it could not acknowledge what comes from afar either."""


TROUBLES = (
    StreamError,
    LaterError,
    RestartError,
    WrongLastError,
    StateError,
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
        self.stream = Stream(server, wanted_stream(settings))
        self.server = server
        self._endpoint = endpoint
        self._overtaken = False  # somebody else has published as this relay
        self._subject = f"{settings.subject}.{settings.name}"
        self._listening = listening_to(settings.types, settings.sources)
        self.link = RelayLink(endpoint, self._listening, self)
        self.outward = Outward(
            self.stream,
            self._subject,
            self.account,
            self._crowded,
            split=settings.split_by_type,
            compress=settings.compress,
        )
        self.consumer = Consumer(server, asked_of(settings))
        self.inward = Inward(
            self.link,
            self.file,
            self._history,
            self.account,
            prefix=settings.subject,
            own=settings.name,
            selector=Selector(settings.take_types, settings.take_sources),
        )
        self.progress = Progress(
            self.stream,
            self.consumer,
            self.file,
            self.account,
            by_types=bool(settings.take_types),
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

    @property
    def is_first(self) -> bool:
        """Whether the relay has still to make the directory in which the state is kept, too."""
        directory = self.settings.state.parent
        return directory == Path(self.settings.relay).parent and not directory.exists()

    async def run(self) -> None:
        """Do it all, until cancelled. Raises :class:`StateError` before that has begun."""
        if self.is_first:
            _log.info("no relay yet: it makes the directory of its socket")
        while self.is_first:
            await asyncio.sleep(AGAIN_SECONDS)
        self.file.load()
        await together(self.link.run(), self._join())

    async def _join(self) -> None:
        await self._note_the_first_place()
        await together(
            self.server.run(),
            self._again(self._go_outward, self.account.outward),
            self._again(self._go_inward, self.account.inward),
            self._save_now_and_then(),
        )

    async def _save_now_and_then(self) -> None:
        """Keep where the relay has come to, also where nothing of that is to cross."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            with suppress(StateError):  # which whoever cannot go on by it tells
                self.save()

    def save(self) -> None:
        """Keep where both ways have come to. Raises :class:`StateError`."""
        if self.outward.place is not None:
            self.file.state.outward = self.outward.place.text
        if self.outward.published is not None:
            self.file.state.published = self.outward.published.text
        self.file.save()

    async def _note_the_first_place(self) -> None:
        """Keep where the relay is when a bridge is first started, whenever NATS is reached."""
        if self.file.state.outward or self.file.state.first:
            return
        await self.link.connected()
        asked = fingerprint(self._listening)
        place = Place(self.link.epoch, self.link.position, 0, asked)
        self.file.state.first = place.text
        self.file.save()

    async def _again(self, go: Callable[[], Coroutine[Any, Any, None]], way: Way) -> None:
        """Do it on each connection to NATS, and again whenever it has ended."""
        while True:
            await self.server.connected()
            try:
                await together(go(), self.server.until_lost())
            except TROUBLES as error:
                if self.server.is_connected:  # else that tells itself
                    self._tell(way, self._why(error))
            await asyncio.sleep(AGAIN_SECONDS)

    def _why(self, error: Exception) -> str:
        """Return what is wrong: to what is not allowed there is no answer, but a complaint."""
        is_silence = isinstance(error, TimeoutError)
        return (self.server.complaint if is_silence else None) or describe(error)

    @staticmethod
    def _tell(way: Way, trouble: str) -> None:
        if way.trouble != trouble:
            _log.error("{trouble}", trouble=trouble)
        way.trouble = trouble

    @staticmethod
    def _goes(name: str, way: Way) -> None:
        _log.info("goes {name}", name=name)
        way.trouble = None

    # Outward

    async def _go_outward(self) -> None:
        await self.stream.check()
        last = await self.stream.last_of_relay(self._subject)
        await self._check_alone(last)
        place = self.outward.place or known_place(self.file.state, last)
        await self.link.connected()
        published = self.file.state.published
        self.outward.go_on_after(
            last,
            place,
            fingerprint(self._listening),
            epoch=self.link.epoch,
            published=Place.parse(published) if published else None,
        )
        self._goes("outward", self.account.outward)
        self.link.listen(Bookmark(*(self.outward.place or place)))
        try:
            await self.outward.run()
        except WrongLastError:
            self._overtaken = True
            raise
        finally:
            self.link.stop_listening()
            if self._patience is not None:
                self._patience.cancel()

    async def _check_alone(self, last: Last | None) -> None:
        """Raise :class:`StreamError` if another relay's bridge publishes under this one's name.

        Both would send their whole journal again and again: who comes later has the name.
        """
        if self._overtaken and last is not None:
            await self.link.connected()
            if last.envelope.end.epoch != self.link.epoch:
                raise StreamError(
                    f"another relay's bridge is called {self.settings.name}, too: message "
                    f"{last.sequence} in the stream is not of the journal here"
                )
        self._overtaken = False

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
        """Go on in a journal that is not what it was, and tell that something may be missing.

        Of another journal all that it has is new. One that has lost its end (a power cut, a backup)
        lacks what was published last, so what is new in it came after that.
        """
        self.outward.forget_unfinished()
        self.account.lost[Loss.RELAY_GAP] += 1
        _log.error(
            "reason=relay_gap: the relay's journal does not go on where it was, and what had not "
            "crossed may be lost: {error}",
            error=str(error),
        )
        if error.code == ErrorCode.WRONG_EPOCH:
            return replace(self._listening, start=Start.POSITION)
        if self.outward.time:
            return replace(self._listening, start=Start.TIME, start_value=self.outward.time)
        return self._listening

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
        await self.consumer.begin(await self.progress.begin())
        self._goes("inward", self.account.inward)
        await together(
            self.consumer.run(), self.inward.run(self.consumer), self._look_now_and_then()
        )

    async def _look_now_and_then(self) -> None:
        """Have it told soon if the stream loses what has not come."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(*TROUBLES):
                await self.progress.look()

    async def _history(self, epoch: int, position: int, sources: frozenset[int]) -> Iterable[bytes]:
        return await messages_since(self._endpoint, epoch, position, sources)


def known_place(state: State, last: Last | None) -> Place:
    """Return behind what of the relay's journal nothing need cross, by the file or the stream.

    Where the file has gone, the stream knows; a first start begins where the relay is then.
    """
    if state.outward:
        return Place.parse(state.outward)
    return Place.parse(state.first) if last is None else last.envelope.end


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
    if not settings.take_from and not settings.take_types:
        return Asked(settings.stream, settings.name, (f"{settings.subject}.>",))
    relays = sorted(settings.take_from) or ["*"]
    types = [str(type_) for type_ in sorted(settings.take_types)] or [">"]
    whole = [f"{settings.subject}.{relay}" for relay in relays]
    subjects = [*whole, *(f"{relay}.{type_}" for relay in whole for type_ in types)]
    return Asked(settings.stream, settings.name, tuple(subjects))
