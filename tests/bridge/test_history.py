"""What a relay's journal is found to hold."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from alphapulse_relay.bridge import history as module
from alphapulse_relay.bridge.history import messages_since
from alphapulse_relay.client.errors import IncompleteError
from tests.bridge.joined import LoopEndpoint, head, running, send, until
from tests.support import Relay, message, messages


@pytest.fixture
def relay(relays: tuple[Path, Path]) -> Path:
    return relays[0]


def found(relay: Path, epoch: int, position: int, *sources: int) -> list[bytes]:
    looked = messages_since(LoopEndpoint(relay), epoch, position, frozenset(sources))
    return list(asyncio.run(looked))


def test_what_some_sources_sent(relay: Path) -> None:
    since = head(relay)
    few, many = messages(30, 5) + messages(31, 5), messages(32, 500, 5000)
    send(relay, *few, *many)
    assert found(relay, *since[:2], 30, 31) == few
    assert found(relay, *since[:2], 32) == many
    assert found(relay, *since[:2], 33) == []
    assert found(relay, *head(relay)[:2], 32) == []


def test_another_journal_and_one_that_has_lost_its_end(relay: Path) -> None:
    epoch, position = head(relay)[:2]
    send(relay, message(30, 1))
    assert found(relay, epoch + 1, position, 30) == []
    assert found(relay, epoch, position + (1 << 40), 30) == []


def test_no_relay(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        found(tmp_path / "none", 1, 0, 30)


def test_a_relay_that_dies_or_hangs(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.2)
    with Relay() as relay:
        epoch, position = head(relay.socket)[:2]
        relay.process.send_signal(signal.SIGSTOP)

        async def go() -> None:
            endpoint, sources = LoopEndpoint(relay.socket), frozenset({30})
            with pytest.raises(IncompleteError, match="does not tell what is in its journal"):
                await messages_since(endpoint, epoch, position, sources)
            look = asyncio.ensure_future(messages_since(endpoint, epoch, position, sources))
            await asyncio.sleep(0.05)
            relay.process.kill()
            with pytest.raises(IncompleteError, match="journal was not read"):
                await look

        asyncio.run(go())


def test_who_looks_is_cancelled(relay: Path) -> None:
    async def go() -> None:
        epoch, position = head(relay)[:2]
        for turns in range(8):
            look = messages_since(LoopEndpoint(relay), epoch, position, frozenset({30}))
            async with running(look):
                for _ in range(turns):
                    await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await until(lambda: all(task.done() for task in left))

    asyncio.run(go())
