"""Three relays over a cluster of NATS, all killed again and again: ``script/soak`` for a moment."""

import random

import pytest

pytest.importorskip("nats")

from tests.soak.bridges import chaos

MESSAGES = 3_000
RATE = 1_000.0
SECONDS_BETWEEN = 0.6


@pytest.mark.parametrize("options", [(), ("--split-by-type",)], ids=["whole runs", "by type"])
def test_everything_is_everywhere_once_and_in_order(options: tuple[str, ...]) -> None:
    told = list(chaos(MESSAGES, RATE, SECONDS_BETWEEN, random.Random(), options))
    assert sum("all everywhere" in line for line in told) == 3
