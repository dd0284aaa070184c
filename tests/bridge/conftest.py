"""What the bridge's tests share."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.soak.guests import Log
from tests.support import Relay

NUMBERS = count()


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a plain server with JetStream, where each test has a stream of its own."""
    from tests.bridge.running import NATSServer

    directory: Path = tmp_path_factory.mktemp("nats")
    with NATSServer(directory) as server:
        yield server.url


@pytest.fixture(scope="session")
def relays() -> Iterator[tuple[Path, Path]]:
    """The sockets of two relays. What is in their journals is of other tests, too."""
    with Relay() as one, Relay() as other, Log(one), Log(other):
        yield one.socket, other.socket


@pytest.fixture
def names() -> dict[str, str]:
    """Options for a stream that no other test has."""
    number = next(NUMBERS)
    # Each stream's size is reserved: there is no room for many of the usual one.
    return {"stream": f"B{number}", "subject": f"b{number}", "max_bytes": "64M"}


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a bridge begin again soon."""
    monkeypatch.setattr("alphapulse_relay.bridge.bridge.AGAIN_SECONDS", 0.1)
    monkeypatch.setattr("alphapulse_relay.bridge.bridge.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("alphapulse_relay.bridge.outward.RETRY_SECONDS", 0.1)
    monkeypatch.setattr("alphapulse_relay.bridge.server.RECONNECT_SECONDS", 0.1)
