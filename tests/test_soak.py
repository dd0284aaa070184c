"""What ``script/soak`` does for an hour or a hundred rounds, in short, and its arithmetic."""

import math
import os
import random
from array import array

import pytest

from tests.soak.growth import count_descriptors, slope, take_sample
from tests.soak.latency import percentiles
from tests.soak.rounds import Life
from tests.soak.steady import PARTS, steady, table
from tests.soak.supervised import Supervised


class TestSlope:
    def test_of_a_line(self) -> None:
        found = slope([(second, 100 + second / 60) for second in range(100)])
        assert found.per_hour == pytest.approx(60)
        assert found.error == pytest.approx(0, abs=1e-6)

    def test_has_the_error_of_what_lies_beside_the_line(self) -> None:
        """By hand: the middle is (1.5, 2.5), the line 1.3 x + 0.55, what is left 2.7."""
        found = slope([(0, 1), (1, 1), (2, 4), (3, 4)])
        assert found.per_hour == pytest.approx(1.2 * 3600)
        assert found.error == pytest.approx(math.sqrt(1.8 / 2 / 5) * 3600)

    def test_of_two_points_is_not_told(self) -> None:
        assert math.isnan(slope([(0, 1), (1, 2)]).per_hour)


def test_percentiles_are_values_that_were_measured() -> None:
    found = percentiles(array("d", [number / 1e6 for number in range(1000)]))
    assert found == pytest.approx([500, 990, 999])
    assert all(math.isnan(each) for each in percentiles(array("d")))


def test_descriptors_are_counted_without_files() -> None:
    before = count_descriptors(os.getpid())
    pipe = os.pipe()
    with open(__file__):
        assert count_descriptors(os.getpid()) == before + 2
        sample = take_sample(os.getpid(), 0)
        assert sample.descriptors == before + 2
        assert sample.resident > sample.anonymous > 1000
    for descriptor in pipe:
        os.close(descriptor)


def test_steady() -> None:
    told: list[str] = []
    result = steady(6, 20_000, random.Random(), told.append)
    assert len(result.parts) == PARTS
    assert len(told) >= PARTS - 2
    assert result.rate > 5_000
    assert result.descriptors[0] == result.descriptors[1]
    assert result.halves[0] > 0
    assert len(list(table(result))) == PARTS + 6


@pytest.mark.parametrize("held", [False, True], ids=["its own socket", "a socket that is held"])
def test_restarts(held: bool) -> None:
    with Life(20, held=held, chance=random.Random()) as life:
        for _ in range(2):
            life.round(Supervised.restart)
        assert life.messages > 0
        assert life.sent_twice == 0


def test_handovers() -> None:
    with Life(20, held=False, chance=random.Random()) as life:
        breaks = [life.round(Supervised.hand_over) for _ in range(2)]
        assert life.messages > 0
        assert life.sent_twice == 0
    assert all(0 < each.away < each.since_told for each in breaks)
