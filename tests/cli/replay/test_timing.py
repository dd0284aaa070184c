"""When replayed messages are due, with a clock that stands still."""

import math

import click
import pytest
from click.testing import CliRunner

from alphapulse_relay.cli.replay.timing import LONGEST_WAIT, SpeedParameter, Timing
from alphapulse_relay.protocol_v2.header import Header

DAY = 86_400
BEGIN = 1_777_900_000
"""Seconds since the epoch."""


def due(*messages: tuple[int, float], speed: float = 1.0) -> list[float]:
    """When messages (source, seconds after the beginning) are due, in seconds after the first."""
    timing = Timing(speed, clock=lambda: 500.0)
    times = [round((BEGIN + at) * 10**9) for _, at in messages]
    headers = [
        Header(2, 1, source, 0, 1, at, 0, 0)
        for (source, _), at in zip(messages, times, strict=True)
    ]
    return [round(timing.due(header) - 500.0, 6) for header in headers]


class TestTiming:
    @pytest.mark.parametrize(
        ("speed", "expected"), [(1, [0, 1, 3]), (10, [0, 0.1, 0.3]), (0.5, [0, 2, 6])]
    )
    def test_speed(self, speed, expected):
        assert due((20, 0), (20, 1), (20, 3), speed=speed) == expected

    def test_sources_of_one_clock(self):
        assert due((20, 0), (21, 2), (20, 3), (22, 4)) == [0, 2, 3, 4]

    def test_a_little_out_of_order(self):
        assert due((20, 5), (21, 4), (20, 6), (21, 7)) == [0, 0, 1, 2]

    def test_no_time(self):
        assert due((20, 0), (21, -BEGIN), (20, 1), (21, -BEGIN)) == [0, 0, 1, 1]
        assert due((21, -BEGIN), (20, 0), (20, 1)) == [0, 0, 1]

    def test_clock_that_was_set_back(self):
        assert due((20, DAY), (20, 0), (20, 1)) == [0, 0, 1]

    def test_a_source_with_a_clock_of_its_own(self):
        odd = 1000 * DAY
        assert due((20, 0), (21, odd), (20, 1), (21, odd + 2), (20, 3)) == [0, 0, 1, 2, 3]
        assert due((20, 0), (21, -odd), (20, 1), (21, 2 - odd)) == [0, 0, 1, 2]

    def test_longest_wait(self, capsys):
        assert due((20, 0), (20, LONGEST_WAIT)) == [0, LONGEST_WAIT]
        assert capsys.readouterr().err == ""

    def test_a_long_silence_is_cut_for_all(self, capsys):
        found = due((20, 0), (21, 0), (20, 1000), (21, 1001), (20, 1002))
        assert found == [0, 0, LONGEST_WAIT, LONGEST_WAIT + 1, LONGEST_WAIT + 2]
        told = "signal-relay: nothing for 1000 s: 60 s of it are waited\n"
        assert capsys.readouterr().err == told

    def test_what_is_waited_counts_not_what_was(self):
        assert due((20, 0), (20, 500), speed=10) == [0, 50]


class TestSpeed:
    @pytest.mark.parametrize(
        ("text", "expected"), [("1x", 1), ("10", 10), ("0.5x", 0.5), ("max", math.inf)]
    )
    def test_good(self, text, expected):
        assert SpeedParameter().convert(text, None, None) == expected

    @pytest.mark.parametrize("text", ["", "x", "0x", "-1x", "nan", "infx", "1e9x", "fast"])
    def test_wrong(self, text):
        @click.command()
        @click.option("--speed", type=SpeedParameter())
        def command(speed: float) -> None:
            raise AssertionError(speed)

        shown = CliRunner().invoke(command, ["--speed", text])
        assert shown.exit_code == 2
        assert f"{text!r} is neither a speed from 0.001x to 1000000x nor max" in shown.output
