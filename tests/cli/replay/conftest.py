"""A relay that has kept something."""

from collections.abc import Iterator

import pytest

from tests.cli.conftest import SAMPLES
from tests.support import Relay

SAMPLE = (SAMPLES / "mixed.v2").read_bytes()


@pytest.fixture(scope="package")
def kept() -> Iterator[Relay]:
    """A relay with the sample in its journal; nothing else is to be published there."""
    with Relay() as relay:
        relay.connect().send(SAMPLE)
        relay.wait_until(lambda status: status["counters"]["messages_received"] == 1000)
        yield relay
