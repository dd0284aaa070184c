"""How a connection over TLS is closed, on real sockets."""

from pathlib import Path
from typing import Any

import pytest_twisted
from zope.interface.verify import verifyObject

from alphapulse_relay.hub.outlet import IOutlet
from alphapulse_relay.hub.peer import Ending
from alphapulse_relay.hub.tls_outlet import TLSOutlet
from tests.hub.sockets import Relay, until


@pytest_twisted.async_yield_fixture
async def relay(path: Path) -> Any:
    relay = Relay(path, "tls")
    yield relay
    await relay.stop()


async def test_is_that_of_a_connection_over_tls(relay: Relay) -> None:
    _, peer = await relay.connect()
    assert isinstance(peer.outlet, TLSOutlet)
    assert verifyObject(IOutlet, peer.outlet)


async def test_does_not_wait_for_one_that_never_reads(relay: Relay) -> None:
    """Nothing but its kernel takes the end: TLS by itself would wait for its answer."""
    remote, peer = await relay.connect()
    transport = peer.transport
    peer.end(Ending.SHUTDOWN, b"goodbye")
    await until(lambda: not transport.connected)
    assert await remote.receive(100) == b"goodbye"


async def test_does_not_wait_for_one_that_is_gone(relay: Relay) -> None:
    remote, peer = await relay.connect()
    transport = peer.transport
    peer.end(Ending.SHUTDOWN, b"goodbye")
    remote.close()
    await until(lambda: not transport.connected)
