"""History under load, on a real relay process: what ``script/soak`` does for long, a few times."""

import random

from tests.soak.reconnects import WAYS, Life
from tests.soak.stalls import KINDS, load, stall_round
from tests.soak.stopped import stopped

ROUNDS = 24


def test_who_stalls_or_begins_in_the_past_gets_each_message_once() -> None:
    chance = random.Random()
    with load() as flood:
        for number in range(ROUNDS):
            stall_round(flood, chance, KINDS[number % len(KINDS)])
        assert flood.checked > 0


def test_a_client_gets_each_message_once_however_its_connections_end() -> None:
    with Life(random.Random()) as life:
        for way in (*WAYS, *reversed(WAYS)):
            life.round(way)
        assert life.check() > 0


def test_one_of_twenty_that_stops_is_felt_by_nobody() -> None:
    result = stopped(20, 3, 20_000, print)
    assert result.left_behind > 20_000
