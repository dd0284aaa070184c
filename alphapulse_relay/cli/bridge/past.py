"""Whether the stream still is what it was when a bridge took messages from it.

Knows the client of NATS, so it is loaded only where that is installed.
"""

import asyncio

import nats.errors
from nats.js.api import StreamInfo

from alphapulse_relay.bridge.bridge import wanted_stream
from alphapulse_relay.bridge.check import ANSWER_SECONDS
from alphapulse_relay.bridge.options import BridgeSettings
from alphapulse_relay.bridge.server import Server, describe
from alphapulse_relay.bridge.stream import Stream
from alphapulse_relay.bridge.tasks import end
from alphapulse_relay.cli.words import Failure


def same_until(settings: BridgeSettings, info: StreamInfo, sequence: int, stored: float) -> int:
    """Return what :meth:`Stream.same_until` does, on a connection of its own.

    Raises :class:`Failure`.
    """
    try:
        return asyncio.run(_same_until(settings, info, sequence, stored))
    except (TimeoutError, OSError, nats.errors.Error) as error:
        raise Failure(describe(error)) from None


async def _same_until(
    settings: BridgeSettings, info: StreamInfo, sequence: int, stored: float
) -> int:
    server = Server(settings)
    running = asyncio.ensure_future(server.run())
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await server.connected()
            stream = Stream(server, wanted_stream(settings))
            return await stream.same_until(info, sequence, stored)
    finally:
        await end([running])
