"""Streams at a real NATS server that are, or are not, what they were."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nats")

from nats.js.api import StreamInfo

from alphapulse_relay.bridge.bridge import wanted_stream
from alphapulse_relay.bridge.options import BridgeSettings
from alphapulse_relay.bridge.stream import Stream
from alphapulse_relay.cli.bridge import past
from alphapulse_relay.cli.bridge.ends import Ends
from alphapulse_relay.cli.words import Failure
from tests.bridge.bridges import settings
from tests.bridge.servers import NATS, connected


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NATS]:
    with NATS(tmp_path) as server:
        yield server


def filled(one: BridgeSettings, messages: int) -> tuple[StreamInfo, list[float]]:
    """Make a stream of so many messages; return what is told of it, and when each was stored."""

    async def go() -> tuple[StreamInfo, list[float]]:
        async with connected(one) as nats:
            stream, jetstream = Stream(nats, wanted_stream(one)), nats.client.jetstream()
            await stream.check()
            for _ in range(messages):
                await jetstream.publish("signals.other", b"x")
            found = [await jetstream.get_msg("SIGNALS", each + 1) for each in range(messages)]
            return await stream.check(), [each.time.timestamp() for each in found if each.time]

    return asyncio.run(go())


def test_what_it_is(server: NATS, tmp_path: Path) -> None:
    one = settings(tmp_path, nats=server.url, create_stream="true", max_bytes="1M")
    info, stored = filled(one, 3)
    assert Ends(one).same_until(info, 3, stored[2]) == 3
    assert past.same_until(one, info, 3, stored[0] - 60) == 0, "all are of later"
    assert past.same_until(one, info, 7, stored[2]) == 3, "4 to 7 have gone"


def test_nobody_answers(server: NATS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = settings(tmp_path, nats=server.url, create_stream="true", max_bytes="1M")
    info, stored = filled(one, 1)
    server.freeze()
    monkeypatch.setattr(past, "ANSWER_SECONDS", 0.05)
    with pytest.raises(Failure, match="no answer"):
        past.same_until(one, info, 1, stored[0])
