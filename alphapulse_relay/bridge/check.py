"""What a bridge would find at NATS, looked at without changing anything.

No stream or consumer is made, moved or deleted, and nothing is published: only who reads is told.
A bridge may run meanwhile. What is to be thought of it, who asked decides.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo

from alphapulse_relay.bridge.account import Account
from alphapulse_relay.bridge.bridge import CANCEL_AGAIN_SECONDS, asked_of, wanted_stream
from alphapulse_relay.bridge.envelope import Place
from alphapulse_relay.bridge.options import BridgeSettings
from alphapulse_relay.bridge.outward import Outward
from alphapulse_relay.bridge.server import Server, describe, tls_context
from alphapulse_relay.bridge.stream import (
    SMALLEST_PAYLOAD,
    Last,
    LaterError,
    Stream,
    StreamError,
    faults_of,
)

ANSWER_SECONDS = 5.0
"""How long a server may take to let us in, and to answer a question."""
LOOK_SECONDS = 0.02
"""How often it is looked whether a server has answered."""
SEVERAL_SUBJECTS = 2, 10
"""The first version of nats-server whose consumers know more than one subject."""
_SILENT = f"no answer for {ANSWER_SECONDS:g} s"


@dataclass(frozen=True)
class ServerView:
    """A server of NATS: ``trouble`` is why it does not let us in, else it has all the rest.

    ``round_trip`` is in seconds, ``max_payload`` in bytes.
    """

    url: str
    trouble: str | None
    version: str = ""
    is_new_enough: bool = True
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


@dataclass
class View:
    """NATS: ``stream`` is None if there is none, or ``trouble`` tells why that is not known.

    ``jetstream`` is whether it is enabled, None where that is not known, either.
    """

    servers: list[ServerView] = field(default_factory=list)
    jetstream: bool | None = None
    trouble: str | None = None
    stream: StreamView | None = None


async def look(settings: BridgeSettings) -> View:
    """Return what is there. Raises ``OSError`` if a file for TLS cannot be used."""
    servers = [Server(replace(settings, nats=(url,))) for url in settings.nats]
    running = [asyncio.ensure_future(server.run()) for server in servers]
    try:
        tls_context(settings)
        view = View(await asyncio.gather(*map(_look_at, servers, settings.nats)))
        here = next((server for server in servers if server.is_connected), None)
        if here is not None:
            await _look_at_jetstream(settings, here, view)
        return view
    finally:
        while pending := [task for task in running if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)


async def _look_at(server: Server, url: str) -> ServerView:
    before = server.trouble
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while not server.is_connected and server.trouble == before:
                await asyncio.sleep(LOOK_SECONDS)
            if not server.is_connected:
                return ServerView(url, server.trouble)
            round_trip = await server.client.rtt()
    except (TimeoutError, nats.errors.Error):
        return ServerView(url, server.trouble if server.trouble != before else _SILENT)
    version = server.client.connected_server_version
    return ServerView(
        url,
        None,
        str(version),
        (version.major, version.minor) >= SEVERAL_SUBJECTS,
        tls_context(server.settings) is not None,
        round_trip,
        server.client.max_payload,
    )
