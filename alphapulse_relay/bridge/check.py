"""What a bridge would find at NATS, looked at without changing anything.

No stream or consumer is made, moved or deleted, and nothing is published, so a bridge may run
meanwhile. What to think of it, who asked decides.
"""

import asyncio
import errno
import os
from dataclasses import dataclass, replace

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo

from alphapulse_relay.bridge.account import Account
from alphapulse_relay.bridge.bridge import asked_of, known_place, wanted_stream
from alphapulse_relay.bridge.envelope import Place
from alphapulse_relay.bridge.options import BridgeSettings
from alphapulse_relay.bridge.outward import Outward
from alphapulse_relay.bridge.server import Server, describe, tls_context
from alphapulse_relay.bridge.state import State
from alphapulse_relay.bridge.stream import (
    Last,
    LaterError,
    Stream,
    StreamError,
    faults_of,
)
from alphapulse_relay.bridge.tasks import end

ANSWER_SECONDS = 5.0
"""How long a server may take to let us in, and to answer a question."""
LOOK_SECONDS = 0.02
"""How often it is looked whether a server has answered."""
_RESET = os.strerror(errno.ECONNRESET)
"""What comes of a server's refusal where that was not read in time: its next one tells more."""
_SILENT = f"no answer for {ANSWER_SECONDS:g} s"


@dataclass(frozen=True)
class ServerView:
    """A server of NATS: ``trouble`` is why it does not let us in, else it has all the rest.

    ``round_trip`` is in seconds, ``max_payload`` in bytes.
    """

    url: str
    trouble: str | None
    version: tuple[int, int, int] = (0, 0, 0)
    is_encrypted: bool = False
    round_trip: float = 0.0
    max_payload: int = 0


@dataclass(frozen=True)
class StreamView:
    """The stream as it is.

    ``oldest`` is when its first message was stored, in seconds since 1970, None if it is empty.
    ``subjects`` has the number of messages of each. ``last`` is the last message of the relay here,
    or of who is called so, ``stranger`` tells of it if no bridge has made it.
    """

    info: StreamInfo
    faults: tuple[str, ...]
    oldest: float | None
    subjects: dict[str, int]
    last: Last | None
    stranger: str | None
    consumer: ConsumerInfo | None


@dataclass(frozen=True)
class View:
    """NATS: its servers, and, once one of them lets us in, why JetStream cannot be asked, if so.

    ``stream`` is None if there is none; ``taken_by`` is another one then that has its subjects.
    """

    servers: tuple[ServerView, ...]
    trouble: str | None = None
    stream: StreamView | None = None
    taken_by: str | None = None

    @property
    def is_reached(self) -> bool:
        """Whether any server lets us in."""
        return any(server.trouble is None for server in self.servers)


async def look(settings: BridgeSettings) -> View:
    """Return what is there. Raises ``OSError`` if a file for TLS cannot be used."""
    is_encrypted = tls_context(settings) is not None
    servers = {url: Server(replace(settings, nats=(url,))) for url in settings.nats}
    running = [asyncio.ensure_future(server.run()) for server in servers.values()]
    try:
        looks = (_look_at(server, url, is_encrypted) for url, server in servers.items())
        view = View(tuple(await asyncio.gather(*looks)))
        here = next((server for server in servers.values() if server.is_connected), None)
        return view if here is None else await _look_into(settings, here, view)
    finally:
        await end(running)


async def _look_at(server: Server, url: str, is_encrypted: bool) -> ServerView:
    before = server.trouble
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while not server.is_connected:
                if server.trouble != before and _RESET not in str(server.trouble):
                    return ServerView(url, server.trouble)
                await asyncio.sleep(LOOK_SECONDS)
            round_trip = await server.client.rtt()
    except (TimeoutError, ValueError, nats.errors.Error):
        return ServerView(url, server.trouble if server.trouble != before else _SILENT)
    found = server.client.connected_server_version
    version = found.major, found.minor, found.patch
    return ServerView(
        url, None, version, is_encrypted, round_trip, max_payload=server.client.max_payload
    )


async def _look_into(settings: BridgeSettings, server: Server, view: View) -> View:
    """Look at JetStream by a server that is connected."""
    jetstream = server.client.jetstream(timeout=ANSWER_SECONDS)
    try:
        stream = await _stream(settings, server, jetstream)
        if stream is not None:
            return replace(view, stream=stream)
        return replace(view, taken_by=await _owner(jetstream, f"{settings.subject}.>"))
    except nats.js.errors.ServiceUnavailableError as error:
        off = error.err_code is None  # nobody is there to answer
        return replace(view, trouble="JetStream is not enabled" if off else describe(error))
    except TimeoutError:
        return replace(view, trouble=server.complaint or f"JetStream: {_SILENT}")
    except (LaterError, nats.errors.Error) as error:
        return replace(view, trouble=f"JetStream: {describe(error)}")


async def _stream(
    settings: BridgeSettings, server: Server, jetstream: JetStreamContext
) -> StreamView | None:
    wanted = wanted_stream(settings)
    try:
        info = await jetstream.stream_info(wanted.name, subjects_filter=f"{wanted.subject}.>")
    except nats.js.errors.NotFoundError:
        return None
    last, stranger = None, None
    stream = Stream(server, wanted)
    try:
        last = await stream.last_of_relay(f"{wanted.subject}.{settings.name}")
    except StreamError as error:
        stranger = str(error)
    return StreamView(
        info,
        tuple(faults_of(info.config, wanted, server.client.max_payload)),
        await stream.oldest(info),
        dict(info.state.subjects or {}),
        last,
        stranger,
        await _consumer(settings, jetstream),
    )


async def _consumer(settings: BridgeSettings, jetstream: JetStreamContext) -> ConsumerInfo | None:
    asked = asked_of(settings)
    try:
        info: ConsumerInfo = await jetstream.consumer_info(asked.stream, asked.durable)
    except nats.js.errors.NotFoundError:
        return None
    return info


async def _owner(jetstream: JetStreamContext, subject: str) -> str | None:
    """Return the name of a stream that has a subject."""
    try:
        return await jetstream.find_stream_name_by_subject(subject)
    except (nats.js.errors.NotFoundError, TimeoutError):  # a bridge need not be allowed to ask
        return None


def outward_place(
    settings: BridgeSettings, last: Last | None, state: State, asked: int, epoch: int
) -> Place:
    """Return where a bridge goes on in its relay's journal: see :meth:`Outward.go_on_after`."""
    stream = Stream(Server(settings), wanted_stream(settings))
    outward = Outward(stream, settings.subject, Account(), lambda _: None)
    place = known_place(state, last)
    outward.go_on_after(last, place, asked, epoch=epoch)
    return outward.place or place
