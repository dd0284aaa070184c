"""What the bridge's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.guests import Log
from tests.support import Relay


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
